/** Limits of a service, through real workers: how much is at an endpoint at once, who waits, in which order, for how long. */
import type { ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, readUntil } from '../../support/http-client.ts';
import type { Answer } from '../../support/http-client.ts';
import { serviceConfig } from '../../support/operator-edge.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

/** Answers when it is told to, and counts. */
interface Slow extends AsyncDisposable {
  readonly upstream: HttpUpstream;
  readonly paths: string[];
  readonly open: ServerResponse[];
  most: number;
}

async function startSlow(answerAfterMs?: number): Promise<Slow> {
  const slow: Omit<Slow, 'upstream' | typeof Symbol.asyncDispose> = { paths: [], open: [], most: 0 };
  const upstream = await startUpstream((request, response) => {
    slow.paths.push(request.url ?? '');
    slow.open.push(response);
    slow.most = Math.max(slow.most, slow.open.length);
    response.on('close', () => slow.open.splice(slow.open.indexOf(response), 1));
    if (answerAfterMs !== undefined) setTimeout(() => response.end('ok'), answerAfterMs);
  });
  return Object.assign(slow, { upstream, [Symbol.asyncDispose]: async () => await upstream[Symbol.asyncDispose]() });
}

async function heldRequests(edge: Edge, count: number): Promise<void> {
  const line = `\necluse_held_requests ${String(count)}\n`;
  await eventually(async () => ((await edge.pool.metrics()).includes(line) ? true : undefined));
}

