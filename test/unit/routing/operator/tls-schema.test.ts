import { describe, expect, test } from 'vitest';
import { serviceOf } from '#routing/operator/compile-settings.ts';
import { documentSchema } from '#routing/operator/schema.ts';
import { lintSettings } from '#routing/operator/lint.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';
import { NO_SETTINGS, inverseOf, patchOfOperations, patchToDocument, settingsWith } from '#routing/operator/settings.ts';
import {
  caBundleOf,
  caBundleSchema,
  routeTlsOf,
  routeTlsSchema,
  endpointTlsOf,
  serviceTlsSchema,
} from '#routing/operator/tls-schema.ts';
import { makeSigned } from '../../../support/certificate-maker.ts';

const ca = await makeSigned({ subject: 'CA', isCa: true });
const other = await makeSigned({ subject: 'Other', isCa: true });
const leaf = await makeSigned({ subject: 'leaf', by: ca });

function faultsOf(schema: typeof caBundleSchema | typeof routeTlsSchema | typeof serviceTlsSchema, value: unknown): string {
  const parsed = schema.safeParse(value);
  return parsed.success ? '' : parsed.error.issues.map(({ message }) => message).join('; ');
}

describe('caBundles', () => {
  test('certificates of CAs are taken, whatever stands between them', () => {
    const pem = `Partners\n${ca.certPem}\n# and\n${other.certPem}`;
    expect(caBundleOf('a', caBundleSchema.parse({ pem }))).toEqual({ name: 'a', pem });
  });

  test.each([
    ['nothing', '', /no certificate in it/],
    ['a leaf', leaf.certPem, /"CN=leaf" is no CA/],
    ['a key', `${ca.certPem}${ca.keyPem}`, /private key/],
    ['a broken one', ca.certPem.replace(/\n[A-Za-z0-9+/=]+\n-----END/, '\nAAAA\n-----END'), /cannot be read/],
    ['another block', ca.certPem.replaceAll('CERTIFICATE', 'X509 CRL'), /beside certificates/],
    ['too many', ca.certPem.repeat(33), /more than 32/],
  ])('%s is refused', (_, pem, reason) => {
    expect(faultsOf(caBundleSchema, { pem })).toMatch(reason);
  });
});

describe('what routes want', () => {
  test('is what routing takes, with its defaults', () => {
    expect(routeTlsOf(routeTlsSchema.parse({ clientCertificate: { ca: 'a' } }))).toEqual({
      clientCertificate: { caBundle: 'a', mode: 'required', forward: true },
    });
    const hsts = { maxAge: '730d', includeSubDomains: true, preload: true };
    expect(routeTlsOf(routeTlsSchema.parse({ hsts, redirect: false, minVersion: 'TLSv1.3' }))).toEqual({
      hsts: 'max-age=63072000; includeSubDomains; preload',
      redirect: false,
      minVersion: 'TLSv1.3',
    });
  });

  test.each([
    [{ hsts: { maxAge: '30d', includeSubDomains: true, preload: true } }, /preload wants/],
    [{ hsts: { maxAge: '365d', preload: true } }, /preload wants/],
    [{ hsts: { maxAge: '20000d' } }, /use 0 to/],
    [{ minVersion: 'TLSv1.1' }, /TLSv1/],
    [{ clientCertificate: { ca: 'a b' } }, /name of letters/],
    [{ clientCertificate: { ca: 'a', mode: 'maybe' } }, /required/],
  ])('%o is refused', (value, reason) => {
    expect(faultsOf(routeTlsSchema, value)).toMatch(reason);
  });

  test.each(['localhost', '*.localhost', 'app.localhost', '*'])('no HSTS for %s', (host) => {
    const tls = { hsts: { maxAge: '1d' } };
    const parsed = documentSchema.safeParse({
      services: { a: { endpoints: [] } },
      routes: [{ match: { host }, service: 'a', tls }],
    });
    expect(parsed.success).toBe(false);
  });
});

describe('what services want', () => {
  test('is what routing takes', () => {
    const tls = { serverName: 'db.internal', ca: 'a', clientCertificate: 'edge' };
    expect(endpointTlsOf(serviceTlsSchema.parse(tls))).toEqual({
      serverName: 'db.internal',
      caBundle: 'a',
      clientCertificate: 'edge',
    });
  });

  test.each([
    [{ insecure: true, ca: 'a' }, /either ca or insecure/],
    [{ serverName: '*.internal' }, /host name/],
    [{ serverName: '10.0.0.1' }, /host name/],
    [{ clientCertificate: 'a/b' }, /cert ls/],
  ])('%o is refused', (value, reason) => {
    expect(faultsOf(serviceTlsSchema, value)).toMatch(reason);
  });
});

test.each([
  [{ endpoints: ['http://10.0.0.1', 'https://10.0.0.2'] }, /write all in the same way/],
  [{ endpoints: ['http://10.0.0.1'], tls: {} }, /tls is for endpoints that are https/],
  [{ endpoints: ['https://10.0.0.1'], sendProxy: 2 }, /sendProxy is not for https/],
])('a service like %o is refused', (value, reason) => {
  const parsed = serviceSchema.safeParse(value);
  expect(parsed.error?.issues.map(({ message }) => message).join()).toMatch(reason);
});

