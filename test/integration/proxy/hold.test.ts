/** Freeze and thaw of endpoints, through real workers. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, open, readAll, readUntil } from '../../support/http-client.ts';
import { HELD_BACK_BYTES } from '../../support/raw-scripted.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';

async function record(request: IncomingMessage, response: ServerResponse, seen: string[]): Promise<void> {
  const body = await bodyOf(request);
  seen.push(body.toString());
  response.end();
}

/** Two workers are forked again and start. */
const WORKERS_LIMIT_MS = 40_000;
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
    await edge.apply(configOf([{ ...next.endpoint({ id: 'c1' }), generation: 2 }], 2), []);
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
    // In the order in which their connections were accepted: which of them is read first is the kernel's choice.
    const sockets: Socket[] = [];
    const waiting = new Map<Socket, { readonly path: string; readonly response: ServerResponse }>();
    await using upstream = await startUpstream((request, response) => {
      waiting.set(request.socket, { path: request.url ?? '', response });
      if (waiting.size === 10) for (const one of waiting.values()) one.response.end();
    });
    upstream.server.on('connection', (socket: Socket) => sockets.push(socket));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const answers: Promise<unknown>[] = [];
    for (let index = 0; index < 10; index += 1) {
      answers.push(ask({ port: edge.httpPort, path: `/${String(index)}` }));
      await heldRequests(edge, index + 1);
    }
    await edge.pool.thaw(['c1']);
    await Promise.all(answers);
    expect(sockets.map((socket) => waiting.get(socket)?.path)).toEqual(
      Array.from({ length: 10 }, (_, index) => `/${String(index)}`),
    );
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
    const silent = ask({ port: edge.httpPort, path: '/silent', method: 'POST' });
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

  test('release no more at once than an endpoint takes, in order, and those who come meanwhile after them', async () => {
    const count = 60;
    const order: string[] = [];
    const answers: (() => void)[] = [];
    let most = 0;
    await using upstream = await startUpstream((request, response) => {
      order.push(request.url ?? '');
      answers.push(() => response.end());
      most = Math.max(most, answers.length);
    });
    const config = configOf([upstream.endpoint({ id: 'c1' })]);
    await using edge = await startEdge({ config, limits: { upstreamConnectionsMax: 4 } });
    await edge.pool.freeze(['c1'], LONG);
    const asked: Promise<{ readonly status: number }>[] = [];
    for (let index = 0; index < count; index += 1) {
      asked.push(ask({ port: edge.httpPort, path: `/${String(index)}` }));
      if (index % 10 === 9) await heldRequests(edge, index + 1);
    }
    await edge.pool.thaw(['c1']);
    await eventually(() => (answers.length === 4 ? true : undefined));
    asked.push(ask({ port: edge.httpPort, path: '/late' }));
    await heldRequests(edge, count - 3);
    const answering = setInterval(() => answers.shift()?.(), 1);
    const statuses = await Promise.all(asked.map(async (answer) => (await answer).status));
    clearInterval(answering);
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect([most, order.length, order.at(-1)]).toEqual([4, count + 1, '/late']);
    // Ten came at a time: within them their own order is the network's.
    const tens = order.slice(0, count).map((path) => Math.floor(Number(path.slice(1)) / 10));
    expect(tens.every((ten, index) => index < 4 || ten >= (tens[index - 4] ?? 0))).toBe(true);
  });

  test('of one of several endpoints let the others take its requests', async () => {
    const seen = { one: 0, other: 0 };
    await using one = await startUpstream((_request, response) => {
      seen.one += 1;
      response.end();
    });
    await using other = await startUpstream((_request, response) => {
      seen.other += 1;
      response.end();
    });
    const endpoints = [one.endpoint({ id: 'c1' }), other.endpoint({ id: 'c2' })];
    await using edge = await startEdge({ config: configOf(endpoints), workers: 2 });
    await edge.pool.freeze(['c1'], LONG);
    const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await ask({ port: edge.httpPort })).status));
    expect([new Set(statuses), seen]).toEqual([new Set([200]), { one: 0, other: 20 }]);
    await edge.pool.thaw(['c1']);
    await Promise.all(Array.from({ length: 20 }, async () => await ask({ port: edge.httpPort })));
    expect(seen.one).toBeGreaterThan(0);
  });

  test('go on over the death of every worker and a change of the table', async () => {
    const seen: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      seen.push(request.url ?? '');
      response.end('ok');
    });
    const at = upstream.endpoint({ id: 'c1' });
    await using edge = await startEdge({ config: configOf([at]), workers: 2 });
    const before = edge.pool.status().map(({ pid }) => pid);
    const [first = 0, second = 0] = before;
    process.kill(first, 'SIGKILL');
    const freezing = edge.pool.freeze(['c1'], LONG);
    process.kill(second, 'SIGKILL');
    await freezing;
    await edge.apply(configOf([{ ...at, generation: 2 }], 2), []);
    await eventually(() => {
      const now = edge.pool.status();
      return now.length === 2 && now.every(({ pid, state }) => !before.includes(pid) && state === 'listening') ? true : undefined;
    }, WORKERS_LIMIT_MS);
    const answers = Array.from({ length: 10 }, async () => await ask({ port: edge.httpPort, path: '/held' }));
    await heldRequests(edge, 10);
    expect(seen).toEqual([]);
    await edge.pool.thaw(['c1']);
    expect((await Promise.all(answers)).every(({ status }) => status === 200)).toBe(true);
    expect(seen).toHaveLength(10);
  });

  test('read no body of a held request', async () => {
    await using upstream = await startUpstream((request, response) => {
      void bodyOf(request).then((body) => response.end(String(body.length)));
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await edge.pool.freeze(['c1'], LONG);
    const bytes = HELD_BACK_BYTES;
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
