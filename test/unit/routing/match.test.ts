/** findRoute() against a reference that is too slow to use and too simple to be wrong. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileRoutes } from '#routing/compile.ts';
import { certificateHostOf, findRoute, isKnownHost, soleRoute } from '#routing/match.ts';
import type { RequestFacts } from '#routing/route-conditions.ts';
import type { Route, RouteConfig, RouteTable } from '#routing/route-table.ts';

interface Asked {
  readonly host: string;
  readonly path: string;
  readonly method: string;
  readonly fields: Readonly<Record<string, string>>;
}

function tableOf(routes: readonly Route[]): RouteTable | undefined {
  const config: RouteConfig = { version: 1, services: [{ id: 's', tenant: 't', endpoints: [] }], routes };
  const result = compileRoutes(config);
  return result.kind === 'compiled' ? result.table : undefined;
}

function mustCompile(routes: readonly Partial<Route>[]): RouteTable {
  const table = tableOf(routes.map((route) => ({ host: 'a.test', path: '/', serviceId: 's', ...route })));
  if (table === undefined) throw new Error('not compiled');
  return table;
}

function factsOf({ method, fields }: Pick<Asked, 'method' | 'fields'>): RequestFacts {
  return { requestMethod: () => method, requestField: (name) => fields[name] };
}

function find(table: RouteTable, asked: Asked): Route | undefined {
  return findRoute(table, asked.host, asked.path, factsOf(asked))?.route;
}

function hostScore(route: string, host: string): number {
  if (route === host) return 3;
  if (route === '*') return 1;
  return route === `*.${host.split('.').slice(1).join('.')}` && host.includes('.') ? 2 : 0;
}

/** Exact paths count most, then prefixes by their segments, then expressions; 0: it is not for the path. */
function pathScore(route: string, path: string): number {
  if (route.startsWith('=')) return route.slice(1) === path ? 1000 : 0;
  if (route.startsWith('~')) return new RegExp(route.slice(1)).test(path) ? 1 : 0;
  const wanted = route.split('/').filter((segment) => segment !== '');
  const given = path.split('/').slice(1);
  return wanted.every((segment, index) => given[index] === segment) ? 10 + wanted.length : 0;
}

/** Scores every route by itself, and takes the best; of equal ones the first. */
function reference(routes: readonly Route[], { host, path, method, fields }: Asked): Route | undefined {
  const firstOfSource = new Map<string, number>();
  for (const [index, route] of routes.entries())
    if (!firstOfSource.has(`${route.host} ${route.path}`)) firstOfSource.set(`${route.host} ${route.path}`, index);
  let best: { readonly route: Route; readonly score: readonly number[] } | undefined;
  for (const route of routes) {
    const wanted = Object.entries(route.headers ?? {});
    const levels = [hostScore(route.host, host), pathScore(route.path, path)];
    if (levels.includes(0)) continue;
    if (route.methods !== undefined && !route.methods.includes(method)) continue;
    if (!wanted.every(([name, value]) => fields[name.toLowerCase()] === value)) continue;
    const written = route.path.startsWith('~') ? -(firstOfSource.get(`${route.host} ${route.path}`) ?? 0) : 0;
    const score = [...levels, written, wanted.length, -(route.methods?.length ?? 100)];
    if (best === undefined || isHigher(score, best.score)) best = { route, score };
  }
  return best?.route;
}

function isHigher(one: readonly number[], other: readonly number[]): boolean {
  const index = one.findIndex((value, position) => value !== other[position]);
  return index >= 0 && (one[index] ?? 0) > (other[index] ?? 0);
}

const label = fc.constantFrom('a', 'b', 'c');
const hostName = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join('.'));
const routeHost = fc.oneof(
  hostName,
  hostName.map((name) => `*.${name}`),
  fc.constant('*'),
);
const path = fc.array(fc.constantFrom('x', 'xy', 'y'), { maxLength: 3 }).map((segments) => `/${segments.join('/')}`);
const routePath = fc.oneof(
  path,
  path.map((text) => (text === '/' ? text : `${text}/`)),
  path.map((text) => `=${text}`),
  fc.constantFrom('~x', '~^/x', '~y$', '~(x|y)/', '~^/.y'),
);
const methods = fc.option(fc.uniqueArray(fc.constantFrom('GET', 'POST', 'PUT'), { minLength: 1 }), { nil: undefined });
const headers = fc.option(fc.dictionary(fc.constantFrom('x-one', 'X-Two'), fc.constantFrom('1', '2')), { nil: undefined });
const route = fc.record({ host: routeHost, path: routePath, methods, headers, serviceId: fc.constant('s') });
const asked = fc.record({
  host: hostName,
  path,
  method: fc.constantFrom('GET', 'POST', 'PUT', 'BREW'),
  fields: fc.dictionary(fc.constantFrom('x-one', 'x-two'), fc.constantFrom('1', '2')),
});

