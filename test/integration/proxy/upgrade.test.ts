/** Upgraded connections: bytes both ways, half-close, refusals. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { configOf, startEdge } from '../../support/edge.ts';
import { readAll, readUntil } from '../../support/http-client.ts';
import { startRawUpstream } from '../../support/upstream.ts';

const ASK =
  'GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n';
const AGREE = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n';

function echoOnce(socket: Socket, seen: string[]): void {
  socket.once('data', (chunk: Buffer) => {
    seen.push(chunk.toString('latin1'));
    socket.write(`${AGREE}hello `);
    socket.pipe(socket);
  });
}

describe('an upgrade', () => {
  test('passes bytes both ways and each end of a stream on its own', async () => {
    const seen: string[] = [];
    await using upstream = await startRawUpstream((socket) => {
      echoOnce(socket, seen);
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort, allowHalfOpen: true });
    socket.write(ASK);
    const head = await readUntil(socket, 'hello ');
    expect(head).toMatch(
      /^HTTP\/1\.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello $/,
    );
    expect(seen[0]).toMatch(/\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n$/);
    const payload = 'x'.repeat(1_000_000);
    socket.end(payload); // Half-close: the echo still comes.
    expect((await readAll(socket)).length).toBe(payload.length);
    const [line] = await edge.accessLog(1);
    expect(line).toMatchObject({ status: 101, errorCode: null });
    expect(line?.upstreamInBytes).toBeGreaterThan(1_000_000);
  });

  test('is cut by a freeze and counted', async () => {
    await using upstream = await startRawUpstream((socket) => {
      echoOnce(socket, []);
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(ASK);
    await readUntil(socket, 'hello ');
    const closed = readAll(socket);
    const frozen = await edge.pool.freeze(['c1'], { deadlineMs: 5000, drainMs: 50 });
    expect(frozen.cut).toBe(1);
    await closed;
  });

  test('that the endpoint does not agree to gets its answer', async () => {
    await using upstream = await startRawUpstream((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno'));
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(ASK);
    const text = await readAll(socket);
    expect(text).toMatch(/^HTTP\/1\.1 403 No\r\n/);
    expect(text).toMatch(/\r\n\r\nno$/);
  });

  test('to h2c is a plain request', async () => {
    const seen: string[] = [];
    await using upstream = await startRawUpstream((socket) => {
      socket.once('data', (chunk: Buffer) => {
        seen.push(chunk.toString('latin1'));
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(
      'GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n',
    );
    await readUntil(socket, '\r\n\r\nok');
    socket.destroy();
    expect(seen[0]).not.toMatch(/upgrade|http2/i);
  });

  test('to an unknown host is answered 404', async () => {
    await using edge = await startEdge({ config: configOf([]) });
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(ASK.replace('app.test', 'nobody.test'));
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 404 /);
  });
});
