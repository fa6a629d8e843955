/** Endpoints over TLS, through real workers: what they are shown, what is asked of them, and what becomes of faults, of changes and of checks. */
import { once } from 'node:events';
import { createServer as createPlainServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serviceIdOf, serviceOf } from '#routing/operator/compile-settings.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';
import type { RouteConfig } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { makeChain, makeSigned } from '../../support/certificate-maker.ts';
import type { Made, MadeChain } from '../../support/certificate-maker.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { portOf, startSecure } from '../../support/secure-endpoint.ts';

const CLIENT = '1.3.6.1.5.5.7.3.2';

function edgeCertificateOf(name: string, { leaf, intermediate }: MadeChain): EdgeCertificate {
  const notAfterMs = Date.now() + 86_400_000;
  return { name, hosts: [], notAfterMs, leafPem: leaf.certPem, chain: { pem: intermediate.certPem }, keyPem: leaf.keyPem };
}

function served({ leaf, intermediate }: Pick<MadeChain, 'leaf' | 'intermediate'>): {
  readonly cert: string;
  readonly key: string;
} {
  return { cert: leaf.certPem + intermediate.certPem, key: leaf.keyPem };
}

describe('endpoints over TLS', () => {
  let ca: MadeChain;
  let byAddress: MadeChain;
  let shown: MadeChain;
  let other: Made;
  let edge: Edge;
  let version = 1;
  let certificates: EdgeCertificate[];

  function configWith(service: object, caBundles: Readonly<Record<string, string>> = { inner: ca.root.certPem }): RouteConfig {
    const settings = serviceSchema.parse(service);
    return {
      version,
      services: [serviceOf('app', settings)],
      routes: [{ host: 'app.test', path: '/', serviceId: serviceIdOf('app') }],
      caBundles: Object.entries(caBundles).map(([name, pem]) => ({ name, pem })),
    };
  }

  beforeAll(async () => {
    ca = await makeChain(['db.internal']);
    byAddress = { ...ca, leaf: await makeSigned({ names: ['127.0.0.1'], by: ca.intermediate }) };
    shown = await makeChain(['edge'], { uses: [CLIENT] });
    other = await makeSigned({ subject: 'Other Root', isCa: true });
    certificates = [edgeCertificateOf('edge', shown)];
    edge = await startEdge({ config: configWith({ endpoints: [] }), certificates, workers: 1 });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
  });

  async function apply(service: object, caBundles?: Readonly<Record<string, string>>): Promise<void> {
    version += 1;
    await edge.apply(configWith(service, caBundles), certificates);
  }

  async function get(options: Partial<Parameters<typeof ask>[0]> = {}): Promise<readonly [number, string, string]> {
    const { status, body, headers } = await ask({ port: edge.httpPort, ...options });
    return [status, String(body), String(headers['proxy-status'] ?? '')];
  }

  test('a name, a CA bundle and a certificate: all of it is used, over one connection', async () => {
    using endpoint = await startSecure({ ...served(ca), requestCert: true, rejectUnauthorized: true, ca: shown.root.certPem });
    await apply({ endpoints: [endpoint.url], tls: { serverName: 'db.internal', ca: 'inner', clientCertificate: 'edge' } });
    expect((await get()).slice(0, 2)).toEqual([200, 'secure app']);
    const body = Buffer.alloc(3_000_000, 'x');
    const echoed = await ask({ port: edge.httpPort, method: 'POST', body });
    expect([echoed.status, echoed.body.equals(body)]).toEqual([200, true]);
    expect(endpoint.connections).toEqual([{ client: 'edge', name: 'db.internal' }]);
  });

  test('without a name the address has to be in the certificate; without a CA bundle, a CA that is known', async () => {
    using endpoint = await startSecure(served(byAddress));
    await apply({ endpoints: [endpoint.url], tls: { ca: 'inner' } });
    expect((await get())[0]).toBe(200);
    expect(endpoint.connections.map(({ name }) => name)).toEqual(['']);
    await apply({ endpoints: [endpoint.url] });
    expect(await get()).toEqual([502, expect.stringMatching(/does not verify/), 'ecluse; error=tls_certificate_error']);
    await apply({ endpoints: [endpoint.url], tls: { insecure: true } });
    expect((await get())[0]).toBe(200);
  });

  test.each([
    ['another CA', { ca: 'other', serverName: 'db.internal' }],
    ['another name', { ca: 'inner', serverName: 'web.internal' }],
    ['no name, and not its address', { ca: 'inner' }],
  ])('a certificate that does not verify is told apart: %s', async (_, tls) => {
    using endpoint = await startSecure(served(ca));
    await apply({ endpoints: [endpoint.url], tls }, { inner: ca.root.certPem, other: other.certPem });
    expect(await get({ method: 'POST', body: 'secret' })).toEqual([
      502,
      expect.stringMatching(/does not verify/),
      'ecluse; error=tls_certificate_error',
    ]);
    expect(endpoint.requests).toEqual([]);
  });

  test('so are one that refuses, one that ends with an alert, one that speaks no TLS, and what is not there', async () => {
    const tls = { ca: 'inner', serverName: 'db.internal' };
    const url = await (async () => {
      using gone = await startSecure(served(ca));
      return gone.url;
    })();
    await apply({ endpoints: [url], tls });
    expect((await get()).slice(0, 3)).toEqual([502, expect.any(String), 'ecluse; error=connection_refused']);
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      using asking = await startSecure({
        ...served(ca),
        requestCert: true,
        rejectUnauthorized: true,
        ca: shown.root.certPem,
        maxVersion,
      });
      await apply({ endpoints: [asking.url], tls });
      // What refuses a certificate says so when the request is on its way.
      expect((await get())[2]).toMatch(/error=(?:tls_alert_received|connection_terminated)/);
      expect(asking.requests).toEqual([]);
    }
    using old = await startSecure({ ...served(ca), maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA256' });
    await apply({ endpoints: [old.url], tls });
    expect((await get())[2]).toMatch(/error=(?:tls_alert_received|tls_protocol_error)/);
    const plain = createPlainServer((socket) =>
      socket.on('error', () => undefined).end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
    );
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    await apply({ endpoints: [`https://127.0.0.1:${String(portOf(plain))}`], tls });
    expect((await get())[2]).toBe('ecluse; error=tls_protocol_error');
    plain.close();
    using endpoint = await startSecure(served(ca));
    await apply({ endpoints: [endpoint.url], tls: { ...tls, clientCertificate: 'nobody' } });
    expect((await get()).slice(0, 3)).toEqual([500, expect.any(String), 'ecluse; error=proxy_configuration_error']);
    expect(endpoint.connections).toEqual([]);
    const codes = new Set((await edge.accessLog(8)).map(({ errorCode }) => errorCode));
    expect(codes.has('upstream-certificate') && codes.has('upstream-tls') && codes.has('connect-failed')).toBe(true);
  });

  test('where one of two does not verify, the other gets its requests', async () => {
    using good = await startSecure(served(ca));
    using bad = await startSecure(served(byAddress));
    await apply({ endpoints: [good.url, bad.url], balance: 'round-robin', tls: { ca: 'inner', serverName: 'db.internal' } });
    for (let round = 0; round < 6; round += 1) expect((await get())[0]).toBe(200);
    expect([good.requests.length, bad.requests.length]).toEqual([6, 0]);
  });

  test('other settings and other material: new connections, and no request over the old ones', async () => {
    using endpoint = await startSecure({ ...served(ca), requestCert: true, rejectUnauthorized: false });
    const tls = { ca: 'inner', serverName: 'db.internal' };
    await apply({ endpoints: [endpoint.url], tls });
    await get();
    await get();
    await apply({ endpoints: [endpoint.url], tls: { ...tls, clientCertificate: 'edge' } });
    await get();
    await get();
    const seen = (): readonly string[] => endpoint.connections.map(({ client }) => client);
    expect(seen()).toEqual(['', 'edge']);
    // The certificate is replaced, and the service stays as it is.
    const next = await makeChain(['edge two'], { uses: [CLIENT] });
    certificates = [edgeCertificateOf('edge', next)];
    await apply({ endpoints: [endpoint.url], tls: { ...tls, clientCertificate: 'edge' } });
    await get();
    expect(seen()).toEqual(['', 'edge', 'edge two']);
    // The CA bundle is another one, by the same name: what it does not trust is not spoken to.
    await apply({ endpoints: [endpoint.url], tls: { ...tls, clientCertificate: 'edge' } }, { inner: other.certPem });
    expect((await get())[2]).toBe('ecluse; error=tls_certificate_error');
    await apply({ endpoints: [endpoint.url], tls: { ...tls, clientCertificate: 'edge' } });
    expect((await get())[0]).toBe(200);
  });

  test('health checks speak as requests do', async () => {
    using endpoint = await startSecure({ ...served(ca), requestCert: true, rejectUnauthorized: true, ca: shown.root.certPem });
    certificates = [edgeCertificateOf('edge', shown)];
    const health = { path: '/up', interval: '1s', unhealthyAfter: 1, healthyAfter: 1 };
    const tls = { ca: 'inner', serverName: 'db.internal', clientCertificate: 'edge' };
    await apply({ endpoints: [endpoint.url], tls, health });
    await eventually(() => (endpoint.requests.includes('/up') ? true : undefined));
    expect(edge.pool.health().map(({ isHealthy }) => isHealthy)).toEqual([true]);
    expect(new Set(endpoint.connections.map(({ client }) => client))).toEqual(new Set(['edge']));
    await apply({ endpoints: [endpoint.url], tls, health }, { inner: other.certPem });
    const found = await eventually(() => edge.pool.health().find(({ isHealthy }) => !isHealthy));
    expect(found.reason).toMatch(/^its certificate does not verify/);
    // The worker hears of it a moment later; until then it finds out by itself.
    expect(await eventually(async () => ((await get())[0] === 503 ? 503 : undefined))).toBe(503);
  });

  test('a service that is asked about requests is spoken to in the same way', async () => {
    using login = await startSecure(served(ca));
    using endpoint = await startSecure(served(ca));
    const tls = { ca: 'inner', serverName: 'db.internal' };
    version += 1;
    const config = configWith({ endpoints: [endpoint.url], tls });
    const auth = { kind: 'forward', serviceId: serviceIdOf('login'), path: '/check', timeoutMs: 5000, pass: [] } as const;
    const loginWith = (wishes: object): RouteConfig => ({
      ...config,
      version,
      services: [...config.services, serviceOf('login', serviceSchema.parse({ endpoints: [login.url], tls: wishes }))],
      routes: config.routes.map((route) => ({ ...route, actions: { auth } })),
    });
    await edge.apply(loginWith(tls), certificates);
    expect((await get())[0]).toBe(200);
    expect(login.requests).toEqual(['/check']);
    version += 1;
    await edge.apply(loginWith({ ...tls, serverName: 'web.internal' }), certificates);
    expect((await get())[0]).toBe(503);
    expect(login.requests).toEqual(['/check']);
  });
});
