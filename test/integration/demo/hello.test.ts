/** The demo's app, as a newcomer and the migration tests use it. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { createConnection } from 'node:net';
import { hostname } from 'node:os';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import * as z from 'zod';
import { startHello } from '../../support/hello-app.ts';
import type { HelloApp } from '../../support/hello-app.ts';

const answerSchema = z.strictObject({
  count: z.int(),
  host: z.string(),
  hostname: z.string(),
  startedAt: z.iso.datetime(),
  uptimeMs: z.int().nonnegative(),
});

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';

async function countOf(app: HelloApp, host?: string): Promise<unknown> {
  const response = await fetch(`${app.url}/count`, { headers: host === undefined ? {} : { 'x-ecluse-host': host } });
  return await response.json();
}

/** What the app answers to these bytes on a connection that is a WebSocket already, until the app closes it. */
async function framesAfterUpgrade(app: HelloApp, ...chunks: readonly Buffer[]): Promise<Buffer> {
  const socket = createConnection({ host: '127.0.0.1', port: app.port });
  socket.setNoDelay();
  socket.write(`GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ${KEY}\r\n\r\n`);
  const received: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  const whole = (): Buffer => Buffer.concat(received);
  await expect.poll(() => whole().includes('\r\n\r\n')).toBe(true);
  for (const chunk of chunks) socket.write(chunk);
  await once(socket, 'end');
  socket.destroy();
  return whole().subarray(whole().indexOf('\r\n\r\n') + 4);
}

async function nextMessage(socket: WebSocket): Promise<MessageEvent> {
  return await new Promise((resolve) => {
    socket.addEventListener('message', resolve, { once: true });
  });
}

function maskedFrame(first: number, body: Buffer): Buffer {
  const mask = Buffer.from([1, 2, 3, 4]);
  const length = body.length < 126 ? [0x80 | body.length] : [0x80 | 126, body.length >> 8, body.length & 0xff];
  return Buffer.concat([Buffer.from([first, ...length]), mask, body.map((byte, index) => byte ^ (mask[index % 4] ?? 0))]);
}

test('it counts pages and counts, logs each, and leaves health checks out', async () => {
  await using app = await startHello();
  expect(await countOf(app, 'alpha')).toMatchObject({ count: 1, host: 'alpha' });
  expect((await fetch(`${app.url}/healthz`)).status).toBe(200);
  await (await fetch(`${app.url}/`)).text();
  const third = answerSchema.parse(await countOf(app, 'beta'));
  expect(third).toMatchObject({ count: 3, host: 'beta', hostname: hostname() });
  await expect.poll(() => app.lines).toEqual(['request 1 from alpha', 'request 2 from unknown', 'request 3 from beta']);
});

test('the page escapes the host that the header names', async () => {
  await using app = await startHello();
  const page = await (await fetch(`${app.url}/`, { headers: { 'x-ecluse-host': '<img src=x onerror="1">&' } })).text();
  expect(page).toContain('&#60;img src=x onerror=&#34;1&#34;&#62;&#38;');
  expect(page).not.toContain('<img');
});

test('an unknown path is answered with the paths that there are', async () => {
  await using app = await startHello();
  const response = await fetch(`${app.url}/toString`);
  expect(response.status).toBe(404);
  expect(await response.text()).toContain('GET /count');
});

test('the echo sends back what it has while the rest is still to come', async () => {
  await using app = await startHello();
  const upload = request(`${app.url}/echo`, { method: 'POST' });
  upload.write('first');
  const response = await new Promise<IncomingMessage>((resolve) => upload.once('response', resolve));
  const first = await new Promise<Buffer>((resolve) => response.once('data', resolve));
  expect(first.toString()).toBe('first');
  upload.end('second');
  expect(await text(response)).toBe('second');
});

test('the echo sends a large body back whole', async () => {
  await using app = await startHello();
  const body = Buffer.alloc(20 * 1024 * 1024, 'écluse');
  const response = await fetch(`${app.url}/echo`, { method: 'POST', body });
  expect(body.equals(Buffer.from(await response.arrayBuffer()))).toBe(true);
});

