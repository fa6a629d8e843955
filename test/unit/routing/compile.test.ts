import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EMPTY_TABLE, compileRoutes, tableWith } from '#routing/compile.ts';
import { containing } from '../../support/matchers.ts';
import type { Endpoint, Route, RouteDelta, RouteTable } from '#routing/route-table.ts';

const ENDPOINT: Endpoint = { id: 'e', address: '127.0.0.1', port: 80, hostName: 'h', generation: 1 };

function compiled(routes: readonly Partial<Route>[], endpoints: readonly Endpoint[] = [ENDPOINT]): string {
  const result = compileRoutes({
    version: 7,
    services: [{ id: 's', tenant: 't', endpoints }],
    routes: routes.map((route) => ({ host: 'a.test', path: '/', serviceId: 's', ...route })),
  });
  return result.kind === 'rejected' ? result.reason : `version ${String(result.table.version)}`;
}

describe('compileRoutes()', () => {
  test.each([
    ['an unknown service', [{ serviceId: 'gone' }], 'unknown service "gone"'],
    ['a duplicate of host and path', [{}, {}], 'defined twice'],
    ['a duplicate but for the slash', [{ path: '/x' }, { path: '/x/' }], 'defined twice'],
    ['an upper-case host', [{ host: 'A.test' }], 'lower-case'],
    ['a wildcard inside', [{ host: 'a.*.test' }], 'not a label'],
    ['an empty host', [{ host: '' }], 'not a label'],
    ['a path without a slash', [{ path: 'x' }], 'start with /'],
    ['a path with dots', [{ path: '/x/../y' }], 'dot segment'],
    ['a path with encoded dots', [{ path: '/x/%2E%2e' }], 'dot segment'],
    ['a path with a query', [{ path: '/x?y' }], 'characters'],
    ['an empty segment', [{ path: '/x//y' }], 'empty segment'],
    ['an exact path that is none', [{ path: '=x' }], 'start with /'],
    ['an expression twice', [{ path: '~x' }, { path: '~x' }], 'a.test~x is defined twice'],
    ['the same conditions twice', [{ methods: ['GET', 'PUT'] }, { methods: ['PUT', 'GET'] }], 'defined twice'],
    ['the same fields twice', [{ headers: { 'X-A': '1' } }, { headers: { 'x-a': '1' } }], 'defined twice'],
    ['an empty expression', [{ path: '~' }], 'expression is empty'],
    ['an expression with look-ahead', [{ path: '~(?=x)' }], '(?='],
    ['an expression with a back reference', [{ path: String.raw`~(a)\1` }], 'invalid escape sequence'],
    ['an expression that is not closed', [{ path: '~(x' }], 'missing closing )'],
    ['repetitions of repetitions', [{ path: '~((x{100}){100}){100}' }], 'invalid repeat count'],
    ['an expression of too many steps', [{ path: '~x{200}y{200}' }], 'steps, more than 250'],
    ['an expression that is too long', [{ path: `~${'x'.repeat(300)}` }], 'longer than 256'],
    ['parentheses in parentheses', [{ path: `~${'('.repeat(5000)}` }], 'longer than 256'],
    ['no methods', [{ methods: [] }], 'methods is empty'],
    ['a method that is none', [{ methods: ['G T'] }], '"G T" is no method'],
    ['a method in small letters', [{ methods: ['get'] }], 'is written GET'],
    ['a header field that is none', [{ headers: { 'x:y': '1' } }], 'is no name of a header field'],
    ['a header field twice', [{ headers: { 'X-A': '1', 'x-a': '2' } }], 'x-a is there twice'],
    ['a value that cannot be sent', [{ headers: { 'x-a': 'one\r\ntwo' } }], 'cannot be sent'],
  ])('rejects %s', (_title, routes, reason) => {
    expect(compiled(routes)).toContain(reason);
  });

  test('rejects a service or an endpoint that occurs twice, and a port that is none', () => {
    expect(compiled([], [ENDPOINT, ENDPOINT])).toContain('twice');
    expect(compiled([], [{ ...ENDPOINT, port: 0 }])).toContain('port 0');
    const service = { id: 's', tenant: 't', endpoints: [] };
    expect(compileRoutes({ version: 1, services: [service, service], routes: [] }).kind).toBe('rejected');
  });
});

