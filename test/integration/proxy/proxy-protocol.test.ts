/** PROXY headers: those of proxies in front of the edge, and those that endpoints want from it. */
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AccessLogLine } from '#proxy/access-log-schema.ts';
import type { RouteConfig } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, exchangeBytes, readAll, readUntil } from '../../support/http-client.ts';
import { RawClient } from '../../support/raw-client.ts';
import { echo, startRawEndpoint } from '../../support/raw-endpoint.ts';
import type { RawEndpoint } from '../../support/raw-endpoint.ts';
import type { RawMessage } from '../../support/raw-message.ts';
import { valuesOf } from '../../support/raw-message.ts';
import { write } from '../../support/raw-scripted.ts';
import { startRawUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

const SIGNATURE = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
const V1 = Buffer.from('PROXY TCP4 203.0.113.9 192.0.2.80 51000 443\r\n', 'latin1');
const V1_SIX = Buffer.from('PROXY TCP6 2001:db8::9 2001:db8::1 51000 443\r\n', 'latin1');
const V2 = Buffer.concat([SIGNATURE, Buffer.from([0x21, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 80, 0xc7, 0x38, 0x01, 0xbb])]);
const V2_LOCAL = Buffer.concat([SIGNATURE, Buffer.from([0x20, 0x00, 0, 0])]);
const LAST = 'Connection: close\r\n';

let certificate: EdgeCertificate;

beforeAll(async () => {
  certificate = await makeCertificate('app.test');
});

const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\nHost: app.test\r\n${fields}\r\n`;

function forwardedFor(message: RawMessage | undefined): string[] {
  return message === undefined ? [] : valuesOf(message, 'x-forwarded-for');
}

describe('connections of a trusted proxy', () => {
  let edge: Edge;
  let endpoint: RawEndpoint;
  let serial = 0;

  beforeAll(async () => {
    endpoint = await startRawEndpoint({
      onRequest: (whole) => {
        const { message, connection } = whole;
        if (message.target.startsWith('/switch')) {
          write(connection, 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
          connection.socket.on('data', (chunk: Buffer) =>
            connection.socket.write(chunk.toString('latin1').toUpperCase(), 'latin1'),
          );
        } else echo(whole);
      },
    });
    edge = await startEdge({
      config: configOf([endpoint.endpoint()]),
      certificates: [certificate],
      trust: { trustedProxies: ['127.0.0.1'], proxyProtocol: true },
      limits: { tlsHandshakesMax: 2, headTimeoutMs: 700 },
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  function target(): string {
    serial += 1;
    return `/of/${String(serial)}`;
  }

  function seen(wanted: string): RawMessage | undefined {
    return endpoint.seen.find(({ message }) => message.target === wanted)?.message;
  }

  async function lineOf(path: string): Promise<AccessLogLine> {
    return await eventually(async () => (await edge.accessLog(0)).find((line) => line.path === path));
  }

  function dial(port: number): Socket {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    socket.on('error', () => undefined);
    return socket;
  }

  test.each([
    ['version 1', V1, '203.0.113.9'],
    ['version 1 with IPv6', V1_SIX, '2001:db8::9'],
    ['version 2', V2, '203.0.113.9'],
    ['version 2 of the proxy itself', V2_LOCAL, '127.0.0.1'],
  ])('begin with a header of %s', async (_name, header, client) => {
    const path = target();
    const socket = dial(edge.httpPort);
    socket.write(Buffer.concat([header, Buffer.from(get(path, LAST))]));
    expect(await readAll(socket)).toContain('200 OK');
    expect(forwardedFor(seen(path))).toEqual([client]);
    expect((await lineOf(path)).client).toBe(client);
  });

  test.each([
    ['version 1', V1],
    ['version 2', V2],
  ])('may bring a header of %s octet by octet, and the request later', async (_name, header) => {
    const path = target();
    const socket = dial(edge.httpPort);
    for (const octet of header) {
      socket.write(Buffer.from([octet]));
      await sleep(2);
    }
    await sleep(50);
    socket.write(get(path, LAST));
    expect(await readAll(socket)).toContain('200 OK');
    expect(forwardedFor(seen(path))).toEqual(['203.0.113.9']);
  });

  test('are those of one client, for all requests', async () => {
    using client = await RawClient.open({ port: edge.httpPort });
    client.send(V1);
    const paths = [target(), target(), target()];
    for (const path of paths) expect((await client.ask(get(path))).status).toBe(200);
    expect(paths.map((path) => forwardedFor(seen(path)))).toEqual([['203.0.113.9'], ['203.0.113.9'], ['203.0.113.9']]);
  });

  test('whose header names a stranger: what that one says of others is not believed', async () => {
    const path = target();
    const socket = dial(edge.httpPort);
    socket.write(Buffer.concat([V1, Buffer.from(get(path, `X-Forwarded-For: 198.51.100.1\r\nX-Request-Id: mine\r\n${LAST}`))]));
    await readAll(socket);
    expect(forwardedFor(seen(path))).toEqual(['203.0.113.9']);
    expect(valuesOf(seen(path) ?? { fields: [] }, 'x-request-id')).not.toEqual(['mine']);
  });

  test.each([
    ['no header', Buffer.from(get('/none'))],
    ['a header of version 1 that is cut short', Buffer.from('PROXY TCP4 203.0.113.9\r\n')],
    ['a header of an unknown version', Buffer.concat([SIGNATURE, Buffer.from([0x31, 0x11, 0, 12]), Buffer.alloc(12)])],
  ])('with %s are closed without a word', async (_name, bytes) => {
    expect(await exchangeBytes(edge.httpPort, bytes.toString('latin1'))).toBe('');
  });

  test('on which no header comes are closed in time', async () => {
    const startMs = performance.now();
    const socket = dial(edge.httpPort);
    socket.write(V1.subarray(0, 9));
    expect(await readAll(socket)).toBe('');
    expect(performance.now() - startMs).toBeLessThan(700 + 550);
  });

  test('carry long bodies', async () => {
    using client = await RawClient.open({ port: edge.httpPort });
    const length = 3 * 1024 * 1024;
    const path = target();
    client.expect('POST');
    client.send(
      Buffer.concat([V2, Buffer.from(`POST ${path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${String(length)}\r\n\r\nxx`)]),
    );
    client.send(Buffer.alloc(length - 2, 'x'));
    const [answer] = await client.answers(1);
    expect(answer?.body, client.state).toBe(` POST ${path} ${String(length)}`);
    expect(seen(path)?.body).toBe('x'.repeat(length));
  });

  test.each([
    ['in one write with the request', true],
    ['before the request', false],
  ])('can be upgraded, with the header %s', async (_name, together) => {
    const path = `/switch${target()}`;
    const request = Buffer.from(get(path, 'Connection: Upgrade\r\nUpgrade: echo\r\n'));
    const socket = dial(edge.httpPort);
    if (together) socket.write(Buffer.concat([V1, request]));
    else {
      socket.write(V1);
      await sleep(100);
      socket.write(request);
    }
    expect(await readUntil(socket, '\r\n\r\n')).toContain('101 Switching Protocols');
    socket.write('hello');
    const echoed = await Promise.race([readUntil(socket, 'HELLO'), sleep(2_000, 'nothing came back', { ref: false })]);
    expect(echoed).toBe('HELLO');
    socket.write('again');
    expect(await Promise.race([readUntil(socket, 'AGAIN'), sleep(2_000, 'nothing came back', { ref: false })])).toBe('AGAIN');
    socket.destroy();
  });

  /** Asks over TLS through a proxy that writes `header` first: in one segment with the handshake, or before it. */
  async function askSecure(header: Buffer, together: boolean, path: string): Promise<string> {
    const relay = createServer((client) => {
      const out = dial(edge.httpsPort);
      let ahead = header;
      if (!together) {
        out.write(header);
        ahead = Buffer.alloc(0);
      }
      client.on('error', () => undefined);
      client.on('data', (chunk: Buffer) => {
        out.write(Buffer.concat([ahead, chunk]));
        ahead = Buffer.alloc(0);
      });
      out.on('data', (chunk: Buffer) => client.write(chunk));
      out.on('close', () => client.destroy());
      client.on('close', () => out.destroy());
    });
    const { promise, resolve } = Promise.withResolvers<undefined>();
    relay.listen({ host: '127.0.0.1', port: 0 }, () => {
      resolve(undefined);
    });
    await promise;
    const address = relay.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const secure = connectTls({ host: '127.0.0.1', port, servername: 'app.test', rejectUnauthorized: false });
    secure.write(get(path, LAST));
    try {
      return await readAll(secure);
    } finally {
      relay.close();
    }
  }

  test.each([
    ['version 1, in one piece with the handshake', V1, true],
    ['version 1, before the handshake', V1, false],
    ['version 2, in one piece with the handshake', V2, true],
    ['version 2, before the handshake', V2, false],
  ])('over TLS begin with a header of %s', async (_name, header, together) => {
    const path = target();
    expect(await askSecure(header, together, path)).toContain('200 OK');
    const message = seen(path);
    expect([forwardedFor(message), valuesOf(message ?? { fields: [] }, 'x-forwarded-proto')]).toEqual([
      ['203.0.113.9'],
      ['https'],
    ]);
    expect(await lineOf(path)).toMatchObject({ client: '203.0.113.9', sni: 'app.test', tlsVersion: 'TLSv1.3', alpn: null });
  });

  test('over TLS without a header are closed', async () => {
    await expect(ask({ port: edge.httpsPort, serverName: 'app.test' })).rejects.toThrow(/./);
  });

  test('over TLS are limited in handshakes; the places come back', async () => {
    for (let round = 0; round < 4; round += 1) {
      const silent = [dial(edge.httpsPort), dial(edge.httpsPort)];
      for (const socket of silent) socket.write(V1);
      await sleep(50);
      const refused = dial(edge.httpsPort);
      refused.write(V1);
      expect(await readAll(refused)).toBe('');
      for (const socket of silent) socket.destroy();
      await sleep(50);
      expect(await askSecure(V1, false, target()), `round ${String(round)}`).toContain('200 OK');
    }
  });
});

describe('connections of others', () => {
  let edge: Edge;
  let endpoint: RawEndpoint;

  beforeAll(async () => {
    endpoint = await startRawEndpoint();
    edge = await startEdge({
      config: configOf([endpoint.endpoint()]),
      certificates: [certificate],
      trust: { trustedProxies: ['192.0.2.1'], proxyProtocol: true },
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  test('have no header', async () => {
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
    expect((await ask({ port: edge.httpsPort, serverName: 'app.test' })).status).toBe(200);
    expect(forwardedFor(endpoint.seen.at(-1)?.message)).toEqual(['127.0.0.1']);
  });

  test.each([
    ['version 1', V1],
    ['version 2', V2],
  ])('with a header of %s are refused as malformed HTTP', async (_name, header) => {
    const before = endpoint.seen.length;
    const text = await exchangeBytes(edge.httpPort, header.toString('latin1') + get('/', LAST));
    expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(text).toContain('Proxy-Status: ecluse; error=http_request_error');
    expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(endpoint.seen).toHaveLength(before);
  });

  test('with a header over TLS are closed', async () => {
    expect(await exchangeBytes(edge.httpsPort, V1.toString('latin1'))).not.toContain('HTTP');
  });
});

describe('endpoints that want a header', () => {
  interface Received {
    bytes: Buffer;
    readonly socket: Socket;
  }

  let endpoint: Upstream;
  let edge: Edge;
  let behindProxy: Edge;
  let connections: Received[];

  beforeAll(async () => {
    connections = [];
    endpoint = await startRawUpstream((socket) => {
      const received: Received = { bytes: Buffer.alloc(0), socket };
      connections.push(received);
      let answered = 0;
      socket.on('data', (chunk: Buffer) => {
        received.bytes = Buffer.concat([received.bytes, chunk]);
        const requests = received.bytes
          .toString('latin1')
          .split('\r\n\r\n')
          .filter((text) => text.includes('HTTP/1.1')).length;
        for (; answered < requests; answered += 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
      socket.on('end', () => socket.end());
    });
    const config: RouteConfig = {
      version: 1,
      services: ([1, 2] as const).map((sendProxy) => ({
        id: `v${String(sendProxy)}`,
        tenant: 'acme',
        sendProxy,
        endpoints: [endpoint.endpoint({ id: `e${String(sendProxy)}` })],
      })),
      routes: [1, 2].map((version) => ({ host: `v${String(version)}.test`, path: '/', serviceId: `v${String(version)}` })),
    };
    edge = await startEdge({ config });
    behindProxy = await startEdge({ config, trust: { trustedProxies: ['127.0.0.1'], proxyProtocol: true } });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await behindProxy[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  const request = (version: number, path: string): string => `GET ${path} HTTP/1.1\r\nHost: v${String(version)}.test\r\n\r\n`;
  const connectionOf = (path: string): Buffer[] =>
    connections.filter(({ bytes }) => bytes.toString('latin1').includes(`GET ${path} `)).map(({ bytes }) => bytes);

  function versionTwo(
    source: readonly number[],
    sourcePort: number,
    destination: readonly number[],
    destinationPort: number,
  ): Buffer {
    const ports = Buffer.alloc(4);
    ports.writeUInt16BE(sourcePort, 0);
    ports.writeUInt16BE(destinationPort, 2);
    return Buffer.concat([SIGNATURE, Buffer.from([0x21, 0x11, 0, 12, ...source, ...destination]), ports]);
  }

  test('of version 1 get it before the request', async () => {
    using client = await RawClient.open({ port: edge.httpPort });
    expect((await client.ask(request(1, '/one'))).status).toBe(200);
    const [bytes] = connectionOf('/one');
    const header = `PROXY TCP4 127.0.0.1 127.0.0.1 ${String(client.socket.localPort)} ${String(edge.httpPort)}\r\n`;
    expect(bytes?.toString('latin1')).toMatch(new RegExp(`^${header}GET /one HTTP/1.1\r\n`));
  });

  test('of version 2 get it before the request', async () => {
    using client = await RawClient.open({ port: edge.httpPort });
    expect((await client.ask(request(2, '/two'))).status).toBe(200);
    const [bytes] = connectionOf('/two');
    const header = versionTwo([127, 0, 0, 1], client.socket.localPort ?? 0, [127, 0, 0, 1], edge.httpPort);
    expect(bytes?.subarray(0, header.length)).toEqual(header);
    expect(bytes?.toString('latin1', header.length)).toMatch(/^GET \/two HTTP\/1\.1\r\n/);
  });

  test('are told what a PROXY header of a trusted proxy tells', async () => {
    for (const version of [1, 2]) {
      using client = await RawClient.open({ port: behindProxy.httpPort });
      client.send(V2);
      expect((await client.ask(request(version, `/told/${String(version)}`))).status).toBe(200);
    }
    expect(connectionOf('/told/1')[0]?.subarray(0, V1.length).toString('latin1')).toBe(V1.toString('latin1'));
    expect(connectionOf('/told/2')[0]?.subarray(0, V2.length)).toEqual(V2);
  });

  test('never get two clients over one connection', async () => {
    const paths: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      using one = await RawClient.open({ port: edge.httpPort });
      using other = await RawClient.open({ port: edge.httpPort });
      for (const client of [one, other, one]) {
        const path = `/many/${String(paths.length)}`;
        paths.push(path);
        expect((await client.ask(request(1, path))).status, client.state).toBe(200);
        const [bytes, ...more] = connectionOf(path);
        expect(more).toEqual([]);
        const [head = ''] = (bytes?.toString('latin1') ?? '').split('\r\n');
        expect(head).toBe(`PROXY TCP4 127.0.0.1 127.0.0.1 ${String(client.socket.localPort)} ${String(edge.httpPort)}`);
      }
    }
    const headers = connections.map(({ bytes }) => bytes.toString('latin1').match(/PROXY /g)?.length ?? 1);
    expect(Math.max(...headers)).toBe(1);
  });

  test('keep no idle connection', async () => {
    using client = await RawClient.open({ port: edge.httpPort });
    await client.ask(request(2, '/last'));
    await eventually(() => (connections.every(({ socket }) => socket.readableEnded || socket.destroyed) ? true : undefined));
    expect(await edge.pool.metrics()).toContain('ecluse_upstream_idle_connections 0');
  });
});
