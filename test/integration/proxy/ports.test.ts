/** Published ports on real workers: streams, datagrams, freezes, changes of the table, the death of a worker. */
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { Endpoint, PublishedPort, RouteConfig } from '#routing/route-table.ts';
import { systemClock } from '#clock';
import { Budgets } from '#proxy/budget.ts';
import { Counters } from '#proxy/counters.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { TcpPort } from '#proxy/ports/tcp-port.ts';
import { TimingWheel } from '#proxy/timing-wheel.ts';
import { Traffic } from '#proxy/traffic.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { freePort } from '../../support/node.ts';
import { answerOf, datagramClient, startDatagramEcho, talk } from '../../support/stream-client.ts';
import { startRawUpstream } from '../../support/upstream.ts';

const HOLD = { deadlineMs: 10_000, drainMs: 2_000 };

function endpointAt(port: number, overrides: Partial<Endpoint> = {}): Endpoint {
  return { id: 'c1', address: '127.0.0.1', port, hostName: 'alpha', generation: 1, ...overrides };
}

function published(port: number, endpoint: Endpoint, overrides: Partial<PublishedPort> = {}): PublishedPort {
  return { protocol: 'tcp', address: '127.0.0.1', port, tenant: 'acme', endpoint, ...overrides };
}

function withPorts(ports: readonly PublishedPort[], version = 1): RouteConfig {
  return { ...configOf([], version), ports };
}

function echo(socket: Socket): void {
  socket.pipe(socket);
}

async function apply(edge: Edge, ports: readonly PublishedPort[], version: number): Promise<void> {
  await edge.apply(withPorts(ports, version), []);
}