describe('findRoute()', () => {
  test('agrees with the reference on every table', { timeout: 30_000 }, () => {
    fc.assert(
      fc.property(fc.array(route, { maxLength: 14 }), asked, (routes, request) => {
        const table = tableOf(routes);
        fc.pre(table !== undefined);
        expect(find(table, request)).toEqual(reference(routes, request));
      }),
      { numRuns: 2_000 },
    );
  });

  test('falls through from an exact host to the wildcard and then to *', () => {
    const table = mustCompile([
      { host: 'a.x.test', path: '/only' },
      { host: '*.x.test', path: '/wild' },
      { host: '*', path: '/any' },
    ]);
    const hostOf = (wanted: string): string | undefined =>
      find(table, { host: 'a.x.test', path: wanted, method: 'GET', fields: {} })?.host;
    expect(['/only', '/wild/1', '/any', '/none'].map(hostOf)).toEqual(['a.x.test', '*.x.test', '*', undefined]);
  });

  test('falls through from what asks for more to what asks for less', () => {
    const table = mustCompile([
      { path: '/x', serviceId: 's' },
      { path: '/x', methods: ['GET', 'HEAD'] },
      { path: '/x', methods: ['GET'] },
      { path: '/x', headers: { 'X-Beta': '1' } },
      { path: '=/x', methods: ['DELETE'] },
    ]);
    const ask = (method: string, fields: Readonly<Record<string, string>> = {}): string => {
      const {
        path: found = '',
        methods: only,
        headers: wanted,
      } = find(table, { host: 'a.test', path: '/x', method, fields }) ?? {};
      return `${found} ${only?.join() ?? ''} ${Object.keys(wanted ?? {}).join()}`;
    };
    expect(ask('GET')).toBe('/x GET ');
    expect(ask('HEAD')).toBe('/x GET,HEAD ');
    expect(ask('PUT')).toBe('/x  ');
    expect(ask('GET', { 'x-beta': '1' })).toBe('/x  X-Beta');
    expect(ask('GET', { 'x-beta': '2' })).toBe('/x GET ');
    expect(ask('DELETE', { 'x-beta': '1' })).toBe('=/x DELETE ');
  });

  test('asks nothing of a request that no route wants to know', () => {
    const table = mustCompile([{ path: '/x' }, { path: '/y', methods: ['GET'] }]);
    const facts: RequestFacts = {
      requestMethod: () => {
        throw new Error('names');
      },
      requestField: () => undefined,
    };
    expect(findRoute(table, 'a.test', '/x/1', facts)?.route.path).toBe('/x');
    expect(() => findRoute(table, 'a.test', '/y/1', facts)).toThrow('names');
  });
});

describe('soleRoute() and isKnownHost()', () => {
  test('agree with findRoute() on every table', { timeout: 30_000 }, () => {
    fc.assert(
      fc.property(fc.array(route, { maxLength: 6 }), asked, (routes, request) => {
        const table = tableOf(routes);
        fc.pre(table !== undefined);
        const found = findRoute(table, request.host, request.path, factsOf(request));
        expect((soleRoute(table, request.host) ?? found)?.route).toEqual(found?.route);
        expect(isKnownHost(table, request.host)).toBe(routes.some((one) => hostScore(one.host, request.host) > 0));
      }),
      { numRuns: 1_000 },
    );
  });

  test('a sole route is an exact host with the one prefix /, for every request', () => {
    const table = mustCompile([
      { host: 'sole.test' },
      { host: 'below.test', path: '/a' },
      { host: 'exact.test', path: '=/' },
      { host: 'get.test', methods: ['GET'] },
      { host: 'two.test' },
      { host: 'two.test', path: '/a' },
      { host: '*.wild.test' },
      { host: '*' },
    ]);
    const soleOf = (host: string): string | undefined => soleRoute(table, host)?.route.host;
    const hosts = ['sole.test', 'below.test', 'exact.test', 'get.test', 'two.test', 'a.wild.test', 'none.test', ''];
    expect(hosts.map(soleOf)).toEqual(['sole.test', ...hosts.slice(1).map(() => undefined)]);
  });
});

test('a handshake needs the certificate of the exact host of a route, then of its wildcard; a route for * names nobody', () => {
  const table = mustCompile([{ host: 'shop.test' }, { host: '*.shop.test' }, { host: 'local' }, { host: '*' }]);
  const names = [
    'shop.test',
    'a.shop.test',
    'a.b.shop.test',
    'local',
    'other.test',
    '*',
    '*.shop.test',
    '',
    '.shop.test',
    'shop.test.',
  ];
  expect(names.map((name) => certificateHostOf(table, name))).toEqual([
    'shop.test',
    '*.shop.test',
    undefined,
    'local',
    ...Array.from({ length: 6 }, () => undefined),
  ]);
});