test('https has a port of its own, and TLS without a further word', () => {
  const [plain] = serviceOf('a', serviceSchema.parse({ endpoints: ['http://10.0.0.1'] })).endpoints;
  const [secure] = serviceOf('a', serviceSchema.parse({ endpoints: ['https://10.0.0.1'] })).endpoints;
  expect([plain?.port, plain?.tls, secure?.port, secure?.tls]).toEqual([80, undefined, 443, {}]);
});

describe('settings with CA bundles', () => {
  const document = documentSchema.parse({
    caBundles: { a: { pem: ca.certPem } },
    services: { app: { endpoints: ['https://10.0.0.1:1'], tls: { ca: 'a' } }, plain: { endpoints: [] } },
    routes: [
      { match: { host: 'a.test' }, service: 'app', tls: { clientCertificate: { ca: 'a' } } },
      { match: { host: 'b.test' }, service: 'plain' },
    ],
  });

  function patched(settings = NO_SETTINGS, wanted = document) {
    const reading = patchToDocument(settings, wanted);
    if (reading.kind === 'refused') throw new Error(JSON.stringify(reading.problems));
    return reading.patch;
  }

  test('a document brings them, and taking it back leaves nothing', () => {
    const patch = patched();
    const settings = settingsWith(NO_SETTINGS, patch);
    expect([...settings.caBundles.keys()]).toEqual(['a']);
    const back = settingsWith(settings, inverseOf(NO_SETTINGS, patch));
    expect([back.caBundles.size, back.services.size, back.routes]).toEqual([0, 0, 0]);
    expect(patched(settings)).toEqual({ services: {}, hosts: {} });
  });

  test('one that is named cannot go, and one that is not there cannot be named', () => {
    const settings = settingsWith(NO_SETTINGS, patched());
    const removed = patchOfOperations(settings, [{ op: 'remove-ca-bundle', name: 'a' }]);
    expect(removed).toMatchObject({
      kind: 'refused',
      problems: [{ path: 'caBundles.a', message: 'routes or services name it' }],
    });
    const named = patchToDocument(settings, { ...document, caBundles: { b: { pem: ca.certPem } } });
    expect(named).toMatchObject({ kind: 'refused' });
    const route = { match: { host: 'c.test' }, service: 'plain', tls: { clientCertificate: { ca: 'nobody' } } };
    expect(patchOfOperations(settings, [{ op: 'put-route', route }])).toMatchObject({
      kind: 'refused',
      problems: [{ path: 'the route of c.test/', message: 'there is no CA bundle "nobody"' }],
    });
    const service = { endpoints: [], tls: { ca: 'nobody' } };
    expect(patchOfOperations(settings, [{ op: 'put-service', name: 'x', service }])).toMatchObject({
      kind: 'refused',
      problems: [{ path: 'services.x.tls.ca', message: 'there is no CA bundle "nobody"' }],
    });
  });

  test('operations bring one with its route, change it, and take it when nobody names it any more', () => {
    const settings = settingsWith(NO_SETTINGS, patched());
    const changed = patchOfOperations(settings, [{ op: 'put-ca-bundle', name: 'a', caBundle: { pem: other.certPem } }]);
    expect(changed).toMatchObject({ kind: 'patch', patch: { caBundles: { a: { pem: other.certPem } } } });
    const gone = patchOfOperations(settings, [
      { op: 'put-service', name: 'app', service: { endpoints: [] } },
      { op: 'remove-route', match: { host: 'a.test' } },
      { op: 'remove-ca-bundle', name: 'a' },
    ]);
    expect(gone.kind).toBe('patch');
    expect(patchOfOperations(settings, [{ op: 'remove-ca-bundle', name: 'b' }])).toMatchObject({
      problems: [{ path: 'operations[0].name', message: 'there is no CA bundle "b"' }],
    });
  });

  test('patches of old versions, which know of none, change none', () => {
    const settings = settingsWith(NO_SETTINGS, patched());
    expect(settingsWith(settings, { services: {}, hosts: {} }).caBundles).toBe(settings.caBundles);
  });
});

test('lint says which CA bundles nobody names, and which have certificates that ended', async () => {
  const ended = await makeSigned({ subject: 'Old', isCa: true, fromDays: -9, untilDays: -1 });
  const reading = patchToDocument(
    NO_SETTINGS,
    documentSchema.parse({
      caBundles: { used: { pem: ended.certPem }, unused: { pem: ca.certPem } },
      services: { app: { endpoints: ['https://10.0.0.1'], tls: { ca: 'used' } } },
      routes: [{ match: { host: 'a.test' }, service: 'app' }],
    }),
  );
  if (reading.kind === 'refused') throw new Error(JSON.stringify(reading.problems));
  const findings = lintSettings(settingsWith(NO_SETTINGS, reading.patch), new Map(), Date.now());
  expect(findings.map(({ at, message }) => `${at}: ${message.replace(/ on 2.*/, ' on')}`)).toEqual([
    'caBundles.used: "CN=Old" expired on',
    'caBundles.unused: no route and no service names it',
  ]);
});