/** Whether something is accepted there at all. */
async function isOpen(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect({ host, port });
  return await new Promise((resolve) => {
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

describe('a published TCP port', () => {
  test('carries bytes both ways, half-close included, and accounts for them', async () => {
    await using upstream = await startRawUpstream((socket) => {
      // Answers only when the client has ended: it must hear of the end while its own direction is open.
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('end', () => {
        socket.end(`got ${Buffer.concat(chunks).toString()}`);
      });
    });
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]), workers: 2 });
    expect(await talk(port, 'hello')).toEqual({ bytes: Buffer.from('got hello'), code: undefined });
    const delta = await eventually(() => edge.traffic.find((one) => one.endpointId === 'c1'));
    expect(delta).toMatchObject({ tenant: 'acme', requests: 0, downstreamInBytes: 5, upstreamOutBytes: 5 });
    expect(delta).toMatchObject({ upstreamInBytes: 9, downstreamOutBytes: 9 });
    const metrics = await edge.pool.metrics();
    expect(metrics).toMatch(/ecluse_published_streams_total\{tenant="acme",protocol="tcp"\} 1/);
    expect(metrics).toMatch(/ecluse_published_ports 1/);
  });

  test('moves 320 MiB there and back unchanged against a slow reader, in bounded memory', { timeout: 60_000 }, async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]) });
    const block = Buffer.alloc(1024 * 1024, 'abcdefghijklmnop');
    // Linux lets receive buffers grow to 32 MiB each (`net.ipv4.tcp_rmem`): with four on the way there and back, only more than
    // twice as much shows that it is the edge who stops.
    const blocks = 320;
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
    let received = 0;
    let wrong = 0;
    socket.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; at += 4093) if (chunk[at] !== block[(received + at) % block.length]) wrong += 1;
      received += chunk.length;
    });
    socket.pause(); // The way back fills up: the way there must stop too.
    let sent = 0;
    const sending = (async (): Promise<void> => {
      while (sent < blocks) {
        if (!socket.write(block)) await new Promise((resolve) => socket.once('drain', resolve));
        sent += 1;
      }
      socket.end();
    })();
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(sent).toBeGreaterThan(0);
    expect(sent).toBeLessThan(blocks / 2);
    socket.resume();
    await Promise.all([sending, new Promise((resolve) => socket.once('close', resolve))]);
    expect(wrong).toBe(0);
    expect(received).toBe(blocks * block.length);
    expect(edge.pool.status()).toHaveLength(1);
  });

  test('takes 200 connections at once, over both workers', async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]), workers: 2 });
    expect(edge.pool.version).toBe(1);
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => await talk(port, `message ${String(index)}`)),
    );
    expect(answers.map(({ bytes }) => bytes.toString())).toEqual(answers.map((_, index) => `message ${String(index)}`));
  });

  test('resets the client where nothing listens in the container', async () => {
    const [port, nobody] = [await freePort(), await freePort()];
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(nobody))]) });
    expect(edge.pool.version).toBe(1);
    expect(await talk(port, 'x')).toMatchObject({ bytes: Buffer.alloc(0), code: 'ECONNRESET' });
  });

  test('the same port of two tenants leads to two containers', async () => {
    await using one = await startRawUpstream((socket) => socket.end('one'));
    await using two = await startRawUpstream((socket) => socket.end('two'));
    const port = await freePort();
    const ports = [
      published(port, endpointAt(one.port)),
      published(port, endpointAt(two.port, { id: 'c2' }), { address: '127.0.0.2', tenant: 'globex' }),
    ];
    await using edge = await startEdge({ config: withPorts(ports), workers: 2 });
    expect(edge.pool.version).toBe(1);
    expect((await talk(port, '')).bytes.toString()).toBe('one');
    expect((await talk(port, '', '127.0.0.2')).bytes.toString()).toBe('two');
  });

  test('opens with a version that has it and closes with one that has not', async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([]), workers: 2 });
    expect(await isOpen(port)).toBe(false);
    await apply(edge, [published(port, endpointAt(upstream.port))], 2);
    expect((await talk(port, 'x')).bytes.toString()).toBe('x');
    const lasting = connect({ host: '127.0.0.1', port });
    lasting.on('error', () => undefined);
    await new Promise((resolve) => lasting.once('connect', resolve));
    const answer = answerOf(lasting);
    await eventually(() => (upstream.connections() >= 2 ? true : undefined));
    await apply(edge, [], 3);
    expect(await isOpen(port)).toBe(false);
    // Its container is gone: an idle stream ends soon.
    await answer;
    // Free at once, for anybody.
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', resolve);
    });
    await new Promise((resolve) => server.close(resolve));
  });

  test('that cannot be listened on refuses nobody else, and opens when it can', { timeout: 20_000 }, async () => {
    await using upstream = await startRawUpstream(echo);
    const [good, taken] = [await freePort(), await freePort()];
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(taken, '127.0.0.1', resolve));
    await using edge = await startEdge({ config: withPorts([]) });
    const ports = [published(good, endpointAt(upstream.port)), published(taken, endpointAt(upstream.port, { id: 'c2' }))];
    await apply(edge, ports, 2);
    expect((await talk(good, 'x')).bytes.toString()).toBe('x');
    expect(await edge.pool.metrics()).toMatch(/ecluse_published_ports_unbound 1/);
    await new Promise((resolve) => squatter.close(resolve));
    await eventually(async () => ((await edge.pool.metrics()).includes('ecluse_published_ports_unbound 0') ? true : undefined));
    expect((await talk(taken, 'y')).bytes.toString()).toBe('y');
  });

  test("never lies on the node's own port", async () => {
    await using upstream = await startRawUpstream((socket) => socket.end('stolen'));
    await using edge = await startEdge({ config: withPorts([]) });
    await apply(edge, [published(edge.httpPort, endpointAt(upstream.port))], 2);
    for (let round = 0; round < 20; round += 1) {
      expect((await talk(edge.httpPort, 'GET / HTTP/1.0\r\n\r\n')).bytes.toString()).toMatch(/^HTTP\/1\.1 4/);
    }
    expect(upstream.connections()).toBe(0);
  });

  test('lets new connections wait for a container on the move, and ends those that it has', { timeout: 20_000 }, async () => {
    await using source = await startRawUpstream(echo);
    await using target = await startRawUpstream((socket) => {
      socket.write('target:');
      echo(socket);
    });
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(source.port))]), workers: 2 });
    const old = connect({ host: '127.0.0.1', port });
    const cut = answerOf(old);
    await eventually(() => (source.connections() === 1 ? true : undefined));
    const frozen = await edge.pool.freeze(['c1'], HOLD);
    expect(frozen.cut).toBe(1);
    expect((await cut).code).toBe('ECONNRESET');
    const waiting = Promise.all(Array.from({ length: 50 }, async (_, index) => await talk(port, String(index))));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await apply(edge, [published(port, endpointAt(target.port, { generation: 2 }))], 2);
    expect(target.connections()).toBe(0);
    await edge.pool.thaw(['c1']);
    const answers = await waiting;
    expect(answers.map(({ bytes }) => bytes.toString())).toEqual(answers.map((_, index) => `target:${String(index)}`));
    expect(source.connections()).toBe(1);
  });

  test('refuses who waits beyond the deadline of a move, or beyond the budget', async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    const limits = { tenant: { ...EDGE_LIMITS.tenant, heldRequests: 3 } };
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]), limits });
    await edge.pool.freeze(['c1'], { deadlineMs: 500, drainMs: 0 });
    const startMs = performance.now();
    const ends = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const answer = await talk(port, 'x');
        return { code: answer.code, early: performance.now() - startMs < 300 };
      }),
    );
    expect(ends.every(({ code }) => code === 'ECONNRESET')).toBe(true);
    expect(ends.filter(({ early }) => early)).toHaveLength(2);
    await edge.pool.thaw(['c1']);
    expect((await talk(port, 'x')).bytes.toString()).toBe('x');
  });

  test('bounds the connections of a tenant', async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    const limits = { tenant: { ...EDGE_LIMITS.tenant, upgradedStreams: 2 } };
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]), limits });
    expect(edge.pool.version).toBe(1);
    const first = connect({ host: '127.0.0.1', port });
    const second = connect({ host: '127.0.0.1', port });
    await eventually(() => (upstream.connections() === 2 ? true : undefined));
    expect((await talk(port, 'x')).code).toBe('ECONNRESET');
    const ended = answerOf(first);
    first.end();
    await ended;
    expect((await talk(port, 'x')).bytes.toString()).toBe('x');
    second.destroy();
  });

  test('is there again after the death of a worker', { timeout: 20_000 }, async () => {
    await using upstream = await startRawUpstream(echo);
    const port = await freePort();
    await using edge = await startEdge({ config: withPorts([published(port, endpointAt(upstream.port))]) });
    const [worker] = edge.pool.status();
    process.kill(worker?.pid ?? 0, 'SIGKILL');
    await eventually(() =>
      edge.pool.status().some(({ pid, state }) => pid !== worker?.pid && state === 'listening') ? true : undefined,
    );
    expect((await talk(port, 'x')).bytes.toString()).toBe('x');
  });
});

