/**
 * An upgraded connection (WebSocket and the like): two sockets that pass bytes to each other.
 *
 * Each direction has backpressure and ends on its own (half-close); an error of one side closes both.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Deadline } from './deadline.ts';
import { count } from './exchange-record.ts';
import type { ExchangeRecord } from './exchange-record.ts';
import { downstreamResponseHeaders, headerBytes } from './headers.ts';
import { STREAM_IDLE_TIMEOUT_MS } from './limits.ts';

/** What a client may send before its upgrade is agreed to. */
const EARLY_BYTES_MAX = 64 * 1024;

interface UpgradeClient {
  readonly socket: Socket;
  readonly response: ServerResponse;
  /** Bytes after the request head. */
  readonly first: Buffer;
}

interface Agreed {
  readonly upstream: Duplex;
  readonly answer: IncomingMessage;
  /** Bytes after the response head. */
  readonly first: Buffer;
  readonly record: ExchangeRecord;
}

export class Upgrade {
  readonly #client: UpgradeClient;
  readonly #early: Buffer[];
  #earlyBytes: number;

  /** Reads on while the endpoint decides, so that a client that goes away is noticed. */
  constructor(client: UpgradeClient) {
    this.#client = client;
    this.#early = [client.first];
    this.#earlyBytes = client.first.length;
    const { socket, response } = client;
    // Only here, not on the TLS server: there a client that ends during its handshake would stay until the handshake's time-out.
    socket.allowHalfOpen = true;
    socket.on('error', () => undefined); // `close` follows and is handled.
    socket.on('close', this.#onEarlyClose);
    socket.on('end', this.#onEarlyEnd);
    socket.on('drain', () => response.emit('drain'));
    socket.on('data', this.#onEarly);
  }

  /** Closes a connection that was answered without an upgrade, or whose streams ended. */
  end(): void {
    this.#client.socket.end();
    this.#client.socket.resume();
  }

  /** Sends the endpoint's agreement to the client and passes bytes until both sides are closed. */
  async splice(agreed: Agreed): Promise<void> {
    const { socket, response } = this.#client;
    const { upstream, answer, record } = agreed;
    socket.off('data', this.#onEarly);
    socket.off('end', this.#onEarlyEnd);
    socket.off('close', this.#onEarlyClose);
    socket.pause();
    response.detachSocket(socket);
    upstream.on('error', () => undefined);
    const headers = downstreamResponseHeaders(answer.rawHeaders, { status: 101, trailers: false });
    headers.push('Connection', 'Upgrade', 'Upgrade', answer.headers.upgrade ?? '');
    let head = `HTTP/1.1 101 ${answer.statusMessage ?? ''}\r\n`;
    for (let index = 0; index + 1 < headers.length; index += 2)
      head += `${headers[index] ?? ''}: ${headers[index + 1] ?? ''}\r\n`;
    count(record, 'downstreamOutBytes', headerBytes(headers));
    socket.write(`${head}\r\n`, 'latin1');
    const toClient = (bytes: number): void => {
      count(record, 'upstreamInBytes', bytes);
      count(record, 'downstreamOutBytes', bytes);
    };
    const toUpstream = (bytes: number): void => {
      count(record, 'downstreamInBytes', bytes);
      count(record, 'upstreamOutBytes', bytes);
    };
    writeAll(socket, [agreed.first], toClient);
    writeAll(upstream, this.#early, toUpstream);
    await spliced({ socket, upstream, toClient, toUpstream });
  }

  readonly #onEarly = (chunk: Buffer): void => {
    this.#early.push(chunk);
    this.#earlyBytes += chunk.length;
    if (this.#earlyBytes > EARLY_BYTES_MAX) this.#client.socket.pause();
  };

  readonly #onEarlyEnd = (): void => {
    this.#client.socket.destroy(); // Nothing was agreed: a client that ends now gave up.
  };

  readonly #onEarlyClose = (): void => {
    if (!this.#client.response.writableFinished) this.#client.response.emit('close');
  };
}

function writeAll(to: Duplex, chunks: readonly Buffer[], counted: (bytes: number) => void): void {
  for (const chunk of chunks) {
    if (chunk.length === 0) continue;
    counted(chunk.length);
    to.write(chunk);
  }
}

interface Splice {
  readonly socket: Socket;
  readonly upstream: Duplex;
  readonly toClient: (bytes: number) => void;
  readonly toUpstream: (bytes: number) => void;
}

async function spliced(splice: Splice): Promise<void> {
  const { socket, upstream, toClient, toUpstream } = splice;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const idle = new Deadline();
  idle.arm(STREAM_IDLE_TIMEOUT_MS, () => {
    socket.destroy();
    upstream.destroy();
  });
  pass(upstream, socket, (bytes) => {
    idle.progress();
    toClient(bytes);
  });
  pass(socket, upstream, (bytes) => {
    idle.progress();
    toUpstream(bytes);
  });
  const closed = (one: Duplex, other: Duplex) => (): void => {
    // What one side said before it ended still goes to the other; what it did not end was cut.
    if (!one.readableEnded || other.writableFinished) other.destroy();
    else
      other.once('finish', () => {
        other.destroy();
      });
    if (socket.closed && upstream.closed) resolve(undefined);
  };
  socket.once('close', closed(socket, upstream));
  upstream.once('close', closed(upstream, socket));
  if (socket.destroyed || upstream.destroyed) {
    socket.destroy();
    upstream.destroy();
  }
  if (socket.closed && upstream.closed) resolve(undefined);
  await promise;
  idle.disarm();
}

function pass(from: Duplex, to: Duplex, counted: (bytes: number) => void): void {
  from.on('data', (chunk: Buffer) => {
    counted(chunk.length);
    if (!to.write(chunk)) from.pause();
  });
  to.on('drain', () => {
    from.resume();
  });
  from.on('end', () => {
    to.end();
  });
  from.resume();
}
