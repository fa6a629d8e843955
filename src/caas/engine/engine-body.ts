/**
 * An engine's answer as bare bytes. Dockerd writes a log as one HTTP chunk a line; parsing those costs more than all else that we do with a log. Asked
 * by HTTP/1.0 it sends the same bytes without chunks, and they come in as large pieces as the socket has them.
 *
 * Its price: the end of the answer is the end of the connection, so an engine that dies looks like one that is done. Callers ask whether it lives.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { readWhole } from '#caas/byte-stream.ts';
import { engineError, pathOf } from './engine-client.ts';
import type { EngineCall, EngineClient } from './engine-client.ts';

const HEAD_BYTES_MAX = 64 * 1024;
const HEAD_END = '\r\n\r\n';
const ERROR_BYTES_MAX = 1024 * 1024;

/** Waits until there is something to read; false at the end of the stream. */
async function readable(socket: Socket): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const onReadable = (): void => {
    resolve(true);
  };
  const onEnd = (): void => {
    resolve(false);
  };
  socket.once('readable', onReadable).once('end', onEnd).once('error', reject);
  try {
    return await promise;
  } finally {
    socket.off('readable', onReadable).off('end', onEnd).off('error', reject);
  }
}

function bytesOf(chunk: unknown): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.alloc(0);
}

/** The head of the answer; what follows it stays in the socket. */
async function readHead(socket: Socket): Promise<string> {
  let read: Buffer = Buffer.alloc(0);
  while (await readable(socket)) {
    read = Buffer.concat([read, bytesOf(socket.read())]);
    const end = read.indexOf(HEAD_END);
    if (end !== -1) {
      const rest = read.subarray(end + HEAD_END.length);
      if (rest.length > 0) socket.unshift(rest);
      return read.toString('latin1', 0, end);
    }
    if (read.length > HEAD_BYTES_MAX) break;
  }
  throw new Error('the head of its answer is missing or too large');
}

/** The body of a call, unread. A status of 400 or more throws. The caller reads it to its end or destroys it. */
export async function openEngineBody(client: EngineClient, call: Pick<EngineCall, 'path' | 'query' | 'signal'>): Promise<Socket> {
  const socket = connect({ path: client.socketPath });
  const abort = (): void => {
    socket.destroy();
  };
  call.signal?.addEventListener('abort', abort, { once: true });
  socket.once('close', () => call.signal?.removeEventListener('abort', abort));
  try {
    socket.write(`GET ${pathOf({ ...call, method: 'GET' })} HTTP/1.0\r\nHost: docker\r\n\r\n`);
    const head = await readHead(socket);
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 502);
    if (status < 400) return socket;
    const text = await readWhole(socket, ERROR_BYTES_MAX);
    throw engineError(status, text?.toString('utf8') ?? '');
  } catch (error) {
    socket.destroy();
    throw client.unreachable(error);
  }
}
