/** Workers that get other options while they serve. */
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { finished } from 'node:stream/promises';
import { describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { ChangeableOptions } from '#proxy/protocol.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startKeptLoad } from '../../support/kept-load.ts';
import { RawClient } from '../../support/raw-client.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';

function optionsFor(edge: Edge, limits: Partial<EdgeLimits> = {}, more: Partial<ChangeableOptions> = {}): ChangeableOptions {
  return {
    limits: { ...EDGE_LIMITS, ...limits },
    trust: { trustedProxies: [], proxyProtocol: false },
    redirect: false,
    accessLogFile: edge.accessLogFile,
    logLevel: 'error',
    ...more,
  };
}

describe('WorkerPool.reconfigure()', () => {
  test('bounds new requests, on connections that are open as well, in every worker and in one that comes later', async () => {
    await using upstream = await startUpstream((request, response) => {
      void bodyOf(request).then((body) => response.end(String(body.length)));
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]), workers: 2 });
    const post = { port: edge.httpPort, method: 'POST', body: 'x'.repeat(2000) };
    using open = await RawClient.open({ port: edge.httpPort });
    const long = `POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2000\r\n\r\n${'x'.repeat(2000)}`;
    expect((await open.ask(long)).status).toBe(200);
    expect((await ask(post)).status).toBe(200);

    const pids = await edge.pool.reconfigure(optionsFor(edge, { requestBodyBytesMax: 1000 }));
    expect(new Set(pids)).toEqual(new Set(edge.pool.status().map(({ pid }) => pid)));
    expect((await open.ask(long)).status).toBe(413);
    for (let round = 0; round < 8; round += 1) expect((await ask(post)).status).toBe(413);

    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await eventually(() => {
      const now = edge.pool.status();
      return now.length === 2 && now.every(({ pid, state }) => !pids.includes(pid) && state === 'listening') ? true : undefined;
    });
    for (let round = 0; round < 8; round += 1) expect((await ask(post)).status).toBe(413);
  });

  test('a connection keeps the limits of heads that it began with, and what was held goes on whole', async () => {
    const seen: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      const fields = Object.entries(request.headers).filter(([name]) => name.startsWith('x-field-'));
      seen.push(fields.map(([name, value]) => `${name}=${String(value)}`).join(','));
      response.end('ok');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const fields = Array.from({ length: 60 }, (_, index) => `X-Field-${String(index)}: ${String(index)}\r\n`).join('');
    const many = `GET / HTTP/1.1\r\nHost: app.test\r\n${fields}\r\n`;
    using before = await RawClient.open({ port: edge.httpPort });
    for (let round = 0; round < 3; round += 1) expect((await before.ask(many)).status).toBe(200);

    // Its head is kept while it waits, and read again when it goes on.
    const { id } = upstream.endpoint();
    await edge.pool.freeze([id], { deadlineMs: 10_000, drainMs: 1000 });
    const held = before.ask(many.replace('X-Field-7: 7', 'X-Field-7: seven'));
    await eventually(async () => (/^ecluse_held_requests 1$/m.test(await edge.pool.metrics()) ? true : undefined));
    await edge.pool.reconfigure(optionsFor(edge, { fieldCountMax: 20, headBytesMax: 1024, lineBytesMax: 512 }));
    await edge.pool.thaw([id]);
    expect((await held).status).toBe(200);
    for (let round = 0; round < 3; round += 1) expect((await before.ask(many)).status).toBe(200);
    const whole = seen[0] ?? '';
    expect(whole.split(',')).toHaveLength(60);
    expect(seen).toEqual([whole, whole, whole, whole.replace('x-field-7=7', 'x-field-7=seven'), whole, whole, whole]);

    using after = await RawClient.open({ port: edge.httpPort });
    expect((await after.ask(many)).status).toBe(431);
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
    expect(seen).toHaveLength(8);
  });

  test('believes the proxies of the new list, on connections that come then', async () => {
    await using upstream = await startUpstream((request, response) => response.end(String(request.headers['x-forwarded-for'])));
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const told = async (): Promise<string> =>
      (await ask({ port: edge.httpPort, headers: { 'x-forwarded-for': '198.51.100.7' } })).body.toString();
    expect(await told()).toBe('127.0.0.1');
    const trust = { trustedProxies: ['127.0.0.0/8'], proxyProtocol: false };
    await edge.pool.reconfigure(optionsFor(edge, {}, { trust }));
    expect(await told()).toBe('198.51.100.7, 127.0.0.1');
    await edge.pool.reconfigure(optionsFor(edge));
    expect(await told()).toBe('127.0.0.1');
  });

  test('what cannot change is refused by all, and they go on with what they had', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]), workers: 2 });
    const trust = { trustedProxies: ['127.0.0.1'], proxyProtocol: true };
    await expect(edge.pool.reconfigure(optionsFor(edge, { requestBodyBytesMax: 1000 }, { trust }))).rejects.toMatchObject({
      code: 'ECLUSE_OPTIONS_REFUSED',
      status: 409,
    });
    const post = { port: edge.httpPort, method: 'POST', body: 'x'.repeat(2000) };
    for (let round = 0; round < 8; round += 1) expect((await ask(post)).status).toBe(200);
  });

  test('takes fewer connections, and more again', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    await edge.pool.reconfigure(optionsFor(edge, { connectionsMax: 1 }));
    using first = await RawClient.open({ port: edge.httpPort });
    expect((await first.ask('GET / HTTP/1.1\r\nHost: app.test\r\n\r\n')).status).toBe(200);
    const second = connect({ host: '127.0.0.1', port: edge.httpPort });
    second.on('error', () => undefined);
    second.resume();
    await finished(second).catch(() => undefined);
    expect(second.bytesRead).toBe(0);
    await edge.pool.reconfigure(optionsFor(edge));
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
  });

  test('moves the access log, and fails no request and loses no line, while requests go on over kept connections', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]), workers: 2 });
    const other = `${edge.accessLogFile}.other`;
    const load = startKeptLoad(edge.httpPort, { host: 'app.test', connections: 8 });
    for (let round = 0; round < 20; round += 1) {
      const file = round % 2 === 0 ? other : edge.accessLogFile;
      await edge.pool.reconfigure(
        optionsFor(edge, { idleTimeoutMs: 30_000 + round, headBytesMax: 16_384 + round }, { accessLogFile: file }),
      );
      await eventually(() => (load.statuses.length > (round + 1) * 20 ? true : undefined));
    }
    expect(await load.stop()).toEqual([]);
    expect(new Set(load.statuses)).toEqual(new Set([200]));
    const linesOf = async (file: string): Promise<readonly string[]> =>
      (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '');
    const lines = await eventually(async () => {
      const all = [...(await linesOf(other)), ...(await linesOf(edge.accessLogFile))];
      return all.length >= load.statuses.length ? all : undefined;
    });
    expect(lines).toHaveLength(load.statuses.length);
  });
});
