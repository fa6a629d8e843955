/** The peers that are Node packages, each as its documentation shows it, in one process. Told by one JSON argument. */
import { Agent, createServer } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { z } from 'zod';

const TOLD = z.object({
  name: z.string(),
  packages: z.string(),
  httpPort: z.int(),
  originPort: z.int(),
  websocketPort: z.int(),
});

const told = TOLD.parse(JSON.parse(process.argv[2] ?? '{}'));
const load = createRequire(join(told.packages, 'package.json'));
const origin = `http://127.0.0.1:${String(told.originPort)}`;
const websocketOrigin = `http://127.0.0.1:${String(told.websocketPort)}`;
const CONNECTIONS = 1024;
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade']);

function listen(server: Server): void {
  server.keepAliveTimeout = 300_000;
  server.listen({ port: told.httpPort, host: '127.0.0.1', backlog: 4096 });
}

interface HttpProxy {
  web(request: IncomingMessage, response: ServerResponse): void;
  ws(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  on(event: 'error', listener: (error: Error) => void): void;
}

function httpProxy3(): void {
  const { createProxyServer } = z.custom<{ createProxyServer: (options: object) => HttpProxy }>().parse(load('http-proxy-3'));
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS, maxFreeSockets: CONNECTIONS });
  const proxy = createProxyServer({ target: origin, agent, xfwd: true });
  const websockets = createProxyServer({ target: websocketOrigin, ws: true, xfwd: true });
  for (const one of [proxy, websockets]) one.on('error', () => undefined); // A client that ended; the load generator counts the rest.
  const server = createServer((request, response) => {
    proxy.web(request, response);
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    websockets.ws(request, socket, head);
  });
  listen(server);
}

interface Fastify {
  readonly server: Server;
  register(plugin: unknown, options: object): Promise<void>;
  listen(options: object): Promise<void>;
}

async function fastifyHttpProxy(): Promise<void> {
  const fastify = z.custom<(options: object) => Fastify>().parse(load('fastify'));
  const plugin: unknown = load('@fastify/http-proxy');
  const app = fastify({ logger: false, keepAliveTimeout: 300_000 });
  await app.register(plugin, { upstream: websocketOrigin, prefix: '/ws', rewritePrefix: '/ws', websocket: true });
  await app.register(plugin, {
    upstream: origin,
    undici: { connections: CONNECTIONS, pipelining: 1 },
    replyOptions: { rewriteRequestHeaders: withForwarded },
  });
  await app.listen({ port: told.httpPort, host: '127.0.0.1', backlog: 4096 });
}

function withForwarded(
  request: { readonly ip: string; readonly host: string },
  headers: OutgoingHttpHeaders,
): OutgoingHttpHeaders {
  const { ip, host } = request;
  return { ...headers, host, 'x-forwarded-for': ip, 'x-forwarded-proto': 'http', 'x-forwarded-host': host };
}

interface UndiciPool {
  stream(
    options: object,
    factory: (answer: { readonly statusCode: number; readonly headers: OutgoingHttpHeaders }) => ServerResponse,
  ): Promise<unknown>;
}

function undici(): void {
  const { Pool } = z.custom<{ Pool: new (origin: string, options: object) => UndiciPool }>().parse(load('undici'));
  const pool = new Pool(origin, { connections: CONNECTIONS, pipelining: 1 });
  const server = createServer((request, response) => {
    const { method, url: path } = request;
    const headers = endToEnd(request.headers);
    headers['x-forwarded-for'] = request.socket.remoteAddress;
    headers['x-forwarded-proto'] = 'http';
    headers['x-forwarded-host'] = request.headers.host;
    const body = method === 'GET' || method === 'HEAD' ? null : request;
    pool
      .stream({ method, path, headers, body }, (answer) => response.writeHead(answer.statusCode, endToEnd(answer.headers)))
      .catch(() => {
        response.destroy();
      });
  });
  listen(server);
}

function endToEnd(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const kept: OutgoingHttpHeaders = {};
  for (const name in headers) if (!HOP_BY_HOP.has(name)) kept[name] = headers[name];
  return kept;
}

if (told.name === 'http-proxy-3') httpProxy3();
else if (told.name === 'fastify') await fastifyHttpProxy();
else undici();
process.stdin
  .on('end', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end
    process.exit(0);
  })
  .resume();
