/** Services whose endpoints sleep, through real workers: requests wait, the primary hears of it, and a table wakes them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import type { Endpoint, RouteConfig } from '#routing/route-table.ts';
import { WAKE_SAME_MS } from '#proxy/limits.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { freePort } from '../../support/node.ts';
import { datagramClient, startDatagramEcho, talk } from '../../support/stream-client.ts';
import { bodyOf, startRawUpstream, startUpstream } from '../../support/upstream.ts';

const ASLEEP: Endpoint = { id: 'c1', address: '', port: 80, hostName: 'alpha', generation: 1, state: 'asleep' };
const CLIENTS = 1_000;

async function record(request: IncomingMessage, response: ServerResponse, bodies: string[]): Promise<void> {
  bodies.push((await bodyOf(request)).toString());
  response.end();
}

async function held(edge: Edge, count: number): Promise<void> {
  await eventually(async () =>
    (await edge.pool.metrics()).includes(`\necluse_held_requests ${String(count)}\n`) ? true : undefined,
  );
}

describe('a service that sleeps', () => {
  test('is woken once for a thousand clients, all of whom get their answers', async () => {
    let served = 0;
    await using upstream = await startUpstream((request, response) => {
      served += 1;
      response.end(request.url);
    });
    const limits = { connectTimeoutMs: 30_000, firstByteTimeoutMs: 120_000 };
    await using edge = await startEdge({ config: configOf([ASLEEP]), workers: 2, limits });
    const startMs = performance.now();
    const answers = Array.from(
      { length: CLIENTS },
      async (_, index) => await ask({ port: edge.httpPort, path: `/${String(index)}` }),
    );
    await held(edge, CLIENTS);
    // A slow machine gets to the time after which it is said again.
    const { length: wakes } = edge.wakes;
    expect(wakes).toBeLessThanOrEqual(1 + Math.floor((performance.now() - startMs) / WAKE_SAME_MS));
    expect(edge.wakes[0]).toEqual(['c1']);
    await edge.apply(configOf([upstream.endpoint({ id: 'c1', generation: 2 })], 2), []);
    const all = await Promise.all(answers);
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
    expect(all.every(({ body }, index) => body.toString() === `/${String(index)}`)).toBe(true);
    expect([served, edge.wakes.length]).toEqual([CLIENTS, wakes]);
  });

  test('gets the chunked body of a request that came while it slept, once and in order', async () => {
    const bodies: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      void record(request, response, bodies);
    });
    await using edge = await startEdge({ config: configOf([ASLEEP]) });
    const body = 'x'.repeat(300_000);
    const answer = ask({ port: edge.httpPort, method: 'POST', headers: { 'transfer-encoding': 'chunked' }, body });
    await held(edge, 1);
    await edge.apply(configOf([upstream.endpoint({ id: 'c1', generation: 2 })], 2), []);
    expect((await answer).status).toBe(200);
    expect(bodies).toEqual([body]);
  });

  test('that cannot be woken is told at once, to who waits and to who comes, until its time is over', async () => {
    await using edge = await startEdge({ config: configOf([ASLEEP]), workers: 2 });
    const waiting = ask({ port: edge.httpPort });
    await held(edge, 1);
    await edge.pool.wakeFailed(['c1'], 2_500);
    const [first, second] = [await waiting, await ask({ port: edge.httpPort })];
    expect([first.status, first.headers['retry-after'], first.headers['proxy-status']]).toEqual([
      503,
      '3',
      'ecluse; error=destination_unavailable',
    ]);
    expect([second.status, edge.wakes.length]).toEqual([503, 1]);
    const lines = await edge.accessLog(2);
    expect(lines.map(({ errorCode }) => errorCode)).toEqual(['wake-failed', 'wake-failed']);
    const late = new AbortController();
    await eventually(async () => {
      // Refused while its time lasts; then it waits, and its container is asked for.
      const answer = ask({ port: edge.httpPort, signal: late.signal }).catch(() => undefined);
      const woken = eventually(() => (edge.wakes.length > 1 ? true : undefined));
      return (await Promise.race([answer, woken])) === true ? true : undefined;
    });
    late.abort();
    expect(edge.wakes).toEqual([['c1'], ['c1']]);
  });

  test('is told of by a worker that is started while it could not be woken', async () => {
    await using edge = await startEdge({ config: configOf([ASLEEP]) });
    await edge.pool.wakeFailed(['c1'], 60_000);
    const pid = edge.pool.status()[0]?.pid ?? 0;
    process.kill(pid, 'SIGKILL');
    await eventually(
      () => (edge.pool.status().some((worker) => worker.pid !== pid && worker.state === 'listening') ? true : undefined),
      40_000,
    );
    expect((await ask({ port: edge.httpPort })).status).toBe(503);
    expect(edge.wakes).toEqual([]);
  });

  test('is not woken while another endpoint of it takes requests', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([ASLEEP, upstream.endpoint({ id: 'c2' })]) });
    const answers = await Promise.all(Array.from({ length: 10 }, async () => await ask({ port: edge.httpPort })));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(edge.wakes).toEqual([]);
  });

  test('that was frozen to be put to sleep is woken for who waited meanwhile', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], { deadlineMs: 30_000, drainMs: 1_000 });
    const answer = ask({ port: edge.httpPort });
    await held(edge, 1);
    await edge.apply(configOf([ASLEEP], 2), []);
    expect(edge.wakes).toEqual([]);
    await edge.pool.thaw(['c1']);
    await eventually(() => (edge.wakes.length > 0 ? true : undefined));
    await edge.apply(configOf([upstream.endpoint({ id: 'c1', generation: 2 })], 3), []);
    expect((await answer).status).toBe(200);
    expect(edge.wakes).toEqual([['c1']]);
  });

  test('is woken for connections and datagrams of its published ports', async () => {
    await using upstream = await startRawUpstream((socket) => socket.pipe(socket));
    await using echo = await startDatagramEcho();
    const [tcp, udp] = [await freePort(), await freePort()];
    const config = (version: number, stream: Endpoint, datagram: Endpoint): RouteConfig => ({
      ...configOf([], version),
      ports: [
        { protocol: 'tcp', address: '127.0.0.1', port: tcp, tenant: 'acme', endpoint: stream },
        { protocol: 'udp', address: '127.0.0.1', port: udp, tenant: 'acme', endpoint: datagram },
      ],
    });
    await using edge = await startEdge({ config: config(1, ASLEEP, { ...ASLEEP, id: 'c2' }) });
    const answers = [1, 2, 3].map(async (number) => await talk(tcp, String(number)));
    await eventually(() => (edge.wakes.length > 0 ? true : undefined));
    await using client = datagramClient(udp);
    client.send('hello');
    await eventually(() => (edge.wakes.length > 1 ? true : undefined));
    expect(edge.wakes).toEqual([['c1'], ['c2']]);
    const awake = { ...ASLEEP, address: '127.0.0.1', generation: 2, state: undefined };
    await edge.apply(config(2, { ...awake, port: upstream.port }, { ...awake, id: 'c2', port: echo.port }), []);
    expect((await Promise.all(answers)).map(({ bytes }) => bytes.toString())).toEqual(['1', '2', '3']);
    await eventually(() => (client.received.length > 0 ? true : undefined));
    await edge.apply(config(3, ASLEEP, { ...ASLEEP, id: 'c2' }), []);
    const refused = talk(tcp, 'x');
    await eventually(() => (edge.wakes.length > 2 ? true : undefined));
    await edge.pool.wakeFailed(['c1'], 60_000);
    expect([(await refused).code, (await talk(tcp, 'x')).code]).toEqual(['ECONNRESET', 'ECONNRESET']);
  });
});
