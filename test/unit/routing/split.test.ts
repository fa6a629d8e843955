/** Routes that are split over several services. */
import { describe, expect, test } from 'vitest';
import { compileRoutes, configOf, tableWith } from '#routing/compile.ts';
import { armOf, findRoute } from '#routing/match.ts';
import type { CompiledRoute, Route, RouteTable, SplitShare } from '#routing/route-table.ts';

const NO_FACTS = { requestMethod: () => 'GET', requestField: () => undefined };
const services = ['a', 'b', 'c'].map((id) => ({ id, tenant: 't', endpoints: [] }));
const routeWith = (...split: readonly SplitShare[]): Route => ({
  host: 'x.test',
  path: '/',
  serviceId: split[0]?.serviceId ?? '',
  split,
});
const share = (serviceId: string, weight: number): SplitShare => ({ serviceId, weight });

function tableOf(...routes: readonly Route[]): RouteTable {
  const compiled = compileRoutes({ version: 1, services, routes });
  if (compiled.kind === 'rejected') throw new Error(compiled.reason);
  return compiled.table;
}

function splitOf(table: RouteTable): CompiledRoute {
  const route = findRoute(table, 'x.test', '/', NO_FACTS);
  if (route?.arms === undefined) throw new Error('there is no split');
  return route;
}

describe('a split', () => {
  test('gives each service its share of the chances, and one without weight nothing', () => {
    const whole = splitOf(tableOf(routeWith(share('a', 3), share('b', 0), share('c', 1))));
    const counts = new Map<string, number>();
    for (let chance = 0; chance < 1000; chance += 1) {
      const arm = whole.arms === undefined ? undefined : armOf(whole.arms, chance / 1000);
      counts.set(arm?.route.serviceId ?? 'none', (counts.get(arm?.route.serviceId ?? 'none') ?? 0) + 1);
      expect(arm?.whole?.route).toBe(whole.route);
      expect(arm?.arms).toBeUndefined();
    }
    expect(Object.fromEntries(counts)).toEqual({ a: 750, c: 250 });
  });

  test('is refused where it leads nowhere, twice to one service, or has no weight', () => {
    const reason = (...split: readonly SplitShare[]): string => {
      const compiled = compileRoutes({ version: 1, services, routes: [routeWith(...split)] });
      return compiled.kind === 'rejected' ? compiled.reason : '';
    };
    expect(reason(share('a', 1), share('none', 1))).toContain('unknown service "none"');
    expect(reason(share('a', 1), share('a', 1))).toContain('twice');
    expect(reason(share('a', 0), share('b', 0))).toContain('all 0');
    expect(reason(share('a', -1), share('b', 1))).toContain('-1');
    expect(reason(share('a', 0.5), share('b', 1))).toContain('0.5');
  });

  test('keeps every service that it leads to, and comes out of the table as it went in', () => {
    const table = tableOf(routeWith(share('a', 1), share('b', 1)));
    const remove = { base: 1, version: 2, services: [], removedServices: ['b'], hosts: [] };
    expect(tableWith(table, remove)).toMatchObject({ kind: 'rejected', reason: 'service "b" is removed, and routes lead to it' });
    const without = tableWith(table, { ...remove, hosts: [{ host: 'x.test', routes: [routeWith(share('a', 1))] }] });
    expect(without.kind).toBe('compiled');
    expect(configOf(table).routes).toEqual([routeWith(share('a', 1), share('b', 1))]);
  });
});
