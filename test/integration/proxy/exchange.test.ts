/** Requests through real workers, over real sockets. */
import { createHash, randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { configOf, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, exchangeBytes, open, readAll, readUntil } from '../../support/http-client.ts';
import { HELD_BACK_BYTES } from '../../support/raw-scripted.ts';
import { bodyOf, startRawUpstream, startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream, Upstream } from '../../support/upstream.ts';

const MIB = 1024 * 1024;

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function serve(request: IncomingMessage, response: ServerResponse, payload: Buffer): Promise<void> {
  if (request.url === '/big') response.end(payload);
  else if (request.url === '/sum') response.end(sha256(await bodyOf(request)));
  else if (request.url === '/headers') response.end(JSON.stringify(request.rawHeaders));
  else if (request.url === '/trailers') {
    await bodyOf(request);
    response.end(JSON.stringify(request.rawTrailers));
  } else if (request.url === '/nothing') response.writeHead(204).end();
  else response.end(`${request.method ?? ''} ${request.url ?? ''}`);
}

describe('an exchange with one endpoint', () => {
  let upstream: HttpUpstream;
  let raw: Upstream;
  let edge: Edge;
  let served = 0;
  const payload = randomBytes(10 * MIB);

  beforeAll(async () => {
    upstream = await startUpstream((request, response) => {
      served += 1;
      void serve(request, response, payload);
    });
    raw = await startRawUpstream((socket) => {
      socket.once('data', (chunk: Buffer) => {
        const text = chunk.toString('latin1');
        if (text.startsWith('GET /raw/cut')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf');
        else if (text.startsWith('GET /raw/chunkcut'))
          socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n');
        else if (text.startsWith('GET /raw/both')) {
          socket.end('HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n');
        } else if (text.startsWith('GET /raw/early')) {
          socket.end(
            'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nX-Up: 1\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok',
          );
        } else if (text.startsWith('GET /raw/trailers')) {
          socket.end('HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n');
        } else if (text.startsWith('GET /raw/die')) socket.destroy();
        else if (text.startsWith('GET /raw/echo'))
          socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${String(chunk.length)}\r\n\r\n${text}`);
        else socket.end('HTTP/1.1 500 What\r\nContent-Length: 0\r\n\r\n');
      });
    });
    const config = configOf([upstream.endpoint()]);
    edge = await startEdge({
      config: {
        ...config,
        services: [...config.services, { id: 'raw', tenant: 'umbrella', endpoints: [raw.endpoint({ hostName: 'beta' })] }],
        routes: [...config.routes, { host: 'app.test', path: '/raw', serviceId: 'raw' }],
      },
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
    await raw[Symbol.asyncDispose]();
  });

  test('answers by host and prefix', async () => {
    const answer = await ask({ port: edge.httpPort, path: '/hello?x=1' });
    expect(answer.status).toBe(200);
    expect(answer.body.toString()).toBe('GET /hello?x=1');
  });

  test('answers 404 to an unknown host', async () => {
    const answer = await ask({ port: edge.httpPort, host: 'nobody.test' });
    expect(answer.status).toBe(404);
    expect(answer.headers['proxy-status']).toBe('ecluse; error=destination_not_found');
  });

  test('streams 10 MiB down unchanged', async () => {
    const answer = await ask({ port: edge.httpPort, path: '/big' });
    expect(sha256(answer.body)).toBe(sha256(payload));
  });

  test('streams 10 MiB up unchanged, with a length and chunked', async () => {
    const fixed = await ask({
      port: edge.httpPort,
      method: 'POST',
      path: '/sum',
      body: payload,
      headers: { 'content-length': payload.length },
    });
    const chunked = await ask({
      port: edge.httpPort,
      method: 'DELETE',
      path: '/sum',
      body: payload,
      headers: { 'transfer-encoding': 'chunked' },
    });
    expect([fixed.body.toString(), chunked.body.toString()]).toEqual([sha256(payload), sha256(payload)]);
  });

  test('keeps order and case of fields, drops hop-by-hop and forged ones, adds its own', async () => {
    const text = await exchangeBytes(
      edge.httpPort,
      'GET /raw/echo HTTP/1.1\r\nhOsT: app.test\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_Proto: https\r\n' +
        'X-Ecluse-Host: evil\r\nConnection: close, x-secret\r\nX-Secret: 1\r\nX-Request-Id: abc-1\r\ntraceparent: 00-x\r\n\r\n',
    );
    const seen = text.slice(text.indexOf('GET /raw/echo'));
    expect(seen.split('\r\n').slice(0, 11)).toEqual([
      'GET /raw/echo HTTP/1.1',
      'hOsT: app.test',
      'X-B: 1',
      'x-a: 2',
      'X-B: 3',
      'traceparent: 00-x',
      'X-Forwarded-For: 127.0.0.1',
      'X-Forwarded-Proto: http',
      'X-Ecluse-Host: beta',
      'X-Forwarded-Host: app.test',
      'Forwarded: for=127.0.0.1;proto=http;host="app.test"',
    ]);
    expect(seen).not.toMatch(/evil|6\.6\.6\.6|x-secret|abc-1/i);
  });

  test('passes 103 and strips what the endpoint nominates', async () => {
    const text = await exchangeBytes(edge.httpPort, 'GET /raw/early HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n');
    expect(text).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n/);
    expect(text).toMatch(/HTTP\/1\.1 200 OK\r\nX-Up: 1\r\n/);
    expect(text).not.toMatch(/x-hop/i);
  });

  test('passes trailers both ways', async () => {
    const down = await ask({ port: edge.httpPort, path: '/raw/trailers' });
    expect(down.trailers).toEqual({ 'x-sum': '7' });
    const up = await exchangeBytes(
      edge.httpPort,
      'POST /trailers HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Up-Sum: 9\r\n\r\n',
    );
    expect(up).toContain('["X-Up-Sum","9"]');
  });

  test('shows a body that ends early, framed by length or in chunks', async () => {
    await expect(ask({ port: edge.httpPort, path: '/raw/cut' })).rejects.toThrow('aborted');
    await expect(ask({ port: edge.httpPort, path: '/raw/chunkcut' })).rejects.toThrow('aborted');
  });

  test('answers 502 where the endpoint dies or contradicts itself', async () => {
    const died = await ask({ port: edge.httpPort, path: '/raw/die' });
    const both = await ask({ port: edge.httpPort, path: '/raw/both' });
    expect([died.status, both.status]).toEqual([502, 502]);
    expect(both.headers['proxy-status']).toBe('ecluse; error=http_protocol_error');
  });

  test('answers HEAD, 204 and requests without a length right', async () => {
    const head = await ask({ port: edge.httpPort, method: 'HEAD', path: '/hello' });
    const nothing = await ask({ port: edge.httpPort, path: '/nothing' });
    const post = await ask({ port: edge.httpPort, method: 'POST', path: '/sum' });
    expect([head.status, head.body.length, nothing.status, post.body.toString()]).toEqual([200, 0, 204, sha256(Buffer.alloc(0))]);
  });

  test('lets the endpoint answer Expect: 100-continue', async () => {
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort });
    socket.write(
      'POST /sum HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n',
    );
    expect(await readUntil(socket, '\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n');
    socket.write('ok');
    expect(await readAll(socket)).toContain(sha256(Buffer.from('ok')));
  });

  test.each([
    ['CL and TE', 'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n', '400'],
    ['two CL', 'Content-Length: 4\r\nContent-Length: 4\r\n', 'abcd', '400'],
    ['TE other than chunked', 'Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n', '501'],
    ['odd TE', 'Transfer-Encoding: xchunked\r\n', '0\r\n\r\n', '501'],
    ['two Host', 'Host: other.test\r\n', '', '400'],
    ['space before colon', 'Content-Length : 4\r\n', 'abcd', '400'],
    ['obs-fold', 'X-A: 1\r\n 2\r\n', '', '400'],
  ])('refuses %s, and nothing reaches the endpoint', async (_title, fields, body, status) => {
    const before = served;
    const text = await exchangeBytes(edge.httpPort, `POST /sum HTTP/1.1\r\nHost: app.test\r\n${fields}\r\n${body}`);
    expect(text.slice(0, 13)).toBe(`HTTP/1.1 ${status} `);
    expect(served).toBe(before);
  });

  test('stops reading from a fast endpoint while the client does not read', async () => {
    let sent = 0;
    await using fast = await startRawUpstream((socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n');
        const chunk = Buffer.alloc(MIB);
        const push = (): void => {
          let more = true;
          while (more) {
            more = socket.write(chunk);
            sent += chunk.length;
          }
        };
        socket.on('drain', push);
        push();
      });
    });
    await using slow = await startEdge({ config: configOf([fast.endpoint()]) });
    const response = await open({ port: slow.httpPort });
    response.pause();
    // Steady once all buffers are full: the same amount over many turns.
    let last = -1;
    let steady = 0;
    while (steady < 20) {
      steady = sent === last ? steady + 1 : 0;
      last = sent;
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
    expect(sent).toBeLessThan(HELD_BACK_BYTES / 2);
    response.destroy();
  });
});
