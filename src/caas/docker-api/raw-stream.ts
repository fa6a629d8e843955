/** Raw streams between clients and engines, with backpressure and half-close. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ContainerRow } from '#state/containers.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import { chunksOf } from '#caas/byte-stream.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineCall } from '#caas/engine/engine-client.ts';
import { numberOf } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';

const RAW_STREAM = 'application/vnd.docker.raw-stream';
/** Frames of stdout and stderr; the name came with API 1.42. */
const MULTIPLEXED_STREAM = 'application/vnd.docker.multiplexed-stream';
const MULTIPLEXED_FROM = '1.42';

/** The content type of a stream of output. */
export function streamType(apiVersion: string, isTty: boolean): string {
  return isTty || numberOf(apiVersion) < numberOf(MULTIPLEXED_FROM) ? RAW_STREAM : MULTIPLEXED_STREAM;
}

/** Writes and waits where the client is slower than we are. */
export async function write(
  response: Pick<ServerResponse, 'write' | 'once'> & NodeJS.EventEmitter,
  chunk: Buffer,
  signal: AbortSignal,
): Promise<void> {
  if (!response.write(chunk)) await once(response, 'drain', { signal });
}

/** A smaller piece than this costs more to encrypt and send than it holds. */
const PIECE_BYTES_MIN = 32 * 1024;
/** How long a small piece waits for more: nobody who reads a log notices. */
const GATHER_MS = 1;

/** Writes what comes in small pieces (dockerd flushes logs line by line) in larger ones. Waits where the client is slower than we are. */
export class GatheringWriter {
  readonly #response: ServerResponse;
  readonly #signal: AbortSignal;
  #pieces: Buffer[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(response: ServerResponse, signal: AbortSignal) {
    this.#response = response;
    this.#signal = signal;
  }

  async write(piece: Buffer): Promise<void> {
    if (this.#response.writableNeedDrain) await once(this.#response, 'drain', { signal: this.#signal });
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes >= PIECE_BYTES_MIN) this.flush();
    else
      this.#timer ??= setTimeout(() => {
        this.flush();
      }, GATHER_MS);
  }

  /** Sends what waits. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const [first] = this.#pieces;
    if (first === undefined) return;
    const all = this.#pieces.length === 1 ? first : Buffer.concat(this.#pieces, this.#bytes);
    this.#pieces = [];
    this.#bytes = 0;
    if (!this.#response.destroyed) this.#response.write(all);
  }
}

/** An attach or exec on the engine that a container lives on; errors name what the tenant knows. */
export async function hijackOn(
  deps: { readonly containers: Containers },
  row: ContainerRow,
  call: Pick<EngineCall, 'path' | 'query' | 'body'>,
): Promise<Duplex> {
  try {
    return await deps.containers.hostOf(row).client.hijack({ method: 'POST', ...call });
  } catch (error) {
    throw withVirtualNames(error, row);
  }
}

/** Joins a client's raw connection with an engine's, each direction ending for itself (`echo x | docker run -i` needs that). */
export function join(request: HijackRequest, engine: Duplex, contentType: string): void {
  const { socket, head } = request;
  socket.write(`HTTP/1.1 101 UPGRADED\r\nContent-Type: ${contentType}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`);
  if (head.length > 0) engine.write(head);
  splice(socket, engine);
}

/**
 * The same for a request without an upgrade whose client sends input behind its body, as dockerode does: dockerd takes such a connection over,
 * too. Node's parser would read the input as further requests; without its listeners it gets no bytes any more.
 */
export function joinWithoutUpgrade(request: DockerRequest, engine: Duplex): void {
  const { socket } = request.incoming;
  socket.removeAllListeners('data');
  socket.removeAllListeners('end');
  socket.allowHalfOpen = true;
  socket.write(`HTTP/1.1 200 OK\r\nContent-Type: ${RAW_STREAM}\r\n\r\n`);
  splice(socket, engine);
}

function splice(socket: Duplex, engine: Duplex): void {
  const end = (): void => {
    socket.destroy();
    engine.destroy();
  };
  socket.on('error', end);
  engine.on('error', end);
  socket.on('close', () => engine.destroy());
  engine.on('close', () => socket.end());
  socket.pipe(engine);
  engine.pipe(socket);
}

/** Copies an engine's output to a client that reads only. Docker names this a raw stream at every version. */
export async function pump(engine: Duplex, request: DockerRequest): Promise<void> {
  engine.end();
  request.signal.addEventListener('abort', () => engine.destroy(), { once: true });
  request.response.writeHead(200, { 'content-type': RAW_STREAM });
  request.response.flushHeaders();
  for await (const chunk of chunksOf(engine)) await write(request.response, chunk, request.signal);
  request.response.end();
}
