/** How TLS is spoken, through real workers: redirects, HSTS, versions, suites, tickets whose keys change, and certificates that are replaced. */
import { randomBytes } from 'node:crypto';
import { connect } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { codeOf } from '#errors';
import { routeTlsOf } from '#routing/operator/tls-schema.ts';
import type { RouteTlsSettings } from '#routing/operator/tls-schema.ts';
import type { Route, RouteConfig } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge, EdgeOptions } from '../../support/edge.ts';
import { ask, exchangeBytes } from '../../support/http-client.ts';
import { SecureClient } from '../../support/secure-client.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

let upstream: HttpUpstream;
let edge: Edge | undefined;
let certificate: EdgeCertificate;

beforeEach(async () => {
  certificate = { ...(await makeCertificate('a.test')), hosts: ['*.test'] };
  upstream = await startUpstream((request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n');
      return;
    }
    response.writeHead(200, { 'strict-transport-security': 'max-age=1' }).end('app');
  });
});

afterEach(async () => {
  await edge?.[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});

function route(host: string, tls?: RouteTlsSettings, more: Partial<Route> = {}): Route {
  return { host, path: '/', serviceId: 'app', ...(tls === undefined ? {} : { tls: routeTlsOf(tls) }), ...more };
}

function configWith(routes: readonly Route[], version = 1): RouteConfig {
  return { version, services: [{ id: 'app', tenant: 'acme', endpoints: [upstream.endpoint()] }], routes };
}

async function open(options: Partial<EdgeOptions>, ...routes: readonly Route[]): Promise<Edge> {
  edge = await startEdge({ config: configWith(routes), certificates: [certificate], ...options });
  return edge;
}

test('plain HTTP is sent to HTTPS with path, query and method, where the node or the route wants it', async () => {
  const { httpPort, httpsPort } = await open(
    { redirect: true },
    route('app.test'),
    route('plain.test', { redirect: false }),
    route('app.test', { redirect: false }, { path: '/health' }),
  );
  const moved = await ask({ port: httpPort, path: '/a%20b/?x=1&y=/', method: 'POST', body: 'text' });
  expect([moved.status, moved.headers.location]).toEqual([308, `https://app.test:${String(httpsPort)}/a%20b/?x=1&y=/`]);
  expect((await ask({ port: httpPort, host: 'plain.test' })).status).toBe(200);
  expect((await ask({ port: httpPort, path: '/health' })).status).toBe(200);
  expect((await ask({ port: httpsPort, serverName: 'app.test' })).status).toBe(200);
  expect((await ask({ port: httpPort, host: 'nobody.test' })).status).toBe(404);
  // What a client writes as its host becomes no other: the host is the one that the route has.
  const odd = await exchangeBytes(httpPort, 'GET //evil.test/x HTTP/1.1\r\nHost: APP.test:80\r\nConnection: close\r\n\r\n');
  expect(odd).toContain(`\r\nLocation: https://app.test:${String(httpsPort)}//evil.test/x\r\n`);
  const absolute = await exchangeBytes(httpPort, 'GET http://app.test/y HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n');
  expect(absolute).toContain(`\r\nLocation: https://app.test:${String(httpsPort)}/y\r\n`);
});

test('a route may want it by itself; a proxy that has done TLS is not sent in circles, and nobody else is believed', async () => {
  const headers = { 'x-forwarded-proto': 'https' };
  const first = await open({}, route('app.test', { redirect: true }), route('plain.test'));
  expect((await ask({ port: first.httpPort })).status).toBe(308);
  expect((await ask({ port: first.httpPort, headers })).status).toBe(308);
  expect((await ask({ port: first.httpPort, host: 'plain.test' })).status).toBe(200);
  await first[Symbol.asyncDispose]();
  const trusting = await open(
    { trust: { trustedProxies: ['127.0.0.1'], proxyProtocol: false } },
    route('app.test', { redirect: true }),
  );
  expect((await ask({ port: trusting.httpPort, headers })).status).toBe(200);
  expect((await ask({ port: trusting.httpPort, headers: { 'x-forwarded-proto': 'http' } })).status).toBe(308);
  expect((await ask({ port: trusting.httpPort })).status).toBe(308);
});

test('HSTS is said over HTTPS only, once, by routes that want it, in answers of ours too', async () => {
  const tls = { hsts: { maxAge: '365d', includeSubDomains: true, preload: true } } as const;
  const own = { serviceId: '', tenant: '_operator', actions: { redirect: { to: '/x', status: 302 } } };
  const { httpPort, httpsPort } = await open(
    {},
    route('app.test', tls),
    route('app.test', tls, { path: '/moved', ...own }),
    route('other.test'),
  );
  const value = 'max-age=31536000; includeSubDomains; preload';
  const field = async (options: Parameters<typeof ask>[0]): Promise<readonly string[]> => {
    const { rawHeaders } = await ask(options);
    return rawHeaders.filter((_, index) => rawHeaders[index - 1]?.toLowerCase() === 'strict-transport-security');
  };
  const secure = { port: httpsPort, serverName: 'app.test' };
  expect(await field(secure)).toEqual([value]);
  expect(await field({ ...secure, path: '/moved' })).toEqual([value]);
  expect(await field({ port: httpPort })).toEqual(['max-age=1']); // The endpoint's own affair.
  expect(await field({ port: httpPort, path: '/moved' })).toEqual([]);
  expect(await field({ ...secure, host: 'other.test' })).toEqual(['max-age=1']);
});

test('versions, suites and renegotiation', async () => {
  const { httpsPort: port } = await open({}, route('app.test'));
  const shaken = async (options: object): Promise<string> => {
    try {
      using client = await SecureClient.open({ port, servername: 'app.test', ...options });
      return `${String(client.socket.getProtocol())} ${client.socket.getCipher().standardName}`;
    } catch (error) {
      return String(codeOf(error));
    }
  };
  expect(await shaken({})).toBe('TLSv1.3 TLS_AES_128_GCM_SHA256');
  const old = { maxVersion: 'TLSv1.2' };
  expect(await shaken({ ...old, ciphers: 'AES256-SHA:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256' })).toBe(
    'TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256',
  );
  for (const ciphers of ['ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES256-SHA', 'AES128-GCM-SHA256'])
    expect(await shaken({ ...old, ciphers })).toMatch(/HANDSHAKE_FAILURE/);
  expect(await shaken({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' })).toMatch(/PROTOCOL_VERSION/);
  const asked = connect({ host: '127.0.0.1', port, servername: 'app.test', rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
  const { promise, resolve } = Promise.withResolvers<unknown>();
  asked.once('error', resolve).on('error', () => undefined); // What follows the first.
  asked.once('secureConnect', () => asked.renegotiate({}, () => undefined));
  expect(await promise).toMatchObject({ code: 'ERR_SSL_NO_RENEGOTIATION' });
  asked.destroy();
});

test('ticket keys: a session is resumed by every worker, and not with the keys of before', async () => {
  const { httpsPort: port, pool } = await open({ workers: 3, ticketKeys: randomBytes(48) }, route('app.test'));
  const ticket = async (): Promise<Buffer | undefined> => {
    using client = await SecureClient.open({ port, servername: 'app.test' });
    await client.get('app.test');
    return client.session;
  };
  const resumed = async (session: Buffer | undefined): Promise<readonly boolean[]> => {
    const found: boolean[] = [];
    for (let round = 0; round < 12; round += 1) {
      using client = await SecureClient.open({ port, servername: 'app.test', session });
      expect((await client.get('app.test')).status).toBe(200);
      found.push(client.socket.isSessionReused());
    }
    return [...new Set(found)];
  };
  const before = await ticket();
  expect(await resumed(before)).toEqual([true]);
  await pool.useTicketKeys(randomBytes(48));
  expect(await resumed(before)).toEqual([false]);
  expect(await resumed(await ticket())).toEqual([true]);
  // Another default certificate makes contexts anew; the keys stay.
  const session = await ticket();
  await edge?.apply(configWith([route('app.test')], 2), [certificate, await makeCertificate('*')]);
  expect(await resumed(session)).toEqual([true]);
});

test('a replaced certificate is served at the next handshake by every worker, and no open connection is cut', async () => {
  const workers = 3;
  const { httpsPort: port } = await open({ workers }, route('app.test'));
  const shown = async (): Promise<string> => {
    using client = await SecureClient.open({ port, servername: 'app.test' });
    return client.socket.getPeerCertificate().fingerprint256;
  };
  const all = async (): Promise<ReadonlySet<string>> => new Set(await Promise.all(Array.from({ length: 60 }, shown)));
  const before = await all();
  expect(before.size).toBe(1);
  const kept = await Promise.all(
    Array.from({ length: 12 }, async () => await SecureClient.open({ port, servername: 'app.test' })),
  );
  for (const client of kept) await client.get('app.test');
  const stream = await SecureClient.open({ port, servername: 'app.test' });
  let events = '';
  stream.socket.on('data', (chunk: Buffer) => (events += chunk.toString()));
  stream.socket.write('GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n');
  await eventually(() => (events.includes('data: 1') ? true : undefined));
  const socket = await SecureClient.open({ port, servername: 'app.test' });
  upstream.server.once('upgrade', (_request, raw) => {
    raw.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    raw.on('data', (chunk: Buffer) => raw.write(chunk));
  });
  let echoed = '';
  socket.socket.on('data', (chunk: Buffer) => (echoed += chunk.toString()));
  socket.socket.write('GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await eventually(() => (echoed.includes('101') ? true : undefined));

  const replaced = { ...(await makeCertificate('a.test')), hosts: ['*.test'] };
  await edge?.apply(configWith([route('app.test')], 2), [{ ...replaced, name: certificate.name }]);

  const after = await all();
  expect(after.size).toBe(1);
  expect([...after]).not.toEqual([...before]);
  for (const client of kept) expect((await client.get('app.test')).status).toBe(200);
  socket.socket.write('still here');
  await eventually(() => (echoed.includes('still here') ? true : undefined));
  expect([stream.closed, socket.closed, ...kept.map(({ closed }) => closed)]).not.toContain(true);
  for (const client of [...kept, stream, socket]) client[Symbol.dispose]();
});
