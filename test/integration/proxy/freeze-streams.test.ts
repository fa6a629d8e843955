/** What becomes of what is in flight at a freeze: WebSockets, streams of events, requests. Through real workers, with real clients. */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, expect, test } from 'vitest';
import type { RouteConfig } from '#routing/route-table.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, open, readAll, readUntil } from '../../support/http-client.ts';
import { startRawUpstream, startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';
import { acceptWebSocket, openWebSocket, textFrame, unmask } from '../../support/websocket-peer.ts';

/** Long enough for a busy machine: where streams are ended at once, nobody waits for it. */
const SPAN = { deadlineMs: 60_000, drainMs: 20_000 };
const SHORT = { deadlineMs: 60_000, drainMs: 200 };
const NOTHING = { cut: 0, closedWebSockets: 0, endedEventStreams: 0, replayed: 0 };
const EVENTS_HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nDate: now\r\n';

interface Session {
  readonly socket: Duplex;
  readonly received: Buffer[];
}

interface WebSocketEndpoint extends AsyncDisposable {
  readonly upstream: HttpUpstream;
  readonly sessions: readonly Session[];
}

async function startWebSocketEndpoint(greeting: Buffer): Promise<WebSocketEndpoint> {
  const upstream = await startUpstream((_request, response) => response.end('ok'));
  const sessions: Session[] = [];
  upstream.server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
    sessions.push({ socket, received: acceptWebSocket(request, socket) });
    socket.write(greeting);
  });
  return { upstream, sessions, [Symbol.asyncDispose]: async () => await upstream[Symbol.asyncDispose]() };
}

/** An endpoint that answers every request with a stream of events, of which the test has the socket. */
async function startEventEndpoint(
  head: string,
): Promise<{ readonly sockets: Socket[] } & Awaited<ReturnType<typeof startRawUpstream>>> {
  const sockets: Socket[] = [];
  const upstream = await startRawUpstream((socket) => {
    socket.once('data', () => {
      sockets.push(socket);
      socket.write(head);
    });
  });
  return { ...upstream, sockets };
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

async function metric(edge: Edge, line: string): Promise<void> {
  await eventually(async () => ((await edge.pool.metrics()).includes(`\n${line}\n`) ? true : undefined));
}

/** A WebSocket of Node's own names the address as its host. */
function anyHost(config: RouteConfig): RouteConfig {
  return { ...config, routes: [...config.routes, { host: '*', path: '/', serviceId: 'app' }] };
}

function url(edge: Edge): string {
  return `ws://127.0.0.1:${String(edge.httpPort)}/`;
}

async function eventClient(edge: Edge): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
  socket.write('GET /events HTTP/1.1\r\nHost: app.test\r\nAccept: text/event-stream\r\n\r\n');
  await once(socket, 'connect');
  return socket;
}

