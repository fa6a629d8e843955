/** How long streams were open, through real workers: at least from when the client had its stream to when it ended it, at most from before it asked to after it knew. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { readAll, readUntil } from '../../support/http-client.ts';
import { freePort } from '../../support/node.ts';
import { startRawUpstream } from '../../support/upstream.ts';

const ASK = 'GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n';
const AGREE = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n';
const EVENTS = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n';
const SLOW = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n';

/** A stream for whoever asks for one, a long response for others; what is no HTTP is answered as it is. */
function serve(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.once('data', (chunk: Buffer) => {
    const text = chunk.toString('latin1');
    if (text.startsWith('GET /ws')) socket.write(`${AGREE}ready`);
    else if (text.startsWith('GET /events')) socket.write(EVENTS);
    else if (text.startsWith('GET /slow')) socket.write(SLOW);
    else socket.write('ready');
    socket.on('end', () => socket.end());
  });
}

/** Asks, waits for `ready`, keeps it open for so long, and ends it. Returns the least and the most that it was open. */
async function hold(port: number, ask: string, ready: string, spanMs: number): Promise<readonly [number, number]> {
  const beganMs = performance.now();
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  socket.write(ask);
  await readUntil(socket, ready);
  const readyMs = performance.now();
  await sleep(spanMs);
  const endMs = performance.now();
  const closed = readAll(socket);
  socket.end();
  await closed;
  return [endMs - readyMs, performance.now() - beganMs];
}

function streamMsOf(edge: Edge, endpointId: string): number {
  return edge.traffic.filter((one) => one.endpointId === endpointId).reduce((sum, { streamMs = 0 }) => sum + streamMs, 0);
}

/** What is told late is of the ends. */
async function settled(edge: Edge, endpointId: string, leastMs: number): Promise<number> {
  await eventually(() => (streamMsOf(edge, endpointId) >= leastMs - ROUNDING_MS ? true : undefined));
  await sleep(1500);
  return streamMsOf(edge, endpointId);
}

/** Each stream's ends are whole milliseconds. */
const ROUNDING_MS = 3;

test('upgraded connections and streams of events, each for itself; other responses are none, however long', async () => {
  await using upstream = await startRawUpstream(serve);
  await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]), workers: 2 });
  const slow = hold(edge.httpPort, 'GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n', '\r\nx', 900);
  const spans = await Promise.all([
    hold(edge.httpPort, ASK, 'ready', 400),
    hold(edge.httpPort, ASK, 'ready', 900),
    hold(edge.httpPort, 'GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n', 'data: 1', 600),
  ]);
  await slow;
  const [least, most] = [0, 1].map((index) => spans.reduce((sum, span) => sum + (span[index] ?? 0), 0));
  const total = await settled(edge, 'c1', least ?? 0);
  expect(total).toBeGreaterThanOrEqual((least ?? 0) - ROUNDING_MS);
  expect(total).toBeLessThanOrEqual((most ?? 0) + ROUNDING_MS);
});

test('connections of a published port, told of while they are open and nothing moves', async () => {
  await using upstream = await startRawUpstream(serve);
  const port = await freePort();
  const target = { containerPort: 80, endpoint: upstream.endpoint({ id: 'c1' }) };
  const config = configOf([]);
  const published = { address: '127.0.0.1', protocol: 'tcp', port, tenant: 'acme', endpoint: target.endpoint } as const;
  await using edge = await startEdge({ config: { ...config, ports: [published] } });
  const holding = hold(port, 'hello', 'ready', 7000);
  const early = await eventually(() => (streamMsOf(edge, 'c1') > 0 ? streamMsOf(edge, 'c1') : undefined));
  expect(early).toBeGreaterThanOrEqual(5000 - ROUNDING_MS);
  const [least, most] = await holding;
  const total = await settled(edge, 'c1', least);
  expect(early).toBeLessThan(total);
  expect(total).toBeGreaterThanOrEqual(least - ROUNDING_MS);
  expect(total).toBeLessThanOrEqual(most + ROUNDING_MS);
}, 30_000);