describe('where Node does not read into our buffers', () => {
  test('streams go the slower way', { timeout: 10_000 }, async () => {
    await using upstream = await startRawUpstream(echo);
    const port = published(await freePort(), endpointAt(upstream.port));
    const counters = new Counters();
    using wheel = new TimingWheel(systemClock);
    const open = await TcpPort.open('slow', port, {
      clock: systemClock,
      limits: () => EDGE_LIMITS,
      budgets: new Budgets(EDGE_LIMITS.tenant),
      traffic: new Traffic(counters, () => systemClock.monotonicMs()),
      counters,
      wheel,
      path: { fast: false },
      answerTo: () => ({ verdict: 'connect', port }),
      streamCount: () => 0,
      wanted: () => undefined,
      onFault: () => undefined,
    });
    const large = Buffer.alloc(4 * 1024 * 1024, 'slow');
    expect((await talk(port.port, large)).bytes.equals(large)).toBe(true);
    open.close();
  });
});

describe('a published UDP port', () => {
  test('carries datagrams in order, with a session for each client', async () => {
    await using upstream = await startDatagramEcho();
    const port = await freePort();
    const udp = published(port, endpointAt(upstream.port), { protocol: 'udp' });
    await using edge = await startEdge({ config: withPorts([udp]), workers: 2 });
    await using one = datagramClient(port);
    await using two = datagramClient(port);
    const texts = Array.from({ length: 50 }, (_, index) => `datagram ${String(index)}`);
    for (const text of texts) {
      one.send(text);
      two.send(text.toUpperCase());
    }
    await expect.poll(() => one.received.length + two.received.length, { timeout: 5_000 }).toBe(100);
    expect(one.received).toEqual(texts);
    expect(two.received).toEqual(texts.map((text) => text.toUpperCase()));
    expect(upstream.peers.size).toBe(2);
    const delta = await eventually(() => edge.traffic.find(({ endpointId }) => endpointId === 'c1'));
    expect(delta.upstreamInBytes).toBeGreaterThan(0);
    expect(await edge.pool.metrics()).toMatch(/ecluse_published_streams_total\{tenant="acme",protocol="udp"\} 2/);
  });

  test('waits for a container on the move, and goes to its new address', async () => {
    await using source = await startDatagramEcho('source ');
    await using target = await startDatagramEcho('target ');
    const port = await freePort();
    const at = (endpoint: Endpoint): PublishedPort => published(port, endpoint, { protocol: 'udp' });
    await using edge = await startEdge({ config: withPorts([at(endpointAt(source.port))]) });
    await using client = datagramClient(port);
    client.send('1');
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['source 1']);
    await edge.pool.freeze(['c1'], HOLD);
    for (const text of ['2', '3', '4']) client.send(text);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await apply(edge, [at(endpointAt(target.port, { generation: 2 }))], 2);
    await edge.pool.thaw(['c1']);
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['source 1', 'target 2', 'target 3', 'target 4']);
  });

  test('passes on what the container says, and nothing of others', async () => {
    await using upstream = await startDatagramEcho();
    await using stranger = await startDatagramEcho();
    const port = await freePort();
    await using edge = await startEdge({
      config: withPorts([published(port, endpointAt(upstream.port), { protocol: 'udp' })]),
    });
    expect(edge.pool.version).toBe(1);
    await using client = datagramClient(port);
    client.send('x');
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['x']);
    const [session = 0] = upstream.peers;
    await using forger = datagramClient(session);
    forger.send('forged');
    client.send('y');
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['x', 'y']);
    expect(stranger.peers.size).toBe(0);
  });
});