describe('WorkerPool.freeze() and WebSockets', () => {
  test('tells both sides 1012 at once, and new ones wait for the thaw', async () => {
    await using endpoint = await startWebSocketEndpoint(textFrame('hello'));
    const at = endpoint.upstream.endpoint({ id: 'c1' });
    await using edge = await startEdge({ config: anyHost(configOf([at])), workers: 2 });
    const clients = await Promise.all(Array.from({ length: 4 }, async () => await openWebSocket(url(edge))));
    for (const [index, client] of clients.entries()) client.send(`from ${String(index)}`);
    await eventually(() => (endpoint.sessions.every(({ received }) => received.length > 0) ? true : undefined));
    const frozen = await edge.pool.freeze(['c1'], SPAN);
    expect(frozen).toMatchObject({ ...NOTHING, closedWebSockets: 4 });
    expect(frozen.waitedMs).toBeLessThan(SPAN.drainMs);
    for (const client of clients) expect(await client.closed).toEqual({ code: 1012, wasClean: true, messages: ['hello'] });
    await eventually(() =>
      endpoint.sessions.every(({ socket }) => socket.readableEnded || socket.destroyed) ? true : undefined,
    );
    for (const { received } of endpoint.sessions) {
      const bytes = Buffer.concat(received);
      const close = unmask(bytes.subarray(6 + ((bytes[1] ?? 0) & 127)));
      expect([close.head, close.payload.readUInt16BE()]).toEqual([0x88, 1012]);
    }
    await metric(edge, 'ecluse_ended_streams_total{kind="websocket"} 4');
    const again = openWebSocket(url(edge));
    await metric(edge, 'ecluse_held_requests 1');
    expect(endpoint.sessions.length).toBe(4);
    await edge.pool.thaw(['c1']);
    await eventually(async () => ((await again).messages.length > 0 ? true : undefined));
    const lines = await edge.accessLog(4);
    expect(lines.map(({ status, errorCode }) => [status, errorCode])).toEqual(Array.from({ length: 4 }, () => [101, null]));
  });

  test('waits for the end of a frame of the endpoint, and drops what comes after it', async () => {
    const frame = textFrame('x'.repeat(1000));
    await using endpoint = await startWebSocketEndpoint(frame.subarray(0, 500));
    await using edge = await startEdge({ config: anyHost(configOf([endpoint.upstream.endpoint({ id: 'c1' })])) });
    const client = await openWebSocket(url(edge));
    const freezing = edge.pool.freeze(['c1'], SPAN);
    const held = ask({ port: edge.httpPort });
    await metric(edge, 'ecluse_held_requests 1');
    endpoint.sessions[0]?.socket.write(
      Buffer.concat([frame.subarray(500), textFrame('whole'), textFrame('not whole').subarray(0, 5)]),
    );
    expect(await freezing).toMatchObject({ ...NOTHING, closedWebSockets: 1 });
    expect(await client.closed).toEqual({ code: 1012, wasClean: true, messages: ['x'.repeat(1000), 'whole'] });
    await edge.pool.thaw(['c1']);
    expect((await held).status).toBe(200);
  });

  test('does not wait for the end of a frame of the client', async () => {
    await using endpoint = await startWebSocketEndpoint(textFrame('hello'));
    await using edge = await startEdge({ config: configOf([endpoint.upstream.endpoint({ id: 'c1' })]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(
      'GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    await readUntil(socket, 'hello');
    socket.write(Buffer.from([0x82, 0x80 | 100, 1, 2, 3, 4, 5]));
    await eventually(() => (endpoint.sessions[0]?.received.length === 1 ? true : undefined));
    const rest = readAll(socket);
    expect(await edge.pool.freeze(['c1'], SPAN)).toMatchObject({ ...NOTHING, closedWebSockets: 1 });
    socket.end();
    expect(Buffer.from(await rest, 'latin1')).toEqual(Buffer.from([0x88, 2, 0x03, 0xf4]));
  });

  test('cuts one whose endpoint does not end its frame in time', async () => {
    await using endpoint = await startWebSocketEndpoint(textFrame('hello').subarray(0, 4));
    await using edge = await startEdge({ config: anyHost(configOf([endpoint.upstream.endpoint({ id: 'c1' })])) });
    const client = await openWebSocket(url(edge));
    expect(await edge.pool.freeze(['c1'], SHORT)).toMatchObject({ ...NOTHING, cut: 1 });
    expect((await client.closed).code).toBe(1006);
  });

  test('leaves them alone where they are carried', async () => {
    await using endpoint = await startWebSocketEndpoint(textFrame('hello'));
    const at = endpoint.upstream.endpoint({ id: 'c1' });
    await using edge = await startEdge({ config: anyHost(configOf([at])) });
    const client = await openWebSocket(url(edge));
    const frozen = await edge.pool.freeze(['c1'], { ...SHORT, streams: 'carry' });
    expect(frozen).toMatchObject(NOTHING);
    await edge.apply(anyHost(configOf([{ ...at, generation: 2 }], 2)), []);
    await edge.pool.thaw(['c1']);
    endpoint.sessions[0]?.socket.write(textFrame('still here'));
    await eventually(() => (client.messages.length === 2 ? true : undefined));
    expect(client.messages).toEqual(['hello', 'still here']);
  });
});

describe('WorkerPool.freeze() and streams of events', () => {
  test('ends one in order between two events, with the time to come again; the connection goes on', async () => {
    await using endpoint = await startEventEndpoint(
      `${EVENTS_HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk('data: one\n\n')}${chunk('data: tw')}`,
    );
    await using edge = await startEdge({ config: configOf([endpoint.endpoint({ id: 'c1' })]) });
    const client = await eventClient(edge);
    await readUntil(client, 'data: tw');
    const freezing = edge.pool.freeze(['c1'], SPAN);
    await edge.pool.metrics(); // A worker takes messages in their order: what the endpoint says now comes to a stream that is to end.
    endpoint.sockets[0]?.write(`${chunk('o\n\n')}5\r\ndata`);
    const rest = await readUntil(client, '\r\n0\r\n\r\n');
    expect(rest).toMatch(/^(?:3\r\no\n\n\r\n)?[\da-f]+\r\n(?::\n)?retry: (?:2|3)\d\d\n\n?\r\n0\r\n\r\n$/);
    expect(await freezing).toMatchObject({ ...NOTHING, endedEventStreams: 1 });
    client.write('GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n');
    await metric(edge, 'ecluse_held_requests 1');
    await metric(edge, 'ecluse_ended_streams_total{kind="events"} 1');
    client.destroy();
    const [line] = await edge.accessLog(1);
    expect(line).toMatchObject({ status: 200, errorCode: null });
  });

  test('of an endpoint that goes on for ever is ended behind an event that came whole', async () => {
    await using endpoint = await startEventEndpoint(`${EVENTS_HEAD}Transfer-Encoding: chunked\r\n\r\n`);
    await using edge = await startEdge({ config: configOf([endpoint.endpoint({ id: 'c1' })]) });
    const response = await open({ port: edge.httpPort });
    const [socket] = endpoint.sockets;
    let count = 0;
    const event = (): string => chunk(`id: ${String((count += 1))}\ndata: ${'x'.repeat(5_000)}\n\n`);
    socket?.on('drain', () => {
      while (socket.writable && socket.write(event()));
    });
    while (socket?.write(event()) === true);
    let text = '';
    response.on('data', (data: Buffer) => {
      text += data.toString();
    });
    const ended = once(response, 'end');
    await eventually(() => (text.length > 1_000_000 ? true : undefined));
    expect(await edge.pool.freeze(['c1'], SPAN)).toMatchObject({ ...NOTHING, endedEventStreams: 1 });
    await ended;
    expect(response.complete).toBe(true);
    const events = text.split('\n\n');
    expect(events.at(-2)).toMatch(/^retry: \d+$/);
    expect(events.slice(0, -2).every((each, index) => each === `id: ${String(index + 1)}\ndata: ${'x'.repeat(5_000)}`)).toBe(
      true,
    );
  });

  test('whose endpoint does not frame it ends in chunks for HTTP/1.1, and with the connection for HTTP/1.0', async () => {
    await using endpoint = await startEventEndpoint(`${EVENTS_HEAD}Connection: close\r\n\r\ndata: one\n\n`);
    await using edge = await startEdge({ config: configOf([endpoint.endpoint({ id: 'c1' })]) });
    const client = await eventClient(edge);
    await readUntil(client, 'data: one\n\n\r\n');
    const old = connect({ host: '127.0.0.1', port: edge.httpPort });
    old.write('GET / HTTP/1.0\r\nHost: app.test\r\n\r\n');
    await readUntil(old, 'data: one\n\n');
    const [rest, oldRest] = [readUntil(client, '0\r\n\r\n'), readAll(old)];
    expect(await edge.pool.freeze(['c1'], SPAN)).toMatchObject({ ...NOTHING, endedEventStreams: 2 });
    expect(await rest).toMatch(/^c\r\nretry: \d{3}\n\n\r\n0\r\n\r\n$/);
    expect(await oldRest).toMatch(/^retry: \d{3}\n\n$/);
    client.destroy();
  });

  test('leaves them alone where they are carried', async () => {
    await using endpoint = await startEventEndpoint(`${EVENTS_HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk('data: one\n\n')}`);
    await using edge = await startEdge({ config: configOf([endpoint.endpoint({ id: 'c1' })]) });
    const client = await eventClient(edge);
    await readUntil(client, 'one');
    expect(await edge.pool.freeze(['c1'], { ...SHORT, streams: 'carry' })).toMatchObject(NOTHING);
    endpoint.sockets[0]?.write(chunk('data: two\n\n'));
    await readUntil(client, 'two');
    client.destroy();
  });
});

describe('WorkerPool.freeze() and requests in flight', () => {
  test('sends safe ones again after the thaw, and a POST never', async () => {
    const seen: string[] = [];
    let isSilent = true;
    await using upstream = await startUpstream((request, response) => {
      seen.push(`${request.method ?? ''} ${request.url ?? ''}`);
      if (!isSilent) response.end('ok');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    const get = ask({ port: edge.httpPort, path: '/get' });
    const head = ask({ port: edge.httpPort, path: '/head', method: 'HEAD' });
    const withBody = ask({ port: edge.httpPort, path: '/body', headers: { 'content-length': '1' }, body: 'x' });
    const post = ask({ port: edge.httpPort, path: '/post', method: 'POST' });
    await eventually(() => (seen.length === 4 ? true : undefined));
    expect(await edge.pool.freeze(['c1'], SHORT)).toMatchObject({ ...NOTHING, cut: 2, replayed: 2 });
    expect([(await post).status, (await withBody).status]).toEqual([503, 503]);
    await metric(edge, 'ecluse_held_requests 2');
    await metric(edge, 'ecluse_replayed_requests_total 2');
    isSilent = false;
    await edge.pool.thaw(['c1']);
    expect([(await get).status, (await head).status]).toEqual([200, 200]);
    expect(seen.toSorted()).toEqual(['GET /body', 'GET /get', 'GET /get', 'HEAD /head', 'HEAD /head', 'POST /post']);
  });

  test('keeps no connection that was there before the thaw', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await ask({ port: edge.httpPort });
    await ask({ port: edge.httpPort });
    expect(upstream.connections()).toBe(1);
    await edge.pool.freeze(['c1'], SPAN);
    await metric(edge, 'ecluse_upstream_idle_connections 0');
    await edge.pool.thaw(['c1']);
    await ask({ port: edge.httpPort });
    expect(upstream.connections()).toBe(2);
  });

  test('cuts nothing that came after a thaw that came before the end of the freeze', async () => {
    let answer: (() => void) | undefined;
    const seen: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      seen.push(request.url ?? '');
      if (request.url === '/slow') answer = () => response.end('late');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    const before = ask({ port: edge.httpPort, path: '/before', method: 'POST' });
    await eventually(() => (seen.length === 1 ? true : undefined));
    const freezing = edge.pool.freeze(['c1'], { deadlineMs: 60_000, drainMs: 1_000 });
    const slow = ask({ port: edge.httpPort, path: '/slow', method: 'POST' });
    await metric(edge, 'ecluse_held_requests 1');
    await edge.pool.thaw(['c1']);
    expect(await freezing).toMatchObject(NOTHING);
    await eventually(() => (answer === undefined ? undefined : true));
    await new Promise((resolve) => setTimeout(resolve, 1_200)); // Past the end of the freeze that is not.
    answer?.();
    expect((await slow).body.toString()).toBe('late');
    const cut = await edge.pool.freeze(['c1'], SHORT);
    expect([cut.cut, (await before).status]).toEqual([1, 503]);
  });
});
