/** Time-outs of a service in the place of the node's, which would last for hours here. */
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startDeaf } from '../../support/deaf-endpoint.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, readAll, readUntil } from '../../support/http-client.ts';
import { serviceConfig } from '../../support/operator-edge.ts';
import { startRawUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

const NEVER_MS = 3_600_000;
const LIMIT_MS = 400;
/** Time-outs are up to 0.3 s late; the rest is for a busy machine. */
const LATE_MS = 300 + 400;
const NODE = { connectTimeoutMs: NEVER_MS, firstByteTimeoutMs: NEVER_MS, streamIdleTimeoutMs: NEVER_MS, progressBytesMin: 0 };
const LIMIT = `${String(LIMIT_MS)}ms`;

async function timed<T>(work: () => Promise<T>): Promise<{ readonly ms: number; readonly result: T }> {
  const startMs = performance.now();
  const result = await work();
  return { ms: performance.now() - startMs, result };
}

function expectOnTime(ms: number): void {
  expect(ms).toBeGreaterThan(LIMIT_MS - 5);
  expect(ms).toBeLessThan(LIMIT_MS + LATE_MS);
}

describe('time-outs of a service', () => {
  let upstream: Upstream;
  let edge: Edge;

  beforeAll(async () => {
    upstream = await startRawUpstream((socket) => {
      socket.on('data', (chunk: Buffer) => {
        const text = chunk.toString('latin1');
        if (text.startsWith('GET /ok')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        else if (text.startsWith('GET /stall')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun');
        else if (text.startsWith('GET /ws'))
          socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello');
      });
    });
    const config = serviceConfig([upstream.port], { timeouts: { firstByte: LIMIT, idle: LIMIT } });
    edge = await startEdge({ config, limits: NODE });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
  });

  async function errorOf(path: string): Promise<string | null | undefined> {
    return await eventually(async () => (await edge.accessLog(0)).find((line) => line.path === path)?.errorCode);
  }

  test('a response that does not begin is answered with 504, on a new connection and on one that is used again', async () => {
    const { ms, result } = await timed(async () => await ask({ port: edge.httpPort, path: '/silent' }));
    expect([result.status, await errorOf('/silent')]).toEqual([504, 'first-byte-timeout']);
    expectOnTime(ms);
    expect((await ask({ port: edge.httpPort, path: '/ok' })).status).toBe(200);
    const before = upstream.connections();
    const again = await timed(async () => await ask({ port: edge.httpPort, path: '/silent-again' }));
    expect([again.result.status, upstream.connections()]).toEqual([504, before]);
    expectOnTime(again.ms);
  });

  test('a body that stalls is cut', async () => {
    const { ms, result } = await timed(async () => {
      const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
      socket.write('GET /stall HTTP/1.1\r\nHost: app.test\r\n\r\n');
      return await readAll(socket);
    });
    expect(result.endsWith('begun')).toBe(true);
    expect(await errorOf('/stall')).toBe('stream-idle');
    expectOnTime(ms);
  });

  test('a WebSocket that is silent is cut', async () => {
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(
      'GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n',
    );
    await readUntil(socket, 'hello');
    const { ms } = await timed(async () => await readAll(socket));
    expect(await errorOf('/ws')).toBe('stream-idle');
    expectOnTime(ms);
  });

  test('an address that does not answer is given up after the time to connect', async () => {
    await using deaf = await startDeaf();
    await using far = await startEdge({ config: serviceConfig([deaf.port], { timeouts: { connect: LIMIT } }), limits: NODE });
    const { ms, result } = await timed(async () => await ask({ port: far.httpPort }));
    expect(result.status).toBe(504);
    expectOnTime(ms);
  });

  test('a change of the service changes them, and without them the node has its own', async () => {
    await using other = await startEdge({
      config: serviceConfig([upstream.port]),
      limits: { ...NODE, firstByteTimeoutMs: 1_000 },
    });
    const node = await timed(async () => await ask({ port: other.httpPort, path: '/silent' }));
    expect(node.ms).toBeGreaterThan(995);
    await other.apply(serviceConfig([upstream.port], { timeouts: { firstByte: LIMIT } }, 2), []);
    const own = await timed(async () => await ask({ port: other.httpPort, path: '/silent' }));
    expect([node.result.status, own.result.status]).toEqual([504, 504]);
    expectOnTime(own.ms);
  });
});
