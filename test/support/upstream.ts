/** Servers that stand for containers: HTTP with a handler, or raw bytes. */
import { createServer } from 'node:http';
import type { IncomingMessage, RequestListener, Server } from 'node:http';
import { createServer as createRawServer } from 'node:net';
import type { Server as RawServer, Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import type { Endpoint } from '#routing/route-table.ts';

export interface Upstream extends AsyncDisposable {
  readonly port: number;
  /** Connections that were accepted so far. */
  readonly connections: () => number;
  readonly endpoint: (overrides?: Partial<Endpoint>) => Endpoint;
}

export interface HttpUpstream extends Upstream {
  readonly server: Server;
}

/** An HTTP server on the loopback, where no port is given on a free one. */
export async function startUpstream(handler: RequestListener, onPort = 0): Promise<HttpUpstream> {
  const server = createServer({ keepAliveTimeout: 60_000 }, handler);
  return { server, ...(await listening(server, onPort)) };
}

/** A server that hands out its sockets. */
export async function startRawUpstream(onSocket: (socket: Socket) => void): Promise<Upstream> {
  return await listening(
    createRawServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      onSocket(socket);
    }),
  );
}

/** The whole body of a request. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
  });
  await finished(request);
  return Buffer.concat(chunks);
}

async function listening(server: RawServer, onPort = 0): Promise<Upstream> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  server.on('connection', (socket: Socket) => {
    accepted += 1;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject);
  server.listen({ host: '127.0.0.1', port: onPort }, () => {
    resolve(undefined);
  });
  await promise;
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    port,
    connections: () => accepted,
    endpoint: (overrides) => ({
      id: `e${String(port)}`,
      address: '127.0.0.1',
      port,
      hostName: 'alpha',
      generation: 1,
      ...overrides,
    }),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<undefined>();
      server.close(() => {
        closed.resolve(undefined);
      });
      await closed.promise;
    },
  };
}
