import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileRoutes, tableWith } from '#routing/compile.ts';
import { deltaBetween } from '#routing/delta.ts';
import type { Endpoint, RouteConfig, RouteTable } from '#routing/route-table.ts';

const endpoint = fc.record({
  id: fc.constantFrom('e1', 'e2', 'e3'),
  address: fc.constantFrom('10.0.0.1', '10.0.0.2'),
  port: fc.constant(80),
  hostName: fc.constant('a'),
  generation: fc.constantFrom(1, 2),
  state: fc.constantFrom('asleep' as const, undefined),
});
const service = fc.record({
  id: fc.constantFrom('s1', 's2', 's3'),
  tenant: fc.constant('t'),
  endpoints: fc.uniqueArray(endpoint, { selector: ({ id }) => id, maxLength: 3 }),
});
const route = fc.record({
  host: fc.constantFrom('a.test', 'b.test', '*.test', '*'),
  path: fc.constantFrom('/', '/x', '=/x', '~y'),
  serviceId: fc.constantFrom('s1', 's2', 's3'),
});
const config = fc
  .record({
    services: fc.uniqueArray(service, { selector: ({ id }) => id }),
    routes: fc.uniqueArray(route, { selector: ({ host, path }) => `${host} ${path}` }),
  })
  .map(({ services, routes }) => {
    const ids = new Set(services.map(({ id }) => id));
    return { version: 1, services, routes: routes.filter(({ serviceId }) => ids.has(serviceId)) };
  });

function compiled(of: RouteConfig): RouteTable {
  const result = compileRoutes(of);
  if (result.kind === 'rejected') throw new Error(result.reason);
  return result.table;
}

/** All that a table says, in an order of its own. */
function contentOf({ version, hosts, services, uses, endpoints }: RouteTable): object {
  const listed = [...services.values()];
  const ids = new Set(listed.flatMap((one) => one.endpoints.map(({ id }) => id)));
  const order = (one: Endpoint, other: Endpoint): number => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1);
  return {
    version,
    hosts: new Map([...hosts.values()].map((list) => [list[0]?.route.host, list.map(({ route: one, tenant }) => [one, tenant])])),
    services: Object.fromEntries(listed.map((one) => [one.id, one])),
    uses: Object.fromEntries(listed.map(({ id }) => [id, uses.get(id)])),
    endpoints: Object.fromEntries([...ids].map((id) => [id, endpoints.get(id)?.toSorted(order)])),
    sizes: [hosts.size, services.size, uses.size, endpoints.size],
  };
}

describe('deltaBetween()', () => {
  test('leads from the table of one config to that of another', { timeout: 30_000 }, () => {
    fc.assert(
      fc.property(config, config, (before, later) => {
        const after = { ...later, version: 2 };
        const result = tableWith(compiled(before), deltaBetween(before, after));
        if (result.kind === 'rejected') throw new Error(result.reason);
        expect(contentOf(result.table)).toEqual(contentOf(compiled(after)));
      }),
      { numRuns: 300 },
    );
  });

  test('has nothing but what changed', () => {
    const one = { id: 's1', tenant: 't', endpoints: [] };
    const two = { id: 's2', tenant: 't', endpoints: [] };
    const before = {
      version: 4,
      services: [one, two],
      routes: [
        { host: 'a.test', path: '/', serviceId: 's1' },
        { host: 'b.test', path: '/', serviceId: 's2' },
      ],
    };
    const after = structuredClone({ ...before, version: 5, services: [one], routes: before.routes.slice(0, 1) });
    expect(deltaBetween(before, after)).toEqual({
      base: 4,
      version: 5,
      services: [],
      removedServices: ['s2'],
      hosts: [{ host: 'b.test', routes: [] }],
    });
  });
});