test('the stream sends an event a second', async () => {
  await using app = await startHello();
  const response = await fetch(`${app.url}/stream`);
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  let received = '';
  for await (const chunk of response.body ?? []) {
    received += Buffer.from(chunk).toString();
    if (received.includes('"tick":2')) break;
  }
  expect(received).toBe('data: {"tick":1,"count":0}\n\ndata: {"tick":2,"count":0}\n\n');
});

test('the WebSocket sends text and binary back, and agrees to close', async () => {
  await using app = await startHello();
  const socket = new WebSocket(`ws://127.0.0.1:${String(app.port)}/ws`);
  socket.binaryType = 'arraybuffer';
  await once(socket, 'open');
  for (const message of ['héllo', '', 'x'.repeat(65_535)]) {
    const answered = nextMessage(socket);
    socket.send(message);
    expect((await answered).data).toBe(message);
  }
  const answered = nextMessage(socket);
  socket.send(new Uint8Array([1, 2, 3]));
  expect((await answered).data).toEqual(new Uint8Array([1, 2, 3]).buffer);
  const closing = new Promise((resolve) => {
    socket.addEventListener('close', resolve, { once: true });
  });
  socket.close(1000, 'enough');
  expect(await closing).toMatchObject({ code: 1000, reason: 'enough', wasClean: true });
});

test('the WebSocket keeps fragments, answers pings, and reads frames that come in pieces', async () => {
  await using app = await startHello();
  const bytes = Buffer.concat([
    maskedFrame(0x01, Buffer.from('frag')),
    maskedFrame(0x89, Buffer.from('ping')),
    maskedFrame(0x8a, Buffer.from('pong')),
    maskedFrame(0x80, Buffer.from('ment')),
    maskedFrame(0x88, Buffer.from([0x03, 0xe8])),
    maskedFrame(0x81, Buffer.from('after the close')),
  ]);
  const pieces = [...bytes].map((byte) => Buffer.from([byte]));
  const expected = Buffer.concat([
    Buffer.from([0x01, 4]),
    Buffer.from('frag'),
    Buffer.from([0x8a, 4]),
    Buffer.from('ping'),
    Buffer.from([0x80, 4]),
    Buffer.from('ment'),
    Buffer.from([0x88, 2, 0x03, 0xe8]),
  ]);
  expect(await framesAfterUpgrade(app, bytes)).toEqual(expected);
  expect(await framesAfterUpgrade(app, ...pieces)).toEqual(expected);
});

test('the WebSocket refuses a frame without a mask and one of 64 KiB', async () => {
  await using app = await startHello();
  expect(await framesAfterUpgrade(app, Buffer.from([0x81, 4, 1, 2, 3, 4]))).toEqual(Buffer.from([0x88, 2, 0x03, 0xea]));
  const announced = Buffer.from([0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]);
  expect(await framesAfterUpgrade(app, announced)).toEqual(Buffer.from([0x88, 2, 0x03, 0xf1]));
});

test('SIGTERM ends it within a second, even with an open stream and an open WebSocket', async () => {
  await using app = await startHello();
  const stream = await fetch(`${app.url}/stream`);
  const socket = new WebSocket(`ws://127.0.0.1:${String(app.port)}/ws`);
  socket.addEventListener('error', () => undefined); // It is cut off.
  await once(socket, 'open');
  const { exitCode, tookMs } = await app.stop();
  expect(exitCode).toBe(0);
  expect(tookMs).toBeLessThan(1000);
  await expect(stream.text()).rejects.toThrow('terminated');
});

test('BALLAST_MIB is memory that it really holds', async () => {
  await using app = await startHello({ BALLAST_MIB: '64' });
  const status = await readFile(`/proc/${String(app.pid)}/status`, 'utf8');
  expect(Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1])).toBeGreaterThan(64 * 1024);
});
