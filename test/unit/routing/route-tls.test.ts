import { describe, expect, test } from 'vitest';
import { compileRoutes, tableWith } from '#routing/compile.ts';
import { explainRequest } from '#routing/explain.ts';
import { handshakeWishOf } from '#routing/route-tls.ts';
import type { RouteTls } from '#routing/route-tls.ts';
import type { Route, RouteConfig, RouteDelta, RouteTable } from '#routing/route-table.ts';

const caBundles = ['a', 'b'].map((name) => ({ name, pem: `pem of ${name}` }));

function asks(caBundle: string, mode: 'required' | 'optional' = 'required'): RouteTls {
  return { clientCertificate: { caBundle, mode, forward: true } };
}

function route(host: string, path: string, tls?: RouteTls): Route {
  return { host, path, serviceId: 'app', ...(tls === undefined ? {} : { tls }) };
}

function compiled(reading: ReturnType<typeof compileRoutes>): RouteTable {
  if (reading.kind === 'rejected') throw new Error(reading.reason);
  return reading.table;
}

const CONFIG: RouteConfig = {
  version: 1,
  services: [{ id: 'app', tenant: 'acme', endpoints: [] }],
  caBundles,
  routes: [
    route('one.test', '/', asks('a')),
    route('both.test', '/', asks('b')),
    route('both.test', '/x', asks('a', 'optional')),
    route('both.test', '/y', { minVersion: 'TLSv1.3' }),
    route('plain.test', '/', { hsts: 'max-age=1', minVersion: 'TLSv1.2' }),
    route('*.wild.test', '/', asks('a')),
    route('x.wild.test', '/', { minVersion: 'TLSv1.3' }),
  ],
};

function change(base: number, more: Partial<RouteDelta>): RouteDelta {
  return { base, version: base + 1, services: [], removedServices: [], hosts: [], ...more };
}

describe('handshakeWishOf()', () => {
  const table = compiled(compileRoutes(CONFIG));

  test.each([
    ['one.test', { caBundles: ['a'], minVersion: 'TLSv1.2' }],
    ['both.test', { caBundles: ['a', 'b'], minVersion: 'TLSv1.3' }],
    ['plain.test', undefined],
    ['nobody.test', undefined],
    ['y.wild.test', { caBundles: ['a'], minVersion: 'TLSv1.2' }],
    // A request for it may fall through to the wildcard's routes.
    ['x.wild.test', { caBundles: ['a'], minVersion: 'TLSv1.3' }],
  ])('%s', (name, wish) => {
    expect(handshakeWishOf(table, name)).toEqual(wish);
  });

  test('routes that come and go are counted', () => {
    const fewer = compiled(
      tableWith(table, change(1, { hosts: ['one.test', 'both.test', '*.wild.test'].map((host) => ({ host, routes: [] })) })),
    );
    expect([table.handshakeRoutes, fewer.handshakeRoutes]).toEqual([6, 1]);
    const none = compiled(tableWith(fewer, change(2, { hosts: [{ host: 'x.wild.test', routes: [] }] })));
    expect([none.handshakeRoutes, handshakeWishOf(none, 'x.wild.test')]).toEqual([0, undefined]);
    expect(handshakeWishOf(table, 'one.test')).toBeDefined();
  });
});

describe('CA bundles of a table', () => {
  const table = compiled(compileRoutes(CONFIG));

  test('stay the same object where nothing changes, and only there', () => {
    const next = compiled(
      tableWith(
        table,
        change(1, {
          caBundles: [
            { name: 'a', pem: 'pem of a' },
            { name: 'b', pem: 'another' },
          ],
        }),
      ),
    );
    expect(next.caBundles.get('a')).toBe(table.caBundles.get('a'));
    expect(next.caBundles.get('b')?.pem).toBe('another');
    expect(compiled(tableWith(table, change(1, {}))).caBundles).toBe(table.caBundles);
  });

  test.each([
    [
      'a route names one that is not there',
      change(1, { hosts: [{ host: 'c.test', routes: [route('c.test', '/', asks('c'))] }] }),
      /route c.test\/ names unknown CA bundle "c"/,
    ],
    ['one goes that a route names', change(1, { caBundles: caBundles.slice(1) }), /"a" is removed, and route .* names it/],
    [
      'a service names one that is not there',
      change(1, {
        services: [
          {
            id: 's',
            tenant: 'acme',
            endpoints: [{ id: 'e', address: '10.0.0.1', port: 1, hostName: '', generation: 1, tls: { caBundle: 'c' } }],
          },
        ],
      }),
      /service "s" names unknown CA bundle "c"/,
    ],
  ])('%s: refused', (_, delta, reason) => {
    const reading = tableWith(table, delta);
    expect(reading.kind === 'rejected' ? reading.reason : '').toMatch(reason);
  });
});

test('explain tells of client certificates', () => {
  const table = compiled(compileRoutes(CONFIG));
  const outcome = (host: string, target: string): string =>
    explainRequest(table, { host, target, method: 'GET', headers: {} }).outcome;
  expect(outcome('one.test', '/')).toBe(
    '403 without a client certificate of a, and over plain HTTP, then 503: its service has no endpoint',
  );
  expect(outcome('both.test', '/x')).toMatch(/^asked for a client certificate of a, and let on without one, then /);
});
