/** CONNECT: refused, unless the route says that it is passed on; then a tunnel to the endpoint alone, never to where the client points. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { exchangeBytes, readAll, readUntil } from '../../support/http-client.ts';
import { startRawUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

describe('CONNECT', () => {
  const heads: string[] = [];
  let endpoint: Upstream;
  let edge: Edge;

  beforeAll(async () => {
    endpoint = await startRawUpstream((socket: Socket) => {
      socket.once('data', (chunk: Buffer) => {
        const head = chunk.toString('latin1');
        heads.push(head);
        if (head.includes('refused.test')) {
          socket.end('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno');
          return;
        }
        socket.write('HTTP/1.1 200 Yes\r\n\r\n');
        socket.pipe(socket);
      });
    });
    const services = [{ id: 'app', tenant: 'acme', endpoints: [endpoint.endpoint({ id: 'c1' })] }];
    edge = await startEdge({
      config: {
        version: 1,
        services,
        routes: [
          { host: 'tunnel.test', path: '/', serviceId: 'app', connect: true },
          { host: 'refused.test', path: '/', serviceId: 'app', connect: true },
          { host: 'plain.test', path: '/', serviceId: 'app' },
        ],
      },
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  test.each(['plain.test', 'unknown.test'])('to %s is refused, and nothing reaches an endpoint', async (host) => {
    heads.length = 0;
    const text = await exchangeBytes(edge.httpPort, `CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 405 .*\r\nProxy-Status: ecluse; error=http_request_denied\r\n/s);
    expect(heads).toEqual([]);
  });

  test('where the route allows it: a tunnel both ways, with half-close', async () => {
    heads.length = 0;
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort, allowHalfOpen: true });
    socket.write('CONNECT tunnel.test:443 HTTP/1.1\r\nHost: tunnel.test:443\r\n\r\n');
    const answer = await readUntil(socket, '\r\n\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 200 Yes\r\n/);
    expect(answer).not.toMatch(/connection|content-length|transfer-encoding/i);
    const rest = readAll(socket);
    socket.write('GET / HTTP/1.1\r\n\r\n'); // No request any more.
    socket.end('last');
    expect(await rest).toBe('GET / HTTP/1.1\r\n\r\nlast');
    expect(heads).toHaveLength(1);
    expect(heads[0]).toMatch(/^CONNECT tunnel\.test:443 HTTP\/1\.1\r\n/);
    const [line] = (await edge.accessLog(1)).filter(({ host, status }) => host === 'tunnel.test' && status === 200);
    expect([line?.method, line?.downstreamOutBytes, line?.errorCode]).toEqual(['CONNECT', expect.any(Number), null]);
  });

  test('that the endpoint does not take is answered, and the connection closes', async () => {
    const text = await exchangeBytes(edge.httpPort, 'CONNECT refused.test:443 HTTP/1.1\r\nHost: refused.test:443\r\n\r\n');
    expect(text).toMatch(/^HTTP\/1\.1 403 No\r\n/);
    expect(text.endsWith('\r\n\r\nno')).toBe(true);
  });
});
