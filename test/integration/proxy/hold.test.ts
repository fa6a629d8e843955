/** Freeze and thaw of endpoints, through real workers. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, open, readAll, readUntil } from '../../support/http-client.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';

async function record(request: IncomingMessage, response: ServerResponse, seen: string[]): Promise<void> {
  const body = await bodyOf(request);
  seen.push(body.toString());
  response.end();
}

const LONG = { deadlineMs: 30_000, drainMs: 5_000 };

async function heldRequests(edge: Edge, count: number): Promise<void> {
  await eventually(async () =>
    (await edge.pool.metrics()).includes(`\necluse_held_requests ${String(count)}\n`) ? true : undefined,
  );
}

describe('WorkerPool.freeze() and thaw()', () => {
  test('move a service under load: nothing fails, nothing is sent twice, nothing reaches the old address', async () => {
    const seen = { old: [] as string[], next: [] as string[] };
    await using old = await startUpstream((request, response) => {
      void record(request, response, seen.old);
    });
    await using next = await startUpstream((request, response) => {
      void record(request, response, seen.next);
    });
    const before = old.endpoint({ id: 'c1' });
    await using edge = await startEdge({ config: configOf([before]), workers: 2 });
    const stop = new AbortController();
    let sent = 0;
    const statuses: number[] = [];
    const client = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        sent += 1;
        const answer = await ask({ port: edge.httpPort, method: 'POST', body: `m${String(sent)}` });
        statuses.push(answer.status);
      }
    };
    const clients = Array.from({ length: 8 }, client);
    await eventually(() => (seen.old.length > 100 ? true : undefined));
    const frozen = await edge.pool.freeze(['c1'], LONG);
    expect(frozen.cut).toBe(0);
    const atFreeze = seen.old.length;
    await heldRequests(edge, 8);
    await edge.pool.apply(configOf([{ ...next.endpoint({ id: 'c1' }), generation: 2 }], 2), []);
    expect(seen.next.length).toBe(0);
    await edge.pool.thaw(['c1']);
    await eventually(() => (seen.next.length > 100 ? true : undefined));
    stop.abort();
    await Promise.all(clients);
    expect(seen.old.length).toBe(atFreeze);
    expect(new Set(statuses)).toEqual(new Set([200]));
    const all = [...seen.old, ...seen.next];
    expect([new Set(all).size, all.length]).toEqual([sent, sent]);
  });

  test('release requests in the order in which they came', async () => {
    const order: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      order.push(request.url ?? '');
      response.end();
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const answers: Promise<unknown>[] = [];
    for (let index = 0; index < 10; index += 1) {
      answers.push(ask({ port: edge.httpPort, path: `/${String(index)}` }));
      await heldRequests(edge, index + 1);
    }
    await edge.pool.thaw(['c1']);
    await Promise.all(answers);
    expect(order).toEqual(Array.from({ length: 10 }, (_, index) => `/${String(index)}`));
  });

  test('answer 503 with Retry-After at the deadline and after it', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], { deadlineMs: 200, drainMs: 100 });
    const held = await ask({ port: edge.httpPort });
    const late = await ask({ port: edge.httpPort });
    expect([held.status, held.headers['retry-after'], late.status]).toEqual([503, '1', 503]);
    await edge.pool.thaw(['c1']);
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
    const [line] = await edge.accessLog(3);
    expect(line?.errorCode).toBe('hold-expired');
    expect(line?.holdMs).toBeGreaterThan(100);
  });

  test('forget a client that goes away while it is held', async () => {
    let served = 0;
    await using upstream = await startUpstream((_request, response) => {
      served += 1;
      response.end('ok');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const abort = new AbortController();
    const gone = ask({ port: edge.httpPort, signal: abort.signal });
    gone.catch(() => undefined);
    const upgrade = connect({ host: '127.0.0.1', port: edge.httpPort });
    upgrade.write('GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    await heldRequests(edge, 2);
    abort.abort();
    upgrade.destroy();
    await heldRequests(edge, 0);
    await edge.pool.thaw(['c1']);
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
    expect(served).toBe(1);
    const lines = await edge.accessLog(3);
    expect(lines.map((line) => line.errorCode)).toEqual(['client-aborted', 'client-aborted', null]);
  });

  test('cut what is under way when the wait is over, and say how much', async () => {
    await using upstream = await startUpstream((request, response) => {
      if (request.url === '/stream') response.write('begun');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    const streaming = await open({ port: edge.httpPort, path: '/stream' });
    const cut = readAll(streaming.socket);
    streaming.on('error', () => undefined);
    streaming.resume();
    const silent = ask({ port: edge.httpPort, path: '/silent' });
    await eventually(async () =>
      (await edge.pool.metrics()).includes('\necluse_downstream_connections 2\n') ? true : undefined,
    );
    const frozen = await edge.pool.freeze(['c1'], { deadlineMs: 5_000, drainMs: 100 });
    expect(frozen.cut).toBe(2);
    expect(frozen.waitedMs).toBeGreaterThanOrEqual(99);
    expect((await silent).status).toBe(503);
    await cut;
    expect(streaming.complete).toBe(false);
  });

  test('read no body of a held request', async () => {
    await using upstream = await startUpstream((request, response) => {
      void bodyOf(request).then((body) => response.end(String(body.length)));
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const bytes = 64 * 1024 * 1024;
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(`POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: ${String(bytes)}\r\n\r\n`);
    socket.write(Buffer.alloc(bytes));
    await heldRequests(edge, 1);
    expect(socket.writableLength).toBeGreaterThan(bytes / 2);
    await edge.pool.thaw(['c1']);
    expect(await readUntil(socket, `\r\n\r\n${String(bytes)}`)).toContain('200 OK');
    socket.destroy();
  });

  test('hold on a worker that is started during the freeze', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const pid = edge.pool.status()[0]?.pid ?? 0;
    process.kill(pid, 'SIGKILL');
    await eventually(() =>
      edge.pool.status().some((worker) => worker.pid !== pid && worker.state === 'listening') ? true : undefined,
    );
    const held = ask({ port: edge.httpPort });
    await heldRequests(edge, 1);
    await edge.pool.thaw(['c1']);
    expect((await held).status).toBe(200);
  });
});
