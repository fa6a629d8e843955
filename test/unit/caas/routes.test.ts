/** Labels become routes; no tenant gets another's host. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { clashingHost, defaultHost, routesOf, wantedRoutes } from '#caas/routes.ts';
import type { RoutedContainer } from '#caas/routes.ts';
import { rowOf, specOf, tenantNamed } from '../../support/caas-data.ts';
import { containing } from '../../support/matchers.ts';

const ACME = tenantNamed('acme', { domains: ['shop.test'] });

function wanted(labels: Readonly<Record<string, string>>, ports: readonly number[] = [80], name = 'web'): unknown {
  const result = wantedRoutes(name, specOf({ Labels: labels }, ports), ACME, 'localhost');
  return result.kind === 'refused' ? result.reason : result.routes;
}

describe('wantedRoutes()', () => {
  test('gives one port a default host, and several or none nothing', () => {
    expect(wanted({})).toEqual([{ host: 'web-acme.localhost', path: '/', port: 80 }]);
    expect(wanted({}, [])).toEqual([]);
    expect(wanted({}, [80, 81])).toEqual([]);
    expect(wanted({ 'ecluse.http.port': '81' }, [80, 81])).toEqual([{ host: 'web-acme.localhost', path: '/', port: 81 }]);
  });

  test('takes hosts in the tenant’s domains, and paths', () => {
    const labels = { 'ecluse.http.host': 'Shop.test, a.shop.test,x-acme.localhost', 'ecluse.http.path': '/api/' };
    const hosts = ['shop.test', 'a.shop.test', 'x-acme.localhost'];
    expect(wanted(labels)).toEqual(hosts.map((host) => ({ host, path: '/api', port: 80 })));
  });

  test('refuses the rest and says which label', () => {
    const cases: readonly (readonly [Readonly<Record<string, string>>, readonly number[], string])[] = [
      [
        { 'ecluse.http.host': 'evil.test' },
        [80],
        'label ecluse.http.host: evil.test is outside of the domains of tenant acme (NAME-acme.localhost, shop.test)',
      ],
      [{ 'ecluse.http.host': 'notshop.test' }, [80], 'label ecluse.http.host: notshop.test is outside'],
      [{ 'ecluse.http.host': 'acme.localhost' }, [80], 'label ecluse.http.host: acme.localhost is outside'],
      [{ 'ecluse.http.host': '*.shop.test' }, [80], 'label ecluse.http.host: "*.shop.test" is no host name'],
      [{ 'ecluse.http.host': '' }, [80], 'label ecluse.http.host: "" is no host name'],
      [{ 'ecluse.http.host': 'a.shop.test,' }, [80], 'label ecluse.http.host: "" is no host name'],
      [{ 'ecluse.http.host': 'a.shop.test:80' }, [80], 'label ecluse.http.host: '],
      [
        { 'ecluse.http.host': Array.from({ length: 11 }, (_value, index) => `h${String(index)}.shop.test`).join() },
        [80],
        'label ecluse.http.host: more than 10 hosts',
      ],
      [
        { 'ecluse.http.host': 'shop.test' },
        [],
        'label ecluse.http.host: it needs ecluse.http.port beside it: the container exposes no port',
      ],
      [
        { 'ecluse.http.host': 'shop.test' },
        [80, 81],
        'label ecluse.http.host: it needs ecluse.http.port beside it: the container exposes the ports 80, 81',
      ],
      [{ 'ecluse.http.port': '0' }, [80], 'label ecluse.http.port: "0" is no port'],
      [{ 'ecluse.http.port': '65536' }, [80], 'label ecluse.http.port: "65536" is no port'],
      [{ 'ecluse.http.port': '8e1' }, [80], 'label ecluse.http.port: "8e1" is no port'],
      [{ 'ecluse.http.path': 'x' }, [80], 'label ecluse.http.path: "x" is no path prefix'],
      [{ 'ecluse.http.path': '/a?b' }, [80], 'label ecluse.http.path: "/a?b" is no path prefix'],
    ];
    for (const [labels, ports, reason] of cases) expect(wanted(labels, ports)).toEqual(containing(reason));
  });
});

describe('defaultHost()', () => {
  test('is a host name for every name of a container', () => {
    const name = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$/);
    fc.assert(
      fc.property(name, (text) =>
        /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.localhost$/.test(defaultHost(text, 'acme', 'localhost')),
      ),
    );
  });
});

describe('two tenants', () => {
  const c = tenantNamed('c');
  const bc = tenantNamed('b-c');
  const tenants = new Map([c, bc].map((tenant) => [tenant.name, tenant]));
  const theirs: RoutedContainer = { row: rowOf({ tenant: 'b-c', name: 'aa', createdMs: 1 }), spec: specOf() };
  const ours: RoutedContainer = { row: rowOf({ id: 'b'.repeat(64), tenant: 'c', name: 'aa-b', createdMs: 2 }), spec: specOf() };

  test('clash over a default host', () => {
    const mine = wantedRoutes('aa-b', ours.spec, c, 'localhost');
    expect(mine.kind === 'routes' ? clashingHost(mine.routes, [theirs], tenants, 'localhost') : '').toBe('aa-b-c.localhost');
  });

  test('never share a route: the older container has it', () => {
    expect(routesOf([ours, theirs], tenants, 'localhost', 7)).toEqual({
      version: 7,
      services: [
        {
          id: 'b-c/aa-b-c.localhost/',
          tenant: 'b-c',
          endpoints: [
            { id: theirs.row.id, address: '10.90.1.2', port: 80, hostName: 'a', generation: 1, startedMs: Date.UTC(2026, 0, 1) },
          ],
        },
      ],
      routes: [{ host: 'aa-b-c.localhost', path: '/', serviceId: 'b-c/aa-b-c.localhost/' }],
    });
  });
});

describe('routesOf()', () => {
  const tenants = new Map([['acme', ACME]]);

  test('joins a tenant’s containers of one host, and keeps the route of those that do not run', () => {
    const labels = { Labels: { 'ecluse.http.host': 'shop.test' } };
    const containers = ['running', 'paused', 'exited'].map((state, index) => ({
      row: rowOf({
        id: String(index).repeat(64),
        name: `n${String(index)}`,
        state: state === 'paused' ? 'paused' : state === 'exited' ? 'exited' : 'running',
      }),
      spec: specOf(labels),
    }));
    const config = routesOf(containers, tenants, 'localhost', 1);
    expect(config.routes).toHaveLength(1);
    expect(config.services.map((service) => service.endpoints.map(({ id }) => id))).toEqual([['0'.repeat(64)]]);
  });

  test('leaves out what is lost, half-made, or of a suspended tenant', () => {
    for (const state of ['creating', 'lost'] as const) {
      expect(routesOf([{ row: rowOf({ state }), spec: specOf() }], tenants, 'localhost', 1).routes).toEqual([]);
    }
    const suspended = new Map([['acme', tenantNamed('acme', { state: 'suspended' })]]);
    expect(routesOf([{ row: rowOf(), spec: specOf() }], suspended, 'localhost', 1).routes).toEqual([]);
  });
});
