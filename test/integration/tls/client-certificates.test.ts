/** Certificates of clients, through real workers: who is asked, who is let through, what endpoints hear of it, and which connections are for which host. */
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tryCommand } from '#command';
import { routeTlsOf } from '#routing/operator/tls-schema.ts';
import type { RouteTlsSettings } from '#routing/operator/tls-schema.ts';
import type { Route, RouteConfig } from '#routing/route-table.ts';
import { makeChain, makeSigned } from '../../support/certificate-maker.ts';
import type { Made, MadeChain } from '../../support/certificate-maker.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { SecureClient, shows } from '../../support/secure-client.ts';
import { startRawUpstream, startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

const CLIENT = '1.3.6.1.5.5.7.3.2';
const SERVER = '1.3.6.1.5.5.7.3.1';

function route(host: string, tls: RouteTlsSettings | undefined, more: Partial<Route> = {}): Route {
  return { host, path: '/', serviceId: 'app', ...(tls === undefined ? {} : { tls: routeTlsOf(tls) }), ...more };
}

/** Distinct names, as CAs have them. */
async function chainOf(name: string): Promise<MadeChain> {
  const root = await makeSigned({ subject: `${name} Root`, isCa: true });
  const intermediate = await makeSigned({ subject: `${name} Intermediate`, isCa: true, by: root });
  return { root, intermediate, leaf: await makeSigned({ subject: `${name} client`, by: intermediate, uses: [CLIENT] }) };
}

describe('client certificates', () => {
  const seen: IncomingHttpHeaders[] = [];
  let upstream: HttpUpstream;
  let edge: Edge;
  let config: RouteConfig;
  let partners: MadeChain;
  let staff: MadeChain;
  let server: Awaited<ReturnType<typeof makeCertificate>>;

  beforeAll(async () => {
    upstream = await startUpstream((request, response) => {
      seen.push(request.headers);
      response.end('app');
    });
    [partners, staff] = [await chainOf('Partners'), await chainOf('Staff')];
    server = { ...(await makeCertificate('a.test')), hosts: ['*.test'] };
    config = {
      version: 1,
      services: [{ id: 'app', tenant: 'acme', endpoints: [upstream.endpoint()] }],
      caBundles: [
        { name: 'partners', pem: partners.root.certPem },
        { name: 'staff', pem: staff.intermediate.certPem },
      ],
      routes: [
        route('api.test', { clientCertificate: { ca: 'partners' } }),
        route('maybe.test', { clientCertificate: { ca: 'partners', mode: 'optional' } }),
        route('quiet.test', { clientCertificate: { ca: 'partners', forward: false } }),
        route('both.test', { clientCertificate: { ca: 'partners' } }),
        route('both.test', { clientCertificate: { ca: 'staff' } }, { path: '/staff' }),
        route('both.test', undefined, { path: '/open' }),
        route('www.test', undefined),
        route('new.test', { minVersion: 'TLSv1.3' }),
      ],
    };
    edge = await startEdge({
      config,
      certificates: [server, await makeCertificate('*')],
      ticketKeys: randomBytes(48),
      workers: 2,
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
  });

  async function open(name: string, more: object = {}): Promise<SecureClient> {
    return await SecureClient.open({ port: edge.httpsPort, servername: name, ...more });
  }

  /** Status and text of one request, and the fields that the endpoint got. */
  async function get(name: string, more: object = {}, path = '/', fields = ''): Promise<[number, string, IncomingHttpHeaders]> {
    using client = await open(name, more);
    const before = seen.length;
    const { status, body } = await client.get(name, path, fields);
    return [status, body, seen[before] ?? {}];
  }

  const partner = (): object => shows(partners.leaf, partners.intermediate);

  test.each(['TLSv1.2', 'TLSv1.3'])('%s: a valid one is let through, and endpoints are told whose it is', async (maxVersion) => {
    const [status, , headers] = await get('api.test', { ...partner(), maxVersion });
    expect(status).toBe(200);
    const der = (made: Made): string => `:${new X509Certificate(made.certPem).raw.toString('base64')}:`;
    expect(headers['client-cert']).toBe(der(partners.leaf));
    expect(headers['client-cert-chain']).toBe(der(partners.intermediate));
    const { raw } = new X509Certificate(partners.leaf.certPem);
    expect(headers['x-ecluse-client-cert-fingerprint']).toBe(createHash('sha256').update(raw).digest('hex'));
    expect(headers['x-ecluse-client-cert-subject']).toBe('CN=Partners client');
  });

  test('who shows none, or another one, is told why, and the handshake holds', async () => {
    const old = await makeSigned({ subject: 'old', by: partners.root, fromDays: -10, untilDays: -1, uses: [CLIENT] });
    const early = await makeSigned({ subject: 'early', by: partners.root, fromDays: 5, untilDays: 9, uses: [CLIENT] });
    const wrong = await makeSigned({ subject: 'wrong', by: partners.root, uses: [SERVER] });
    const own = await makeSigned({ subject: 'own' });
    const cases: readonly (readonly [string, object, RegExp])[] = [
      ['missing', {}, /none was sent/],
      ['expired', shows(old), /has expired/],
      ['early', shows(early), /not valid yet/],
      ['purpose', shows(wrong), /not for clients/],
      ['itself', shows(own), /signed by itself/],
      ['another CA', shows(staff.leaf, staff.intermediate), /not of the CA/],
      ['no intermediate', shows(partners.leaf), /between them is missing/],
    ];
    for (const [name, shown, reason] of cases) {
      for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
        const [status, body] = await get('api.test', { ...shown, maxVersion });
        expect([name, maxVersion, status, reason.test(body) ? '' : body]).toEqual([name, maxVersion, 403, '']);
      }
    }
    const codes = (await edge.accessLog(16)).map(({ errorCode }) => errorCode);
    expect(new Set(codes)).toEqual(
      new Set([null, 'client-certificate-missing', 'client-certificate-expired', 'client-certificate-invalid']),
    );
  });

  test('one CA for many: an optional route goes on without an identity, and another says nothing of it', async () => {
    for (const shown of [{}, shows(staff.leaf, staff.intermediate)]) {
      const [status, , headers] = await get('maybe.test', shown);
      expect([status, headers['client-cert'], headers['x-ecluse-client-cert-subject']]).toEqual([200, undefined, undefined]);
    }
    expect((await get('maybe.test', partner()))[2]['client-cert']).toMatch(/^:/);
    const [status, , headers] = await get('quiet.test', partner());
    expect([status, headers['client-cert'], headers['x-ecluse-client-cert-fingerprint']]).toEqual([200, undefined, undefined]);
  });

  test('paths of one host may ask for different CAs; an intermediate that is named is trusted by itself', async () => {
    const ofStaff = shows(staff.leaf);
    expect((await get('both.test', partner()))[0]).toBe(200);
    expect((await get('both.test', ofStaff, '/staff'))[0]).toBe(200);
    expect((await get('both.test', shows(staff.leaf, staff.intermediate), '/staff'))[0]).toBe(200);
    for (const [shown, path] of [
      [ofStaff, '/'],
      [partner(), '/staff'],
    ] as const) {
      const [status, body] = await get('both.test', shown, path);
      expect([status, body]).toEqual([403, expect.stringMatching(/of another CA than this path/)]);
    }
    expect((await get('both.test', {}, '/open'))[0]).toBe(200);
  });

  test('nobody can say of himself who he is, on no route, over nothing', async () => {
    const forged = [
      'Client-Cert',
      'client_cert',
      'CLIENT-CERT-CHAIN',
      'X-Ecluse-Client-Cert-Subject',
      'x_ecluse_client_cert_fingerprint',
    ]
      .map((name) => `${name}: :Zm9yZ2Vk:\r\n`)
      .join('');
    const fields = `${forged}Connection: keep-alive\r\n`;
    const named = (headers: IncomingHttpHeaders): readonly string[] =>
      Object.entries(headers)
        .filter(([, value]) => String(value).includes('Zm9yZ2Vk'))
        .map(([name]) => name);
    for (const name of ['www.test', 'maybe.test', 'quiet.test']) expect(named((await get(name, {}, '/', fields))[2])).toEqual([]);
    expect(named((await get('api.test', partner(), '/', fields))[2])).toEqual([]);
    await ask({
      port: edge.httpPort,
      host: 'www.test',
      headers: { 'client-cert': ':Zm9yZ2Vk:', client_cert_chain: ':Zm9yZ2Vk:' },
    });
    expect(named(seen.at(-1) ?? {})).toEqual([]);
  });

  test('a route that requires one is not served over plain HTTP; an optional one is', async () => {
    const refused = await ask({ port: edge.httpPort, host: 'api.test' });
    expect([refused.status, String(refused.body)]).toEqual([403, expect.stringMatching(/HTTPS only/)]);
    expect((await ask({ port: edge.httpPort, host: 'maybe.test' })).status).toBe(200);
  });

  test('only hosts with such a route ask, for the CAs of their routes', async () => {
    const shake = async (name: string): Promise<string> => {
      const to = ['-connect', `127.0.0.1:${String(edge.httpsPort)}`, '-servername', name, '-msg'];
      return (await tryCommand('openssl', ['s_client', ...to], { timeoutMs: 10_000, input: '' })).stdout;
    };
    expect(await shake('www.test')).not.toContain('CertificateRequest');
    expect(await shake('nobody.test')).not.toContain('CertificateRequest');
    const asked = await shake('api.test');
    expect(asked).toContain('CertificateRequest');
    expect(asked).toMatch(/CN ?= ?Partners Root/);
    expect(asked).not.toContain('Staff');
    expect(await shake('both.test')).toMatch(/CN ?= ?Staff Intermediate/);
  });

  test('a connection is for the host of its handshake, as soon as one of the two asks', async () => {
    using asked = await open('api.test', partner());
    expect((await asked.get('api.test')).status).toBe(200);
    const other = await asked.get('www.test');
    expect([other.status, other.body]).toEqual([421, expect.stringMatching(/by host/)]);
    expect((await asked.get('maybe.test')).status).toBe(421);
    using usual = await open('www.test');
    expect((await usual.get('www.test')).status).toBe(200);
    expect((await usual.get('new.test')).status).toBe(200); // Its version is good enough.
    expect((await usual.get('api.test')).status).toBe(421);
    expect((await usual.get('maybe.test')).status).toBe(421);
    using nameless = await SecureClient.open({ port: edge.httpsPort, maxVersion: 'TLSv1.2', servername: 'www.test' });
    expect((await nameless.get('new.test')).status).toBe(421);
  });

  test('a connection without a name, and one whose hello comes in pieces', async () => {
    await using relay = await startRawUpstream((plain) => {
      const inner = connect({ host: '127.0.0.1', port: edge.httpsPort, noDelay: true });
      const inPieces = async (): Promise<void> => {
        for await (const chunk of plain) {
          if (!Buffer.isBuffer(chunk)) continue;
          for (let at = 0; at < chunk.length; at += 100) {
            inner.write(chunk.subarray(at, at + 100));
            await sleep(2);
          }
        }
      };
      inPieces().catch(() => inner.destroy());
      inner.pipe(plain);
    });
    const { port } = relay;
    using client = await SecureClient.open({ port, servername: 'api.test', ...partner() });
    expect((await client.get('api.test')).status).toBe(200);
    client[Symbol.dispose]();
    using nameless = await SecureClient.open({ port: edge.httpsPort, ...partner() });
    expect((await nameless.get('www.test')).status).toBe(200);
    expect((await nameless.get('api.test')).status).toBe(421);
  });

  test('sessions of hosts that ask are not resumed; those of the others are, by every worker', async () => {
    const resumed = async (name: string, shown: object, maxVersion: string): Promise<boolean[]> => {
      using before = await open(name, { ...shown, maxVersion });
      await before.get(name);
      const found: boolean[] = [];
      for (let round = 0; round < 8; round += 1) {
        using client = await open(name, { ...shown, maxVersion, session: before.session });
        expect((await client.get(name)).status).toBe(200);
        found.push(client.socket.isSessionReused());
      }
      return found;
    };
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
      expect(new Set(await resumed('api.test', partner(), maxVersion))).toEqual(new Set([false]));
      expect(new Set(await resumed('www.test', {}, maxVersion))).toEqual(new Set([true]));
    }
    // A session that began where nobody was asked is worth nothing where one is.
    using before = await open('www.test');
    await before.get('www.test');
    using client = await open('api.test', { ...partner(), session: before.session });
    expect([client.socket.isSessionReused(), (await client.get('api.test')).status]).toEqual([false, 200]);
  });

  test('a host whose routes want TLS 1.3 gets it, whatever the others take', async () => {
    await expect(open('new.test', { maxVersion: 'TLSv1.2' })).rejects.toMatchObject({
      code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
    });
    expect((await get('new.test'))[0]).toBe(200);
    expect((await get('www.test', { maxVersion: 'TLSv1.2' }))[0]).toBe(200);
  });

  test('what routes want changes under open connections: they are told to come again', async () => {
    using early = await open('www.test');
    using partnerEarly = await open('api.test', partner());
    expect((await partnerEarly.get('api.test')).status).toBe(200);
    const asking = {
      ...config,
      version: 2,
      routes: config.routes.map((one) =>
        one.host === 'www.test' ? route('www.test', { clientCertificate: { ca: 'staff' } }) : one,
      ),
    };
    await edge.apply(
      { ...asking, caBundles: [{ name: 'partners', pem: staff.root.certPem }, ...(config.caBundles ?? []).slice(1)] },
      [server],
    );
    try {
      expect((await early.get('www.test')).status).toBe(421);
      expect((await get('www.test', shows(staff.leaf)))[0]).toBe(200);
      // The CA bundle is another one now: the connection was judged by what is not trusted any more.
      expect((await partnerEarly.get('api.test')).status).toBe(421);
      expect((await get('api.test', partner()))[0]).toBe(403);
      expect((await get('api.test', shows(staff.leaf, staff.intermediate)))[0]).toBe(200);
    } finally {
      await edge.apply({ ...config, version: 3 }, [server]);
    }
    expect((await get('api.test', partner()))[0]).toBe(200);
  });
});

test('behind a PROXY header the host is asked for all the same', async () => {
  const { root, leaf, intermediate } = await makeChain(['client'], { uses: [CLIENT] });
  await using upstream = await startUpstream((request, response) => {
    response.end(String(request.headers['x-forwarded-for']));
  });
  await using edge = await startEdge({
    config: {
      version: 1,
      services: [{ id: 'app', tenant: 'acme', endpoints: [upstream.endpoint()] }],
      caBundles: [{ name: 'ca', pem: root.certPem }],
      routes: [route('api.test', { clientCertificate: { ca: 'ca' } })],
    },
    certificates: [await makeCertificate('api.test')],
    trust: { trustedProxies: ['127.0.0.1'], proxyProtocol: true },
  });
  using client = await SecureClient.openBehindProxy(edge.httpsPort, { servername: 'api.test', ...shows(leaf, intermediate) });
  const { status, body } = await client.get('api.test');
  expect([status, body]).toEqual([200, '203.0.113.9']);
});