function statusesOf(answers: readonly Answer[]): Readonly<Record<number, number>> {
  const counts: Record<number, number> = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

describe('limits of a service', () => {
  test('no endpoint ever has more, all that may wait are served, and all others refused', async () => {
    await using one = await startSlow(20);
    await using other = await startSlow(20);
    const config = serviceConfig([one.upstream.port, other.upstream.port], { limits: { connections: 3, pending: 200 } });
    await using edge = await startEdge({ config });
    const crowd = await Promise.all(Array.from({ length: 120 }, async () => await ask({ port: edge.httpPort })));
    expect(statusesOf(crowd)).toEqual({ 200: 120 });
    expect([one.most, other.most]).toEqual([3, 3]);
    await edge.apply(serviceConfig([one.upstream.port], { limits: { connections: 2, pending: 5 } }, 2), []);
    one.most = 0;
    const rest = await Promise.all(Array.from({ length: 30 }, async () => await ask({ port: edge.httpPort })));
    expect(one.most).toBe(2);
    const { 200: served = 0, 503: refused = 0 } = statusesOf(rest);
    expect([served + refused, served >= 7, refused > 0]).toEqual([30, true, true]);
    const full = rest.find(({ status }) => status === 503);
    expect([full?.headers['proxy-status'], full?.headers['retry-after']]).toEqual([
      'ecluse; error=connection_limit_reached',
      '1',
    ]);
    const lines = (await edge.accessLog(150)).filter(({ status }) => status === 503);
    expect(new Set(lines.map(({ errorCode }) => errorCode))).toEqual(new Set(['endpoint-busy']));
  });

  test('each of several workers keeps its share', async () => {
    await using slow = await startSlow(30);
    const config = serviceConfig([slow.upstream.port], { limits: { connections: 4, pending: 400 } });
    await using edge = await startEdge({ config, workers: 2 });
    const crowd = await Promise.all(Array.from({ length: 80 }, async () => await ask({ port: edge.httpPort })));
    expect(statusesOf(crowd)).toEqual({ 200: 80 });
    expect(slow.most).toBeLessThanOrEqual(4);
  });

  test('one goes on as soon as one ends, in the order in which they came', async () => {
    await using slow = await startSlow();
    const limits = { connections: 1, pending: 10 };
    await using edge = await startEdge({ config: serviceConfig([slow.upstream.port], { limits }) });
    const answers: Promise<Answer>[] = [];
    for (let index = 0; index < 6; index += 1) {
      answers.push(ask({ port: edge.httpPort, path: `/${String(index)}` }));
      if (index === 0) await eventually(() => (slow.open.length === 1 ? true : undefined));
      else await heldRequests(edge, index);
    }
    for (let index = 0; index < 6; index += 1) {
      const response = await eventually(() =>
        slow.paths.length === index + 1 && slow.open.length === 1 ? slow.open[0] : undefined,
      );
      response.end();
      await answers[index];
    }
    expect([slow.paths, slow.most]).toEqual([['/0', '/1', '/2', '/3', '/4', '/5'], 1]);
    const lines = await edge.accessLog(6);
    expect(lines.filter(({ holdMs }) => holdMs > 0)).toHaveLength(5);
  });

  test('who waits for too long gets 503', async () => {
    await using slow = await startSlow();
    const limits = { connections: 1, pending: 1, hold: '500ms' };
    await using edge = await startEdge({ config: serviceConfig([slow.upstream.port], { limits }) });
    const first = ask({ port: edge.httpPort, path: '/first' });
    await eventually(() => (slow.open.length === 1 ? true : undefined));
    const late = ask({ port: edge.httpPort, path: '/late' });
    expect((await late).status).toBe(503);
    slow.open[0]?.end();
    expect([(await first).status, slow.paths]).toEqual([200, ['/first']]);
    const line = (await edge.accessLog(2)).find(({ path }) => path === '/late');
    expect(line?.errorCode).toBe('hold-expired');
    expect(line?.holdMs).toBeGreaterThan(495);
  });

  test('who goes away while it waits leaves its place to others', async () => {
    await using slow = await startSlow();
    const limits = { connections: 1, pending: 2 };
    await using edge = await startEdge({ config: serviceConfig([slow.upstream.port], { limits }) });
    const first = ask({ port: edge.httpPort, path: '/first' });
    await eventually(() => (slow.open.length === 1 ? true : undefined));
    const abort = new AbortController();
    const gone = ask({ port: edge.httpPort, path: '/gone', signal: abort.signal }).catch(() => 'gone');
    await heldRequests(edge, 1);
    const second = ask({ port: edge.httpPort, path: '/second' });
    await heldRequests(edge, 2);
    expect((await ask({ port: edge.httpPort, path: '/much' })).status).toBe(503);
    abort.abort();
    await heldRequests(edge, 1);
    const third = ask({ port: edge.httpPort, path: '/third' });
    await heldRequests(edge, 2);
    for (const path of ['/first', '/second', '/third'])
      (await eventually(() => (slow.paths.at(-1) === path && slow.open.length === 1 ? slow.open[0] : undefined))).end();
    expect([await gone, (await first).status, (await second).status, (await third).status]).toEqual(['gone', 200, 200, 200]);
    expect([slow.paths, slow.most]).toEqual([['/first', '/second', '/third'], 1]);
    const codes = new Map((await edge.accessLog(5)).map(({ path, errorCode }) => [path, errorCode]));
    expect([codes.get('/gone'), codes.get('/much')]).toEqual(['client-aborted', 'endpoint-busy']);
  });

  test('a client that is cut at the endpoint makes room, as a WebSocket that ends does', async () => {
    await using slow = await startSlow();
    slow.upstream.server.on('upgrade', (_request, socket) => {
      socket.on('error', () => undefined);
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello');
      socket.on('end', () => socket.end());
    });
    const limits = { connections: 1, pending: 2 };
    await using edge = await startEdge({ config: serviceConfig([slow.upstream.port], { limits }) });
    const stream = connect({ host: '127.0.0.1', port: edge.httpPort });
    stream.write(
      'GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n',
    );
    await readUntil(stream, 'hello');
    const abort = new AbortController();
    const next = ask({ port: edge.httpPort, path: '/next', signal: abort.signal }).catch(() => 'gone');
    const last = ask({ port: edge.httpPort, path: '/last' });
    await heldRequests(edge, 2);
    stream.destroy();
    await eventually(() => (slow.paths.includes('/next') ? true : undefined));
    abort.abort();
    await eventually(() => (slow.paths.includes('/last') ? true : undefined));
    slow.open.at(-1)?.end();
    expect([await next, (await last).status]).toEqual(['gone', 200]);
  });

  test('the budget of all held requests counts as well', async () => {
    await using slow = await startSlow();
    const config = serviceConfig([slow.upstream.port], { limits: { connections: 1, pending: 50 } });
    await using edge = await startEdge({ config, limits: { tenant: { ...EDGE_LIMITS.tenant, heldRequests: 1 } } });
    const first = ask({ port: edge.httpPort });
    await eventually(() => (slow.open.length === 1 ? true : undefined));
    const second = ask({ port: edge.httpPort });
    await heldRequests(edge, 1);
    const third = await ask({ port: edge.httpPort });
    expect([third.status, third.headers['proxy-status']]).toEqual([503, 'ecluse; error=destination_unavailable']);
    slow.open[0]?.end();
    await first;
    (await eventually(() => (slow.paths.length === 2 && slow.open.length === 1 ? slow.open[0] : undefined))).end();
    expect((await second).status).toBe(200);
  });
});
