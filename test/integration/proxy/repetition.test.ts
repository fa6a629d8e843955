/** Heads that come again on a connection are not read again: they must mean the same as if they were. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { configOf, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { readAll } from '../../support/http-client.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

const ROUNDS = 6;

interface Seen {
  readonly text: string;
  readonly requestId: string;
}

describe('a head that comes again', () => {
  const seen: Seen[] = [];
  let one: HttpUpstream;
  let two: HttpUpstream;
  let edge: Edge;
  let version = 1;

  async function upstreamNamed(name: string): Promise<HttpUpstream> {
    return await startUpstream((request, response) => {
      void (async () => {
        const body = (await bodyOf(request)).toString();
        seen.push({
          text: `${name} ${request.method ?? ''} ${request.url ?? ''} ${body}`,
          requestId: String(request.headers['x-request-id']),
        });
        response.writeHead(200, { 'content-length': 3, date: 'Sat, 21 Nov 2026 06:00:00 GMT' });
        response.end(request.method === 'HEAD' ? undefined : name);
      })();
    });
  }

  beforeAll(async () => {
    one = await upstreamNamed('one');
    two = await upstreamNamed('two');
    edge = await startEdge({ config: configOf([one.endpoint({ id: 'c1' })]) });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await one[Symbol.asyncDispose]();
    await two[Symbol.asyncDispose]();
  });

  /** Sends each request when the answer to the one before it is there; returns the bodies. */
  async function inTurn(socket: Socket, requests: readonly string[]): Promise<string[]> {
    const bodies: string[] = [];
    for (const request of requests) bodies.push(await answerTo(socket, request));
    return bodies;
  }

  test('is another exchange each time: ids, bodies, log lines', async () => {
    seen.length = 0;
    const before = (await edge.accessLog(0)).length;
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    const posts = Array.from({ length: ROUNDS }, (_, round) => post('/same', `b${String(round)}`));
    expect(await inTurn(socket, posts)).toEqual(Array.from({ length: ROUNDS }, () => 'one'));
    expect(seen.map(({ text }) => text)).toEqual(posts.map((_, round) => `one POST /same b${String(round)}`));
    expect(new Set(seen.map(({ requestId }) => requestId)).size).toBe(ROUNDS);
    const lines = (await edge.accessLog(before + ROUNDS)).slice(before);
    expect(lines.map(({ requestId }) => requestId)).toEqual(seen.map(({ requestId }) => requestId));
    expect(new Set(lines.map(({ path, status, host, method }) => `${path} ${String(status)} ${String(host)} ${method}`))).toEqual(
      new Set(['/same 200 app.test POST']),
    );
    expect(new Set(lines.map(({ downstreamInBytes }) => downstreamInBytes)).size).toBe(1);
    socket.destroy();
  });

  test('goes where the routes of the moment say', async () => {
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    const get = 'GET /moved HTTP/1.1\r\nHost: app.test\r\n\r\n';
    expect(await inTurn(socket, [get, get, get])).toEqual(['one', 'one', 'one']);
    version += 1;
    await edge.apply(configOf([two.endpoint({ id: 'c2' })], version), []);
    expect(await inTurn(socket, [get, get])).toEqual(['two', 'two']);
    version += 1;
    await edge.apply(configOf([one.endpoint({ id: 'c1' })], version), []);
    expect(await inTurn(socket, [get, get])).toEqual(['one', 'one']);
    socket.destroy();
  });

  test('among others means itself, and GET is not HEAD', async () => {
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    const a = 'GET /a HTTP/1.1\r\nHost: app.test\r\n\r\n';
    const b = 'GET /b HTTP/1.1\r\nHost: app.test\r\n\r\n';
    const head = 'HEAD /a HTTP/1.1\r\nHost: app.test\r\n\r\n';
    seen.length = 0;
    expect(await inTurn(socket, [a, a, b, a, head, head, a, head, a, a])).toEqual([
      'one',
      'one',
      'one',
      'one',
      '',
      '',
      'one',
      '',
      'one',
      'one',
    ]);
    expect(seen.map(({ text }) => text.trim())).toEqual(
      ['GET /a', 'GET /a', 'GET /b', 'GET /a', 'HEAD /a', 'HEAD /a', 'GET /a', 'HEAD /a', 'GET /a', 'GET /a'].map(
        (text) => `one ${text}`,
      ),
    );
    socket.destroy();
  });

  test('is answered for the client at hand: HTTP/1.0 and closing ones beside others', async () => {
    for (const [request, connection] of [
      ['GET /c HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n', 'Connection: close'],
      ['GET /c HTTP/1.0\r\nHost: app.test\r\n\r\n', 'Connection: close'],
    ] as const) {
      const kept = connect({ host: '127.0.0.1', port: edge.httpPort });
      const get = 'GET /c HTTP/1.1\r\nHost: app.test\r\n\r\n';
      expect(await inTurn(kept, [get, get, get])).toEqual(['one', 'one', 'one']);
      const closing = connect({ host: '127.0.0.1', port: edge.httpPort });
      closing.write(request);
      expect(await readAll(closing)).toContain(`\r\n${connection}\r\n`);
      expect(await inTurn(kept, [get, get])).toEqual(['one', 'one']);
      kept.destroy();
    }
  });
});

function post(path: string, body: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${String(body.length)}\r\n\r\n${body}`;
}

/** The body of the one answer to `request`. It has a length, and none after HEAD; it never says that the connection closes. */
async function answerTo(socket: Socket, request: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = '';
  const onData = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    const end = text.indexOf('\r\n\r\n');
    const length = request.startsWith('HEAD') ? 0 : 3;
    if (end === -1 || text.length < end + 4 + length) return;
    if (text.length > end + 4 + length || /\r\nconnection:/i.test(text)) reject(new Error(`not one answer: ${text}`));
    else resolve(text.slice(end + 4));
  };
  socket.on('data', onData);
  socket.write(request);
  try {
    return await promise;
  } finally {
    socket.off('data', onData);
  }
}
