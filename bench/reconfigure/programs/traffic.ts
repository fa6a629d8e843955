/**
 * Endpoints and clients around a proxy that is reconfigured, in a process of its own: two HTTP servers, A and B, that answer with their letter, keep
 * event streams open and echo what an upgraded connection sends; requests at a fixed rate, each on a kept connection; and streams that stay open.
 * Told by lines of JSON on standard input: `{"start":{port,webSockets,eventStreams,ratePerSecond}}`, then `{"stop":true}`; answers with lines of JSON.
 */
import { createHash } from 'node:crypto';
import { Agent, createServer, request } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { createInterface } from 'node:readline';
import * as z from 'zod';

const HOST = 'localhost';
const EVENT_MS = 1000;
const commandSchema = z.union([
  z.object({ start: z.object({ port: z.int(), webSockets: z.int(), eventStreams: z.int(), ratePerSecond: z.number() }) }),
  z.object({ stop: z.literal(true) }),
]);
type Start = Extract<z.infer<typeof commandSchema>, { start: unknown }>['start'];

/** RFC 6455 §5.2: text frames of four bytes, the client's with a mask of zeros. */
const PING_FRAME = Buffer.from([0x81, 0x84, 0, 0, 0, 0, ...Buffer.from('ping')]);

async function startServer(letter: string): Promise<Server> {
  const server = createServer({ keepAliveTimeout: 600_000 }, (incoming, response) => {
    incoming.resume();
    if (incoming.url !== '/events') {
      response.end(letter);
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const timer = setInterval(() => response.write('data: x\n\n'), EVENT_MS);
    response.write('data: x\n\n');
    response.once('close', () => {
      clearInterval(timer);
    });
  });
  server.on('upgrade', (incoming: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => undefined);
    const accept = createHash('sha1')
      .update(`${incoming.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`) // RFC 6455 §4.2.2
      .digest('base64');
    const head = [
      'HTTP/1.1 101 Switching Protocols',
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Accept: ${accept}`,
    ];
    socket.write(`${head.join('\r\n')}\r\n\r\n`);
    socket.on('data', (bytes: Buffer) => socket.write(bytes));
  });
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, resolve));
  return server;
}

const tell = (value: object): void => {
  process.stdout.write(`${JSON.stringify(value)}\n`);
};

let requests = 0;
const failures = new Map<string, number>();
let cutWebSockets = 0;
let cutEventStreams = 0;
let isEnding = false;
const timers: NodeJS.Timeout[] = [];

function failed(why: string): void {
  if (!isEnding) failures.set(why, (failures.get(why) ?? 0) + 1);
}

function ask(agent: Agent, port: number): void {
  requests += 1;
  const outgoing = request({ host: '127.0.0.1', port, path: '/', agent, headers: { host: HOST } }, (response) => {
    response.resume();
    response.once('error', (error) => {
      failed(error.message);
    });
    if (response.statusCode !== 200) failed(String(response.statusCode));
  });
  outgoing.once('error', (error) => {
    failed(error.message);
  });
  outgoing.end();
}

async function openWebSocket(port: number): Promise<void> {
  const headers = {
    host: HOST,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  };
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path: '/ws', agent: false, headers });
    outgoing.once('error', reject);
    outgoing.once('response', ({ statusCode }) => {
      reject(new Error(`a WebSocket was answered with ${String(statusCode)}`));
    });
    outgoing.once('upgrade', (_response, socket) => {
      timers.push(setInterval(() => socket.write(PING_FRAME), EVENT_MS));
      socket.resume();
      socket.on('error', () => undefined);
      socket.once('close', () => {
        if (!isEnding) cutWebSockets += 1;
      });
      resolve();
    });
    outgoing.end();
  });
}

async function openEventStream(port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path: '/events', agent: false, headers: { host: HOST } }, (response) => {
      response.on('error', () => undefined);
      response.resume();
      response.once('close', () => {
        if (!isEnding) cutEventStreams += 1;
      });
      resolve();
    });
    outgoing.once('error', reject);
    outgoing.end();
  });
}

async function start({ port, webSockets, eventStreams, ratePerSecond }: Start): Promise<void> {
  for (let count = 0; count < webSockets; count += 1) await openWebSocket(port);
  for (let count = 0; count < eventStreams; count += 1) await openEventStream(port);
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const startMs = performance.now();
  timers.push(
    setInterval(() => {
      const due = Math.floor(((performance.now() - startMs) / 1000) * ratePerSecond);
      while (requests < due) ask(agent, port);
    }, 5),
  );
  tell({ started: true });
}

const [a, b] = await Promise.all([startServer('A'), startServer('B')]);
function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return address.port;
}

tell({ a: portOf(a), b: portOf(b) });
for await (const line of createInterface({ input: process.stdin })) {
  const command = commandSchema.parse(JSON.parse(line));
  if ('start' in command) await start(command.start);
  else break;
}
isEnding = true;
for (const timer of timers) clearInterval(timer);
tell({ requests, failures: Object.fromEntries(failures), cutWebSockets, cutEventStreams });
// oxlint-disable-next-line unicorn/no-process-exit -- streams are open for ever
process.exit(0);
