/** matchRoute() against a reference that is too slow to use and too simple to be wrong. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileRoutes } from '#routing/compile.ts';
import { findRoute, isKnownHost, matchRoute, soleRoute } from '#routing/match.ts';
import type { Route, RouteConfig, RouteTable } from '#routing/route-table.ts';

function tableOf(routes: readonly Route[]): RouteTable | undefined {
  const config: RouteConfig = { version: 1, services: [{ id: 's', tenant: 't', endpoints: [] }], routes };
  const result = compileRoutes(config);
  return result.kind === 'compiled' ? result.table : undefined;
}

/** Scores every route by itself: host level first, then segments. */
function reference(routes: readonly Route[], host: string, path: string): Route | undefined {
  let best: { readonly route: Route; readonly score: number } | undefined;
  for (const route of routes) {
    const level =
      route.host === host
        ? 3
        : route.host === '*'
          ? 1
          : route.host === `*.${host.split('.').slice(1).join('.')}` && host.includes('.')
            ? 2
            : 0;
    const wanted = route.pathPrefix.split('/').filter((segment) => segment !== '');
    const given = path.split('/').slice(1);
    if (level === 0 || !wanted.every((segment, index) => given[index] === segment)) continue;
    const score = level * 100 + wanted.length;
    if (best === undefined || score > best.score) best = { route, score };
  }
  return best?.route;
}

const label = fc.constantFrom('a', 'b', 'c');
const hostName = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join('.'));
const routeHost = fc.oneof(
  hostName,
  hostName.map((name) => `*.${name}`),
  fc.constant('*'),
);
const path = fc.array(fc.constantFrom('x', 'xy', 'y'), { maxLength: 3 }).map((segments) => `/${segments.join('/')}`);
const route = fc.record({
  host: routeHost,
  pathPrefix: fc.oneof(
    path,
    path.map((text) => (text === '/' ? text : `${text}/`)),
  ),
  serviceId: fc.constant('s'),
});

describe('matchRoute()', () => {
  test('agrees with the reference on every table', () => {
    fc.assert(
      fc.property(fc.array(route, { maxLength: 12 }), hostName, path, (routes, host, wanted) => {
        const table = tableOf(routes);
        fc.pre(table !== undefined);
        const result = matchRoute(table, host, wanted);
        expect(result.kind === 'match' ? result.route : undefined).toEqual(reference(routes, host, wanted));
      }),
      { numRuns: 500 },
    );
  });

  test('falls through from an exact host to the wildcard and then to *', () => {
    const table = tableOf([
      { host: 'a.x.test', pathPrefix: '/only', serviceId: 's' },
      { host: '*.x.test', pathPrefix: '/wild', serviceId: 's' },
      { host: '*', pathPrefix: '/any', serviceId: 's' },
    ]);
    if (table === undefined) throw new Error('not compiled');
    const hostOf = (wanted: string): string | undefined => {
      const result = matchRoute(table, 'a.x.test', wanted);
      return result.kind === 'match' ? result.route.host : result.reason;
    };
    expect(['/only', '/wild/1', '/any', '/none'].map(hostOf)).toEqual(['a.x.test', '*.x.test', '*', 'unknown-path']);
  });

  test('says unknown-host where no route is for the host', () => {
    const table = tableOf([{ host: '*.x.test', pathPrefix: '/', serviceId: 's' }]);
    if (table === undefined) throw new Error('not compiled');
    expect(matchRoute(table, 'a.b.x.test', '/')).toEqual({ kind: 'no-route', reason: 'unknown-host' });
    expect(matchRoute(table, 'x.test', '/')).toEqual({ kind: 'no-route', reason: 'unknown-host' });
  });
});

describe('findRoute(), soleRoute() and isKnownHost()', () => {
  test('agree with matchRoute() on every table', () => {
    fc.assert(
      fc.property(fc.array(route, { maxLength: 6 }), hostName, path, (routes, host, wanted) => {
        const table = tableOf(routes);
        fc.pre(table !== undefined);
        const result = matchRoute(table, host, wanted);
        const found = findRoute(table, host, wanted);
        const quick = soleRoute(table, host) ?? found;
        expect(found?.route).toEqual(result.kind === 'match' ? result.route : undefined);
        expect(quick?.route).toEqual(found?.route);
        expect(quick?.service).toBe(found?.service);
        expect(isKnownHost(table, host)).toBe(result.kind === 'match' || result.reason === 'unknown-path');
      }),
      { numRuns: 1_000 },
    );
  });

  test('a sole route is an exact host with the one prefix /', () => {
    const table = tableOf([
      { host: 'sole.test', pathPrefix: '/', serviceId: 's' },
      { host: 'below.test', pathPrefix: '/a', serviceId: 's' },
      { host: 'two.test', pathPrefix: '/', serviceId: 's' },
      { host: 'two.test', pathPrefix: '/a', serviceId: 's' },
      { host: '*.wild.test', pathPrefix: '/', serviceId: 's' },
      { host: '*', pathPrefix: '/', serviceId: 's' },
    ]);
    if (table === undefined) throw new Error('not compiled');
    const soleOf = (host: string): string | undefined => soleRoute(table, host)?.route.host;
    expect(['sole.test', 'below.test', 'two.test', 'a.wild.test', 'none.test', ''].map(soleOf)).toEqual([
      'sole.test',
      ...Array.from({ length: 5 }, () => undefined),
    ]);
  });
});