describe('tableWith()', () => {
  const service = (id: string, tenant = 't') => ({ id, tenant, endpoints: [] });
  const BASE: RouteDelta = {
    base: 0,
    version: 1,
    services: [service('one'), service('two')],
    removedServices: [],
    hosts: [
      { host: 'a.test', routes: [{ host: 'a.test', path: '/', serviceId: 'one' }] },
      { host: '*.b.test', routes: [{ host: '*.b.test', path: '/', serviceId: 'two' }] },
    ],
  };
  const change = (delta: Partial<RouteDelta>): RouteDelta => ({
    base: 1,
    version: 2,
    services: [],
    removedServices: [],
    hosts: [],
    ...delta,
  });
  const must = (table: RouteTable, delta: RouteDelta): RouteTable => {
    const result = tableWith(table, delta);
    if (result.kind === 'rejected') throw new Error(result.reason);
    return result.table;
  };
  const base = must(EMPTY_TABLE, BASE);

  test('changes hosts and services, and shares the rest', () => {
    const next = must(
      base,
      change({
        services: [service('three')],
        removedServices: ['two'],
        hosts: [
          { host: '*.b.test', routes: [] },
          { host: '*', routes: [{ host: '*', path: '/', serviceId: 'three' }] },
        ],
      }),
    );
    expect(next.version).toBe(2);
    expect([...next.services.values()].map(({ id }) => id).toSorted()).toEqual(['one', 'three']);
    expect(next.hosts.size).toBe(2);
    expect(next.hosts.get('a.test')).toBe(base.hosts.get('a.test'));
    expect([base.hosts.size, base.services.size, base.version]).toEqual([2, 2, 1]);
  });

  test('a service that changes touches no route', () => {
    const endpoints = [ENDPOINT];
    const next = must(base, change({ services: [{ ...service('one'), endpoints }] }));
    expect(next.services.get('one')?.endpoints).toEqual(endpoints);
    expect(next.hosts).toBe(base.hosts);
  });

  test.each<[string, Partial<RouteDelta>, string]>([
    ['another base', { base: 0 }, 'the change is to version 0, and this is version 1'],
    [
      'an unknown service',
      { hosts: [{ host: 'c.test', routes: [{ host: 'c.test', path: '/', serviceId: 'x' }] }] },
      'unknown service "x"',
    ],
    ['the loss of a service in use', { removedServices: ['one'] }, 'service "one" is removed, and routes lead to it'],
    ['the loss of a service that is not there', { removedServices: ['x'] }, 'service "x" is removed, and is not there'],
    ['a service both ways', { services: [service('one')], removedServices: ['one'] }, 'both defined and removed'],
    ['a service that changes hands', { services: [service('one', 'u')] }, 'cannot change its tenant'],
    [
      'a host twice',
      {
        hosts: [
          { host: 'a.test', routes: [] },
          { host: 'a.test', routes: [] },
        ],
      },
      'in the change twice',
    ],
    [
      'a route under another host',
      { hosts: [{ host: 'c.test', routes: [{ host: 'd.test', path: '/', serviceId: 'one' }] }] },
      'listed under host c.test',
    ],
  ])('rejects %s, and the table stays', (_title, delta, reason) => {
    const result = tableWith(base, change(delta));
    expect(result).toEqual({ kind: 'rejected', reason: containing(reason) });
    expect([base.hosts.size, base.services.size]).toEqual([2, 2]);
  });

  test('any way to a config gives the table that the config gives', () => {
    const hostName = fc.constantFrom('a.test', 'b.test', '*.test', '*');
    const serviceId = fc.constantFrom('s1', 's2', 's3');
    const hostRoutes = fc.dictionary(fc.constantFrom('/', '/x', '=/x', '~y'), serviceId);
    const steps = fc.array(fc.tuple(hostName, hostRoutes), { maxLength: 12 });
    fc.assert(
      fc.property(steps, (changes) => {
        const services = ['s1', 's2', 's3'].map((id) => service(id));
        let table = must(EMPTY_TABLE, { ...change({ services }), base: 0, version: 1 });
        const config = new Map<string, readonly Route[]>();
        for (const [index, [host, byPath]] of changes.entries()) {
          const routes = Object.entries(byPath).map(([path, id]) => ({ host, path, serviceId: id }));
          config.set(host, routes);
          table = must(table, { ...change({ hosts: [{ host, routes }] }), base: index + 1, version: index + 2 });
        }
        const whole = compileRoutes({ version: table.version, services, routes: [...config.values()].flat() });
        if (whole.kind === 'rejected') throw new Error(whole.reason);
        const plain = (of: RouteTable): unknown => [
          Object.fromEntries([...of.hosts.values()].map((list) => [list[0]?.route.host, list.map(({ route }) => route)])),
          Object.fromEntries([...of.services.values()].map(({ id }) => [id, of.uses.get(id)])),
        ];
        expect(plain(table)).toEqual(plain(whole.table));
      }),
    );
  });
});
