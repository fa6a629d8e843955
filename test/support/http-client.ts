/** Clients for tests: a request on a connection of its own, and raw bytes. */
import { request as httpRequest } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { finished } from 'node:stream/promises';

export interface Ask {
  readonly port: number;
  readonly host?: string;
  readonly method?: string;
  readonly path?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string | Buffer;
  /** Server name to ask for by TLS; without it the request is plain. */
  readonly serverName?: string;
  readonly signal?: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  readonly trailers: IncomingMessage['trailers'];
  readonly body: Buffer;
}

/** Sends a request and reads the response to its end; rejects where that is cut. */
export async function ask(options: Ask): Promise<Answer> {
  const response = await open(options);
  const chunks: Buffer[] = [];
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
  });
  await finished(response);
  const { statusCode = 0, headers, rawHeaders, trailers } = response;
  return { status: statusCode, headers, rawHeaders, trailers, body: Buffer.concat(chunks) };
}

/** Sends a request and returns when the response's head is there. */
export async function open(options: Ask): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const common = {
    host: '127.0.0.1',
    port: options.port,
    method: options.method ?? 'GET',
    path: options.path ?? '/',
    headers: { host: options.host ?? 'app.test', ...options.headers },
    agent: false as const,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
  const request =
    options.serverName === undefined
      ? httpRequest(common, resolve)
      : httpsRequest({ ...common, servername: options.serverName, rejectUnauthorized: false }, resolve);
  request.on('error', reject);
  request.end(options.body);
  return await promise;
}

/** Sends bytes and reads what comes until the other side closes. */
export async function exchangeBytes(port: number, bytes: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.write(bytes, 'latin1');
  return await readAll(socket);
}

export async function readAll(socket: Socket): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    resolve(text);
  });
  return await promise;
}

/** Reads on until `wanted` has come; returns everything read by then. */
export async function readUntil(socket: Socket, wanted: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = '';
  const onData = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    if (text.includes(wanted)) resolve(text);
  };
  const onClose = (): void => {
    reject(new Error(`closed before ${JSON.stringify(wanted)}: ${JSON.stringify(text)}`));
  };
  socket.on('data', onData);
  socket.once('close', onClose);
  try {
    return await promise;
  } finally {
    socket.off('data', onData);
    socket.off('close', onClose);
  }
}
