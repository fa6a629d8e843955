/** Why a request goes where it goes. */
import { expect, test } from 'vitest';
import { compileRoutes } from '#routing/compile.ts';
import { explainRequest } from '#routing/explain.ts';
import type { Endpoint, Route, RouteTable } from '#routing/route-table.ts';

const at = (id: string, state?: 'asleep'): Endpoint => ({
  id,
  address: '127.0.0.1',
  port: 1,
  hostName: '',
  generation: 1,
  state,
});

function tableOf(routes: readonly Route[]): RouteTable {
  const services = [
    { id: 'shop', tenant: 't', endpoints: [at('a'), at('b')] },
    { id: 'beta', tenant: 't', endpoints: [at('c', 'asleep')] },
    { id: 'none', tenant: 't', endpoints: [] },
  ];
  const compiled = compileRoutes({ version: 7, services, routes });
  if (compiled.kind === 'rejected') throw new Error(compiled.reason);
  return compiled.table;
}

const TABLE = tableOf([
  { host: 'shop.test', path: '=/exact', serviceId: 'none' },
  { host: 'shop.test', path: '/api', methods: ['POST'], serviceId: 'beta' },
  { host: 'shop.test', path: '/api', headers: { 'x-beta': '1' }, serviceId: 'beta' },
  { host: 'shop.test', path: '/api', serviceId: 'shop' },
  { host: 'shop.test', path: '~^/v[0-9]+', serviceId: 'shop' },
  { host: '*.test', path: '/', serviceId: 'shop' },
]);
const ask = { host: 'shop.test', target: '/', method: 'GET', headers: {} };

function verdicts(over: Partial<typeof ask>): readonly string[] {
  const { candidates } = explainRequest(TABLE, { ...ask, ...over });
  return candidates.map(({ route, verdict }) => `${route.host} ${route.path}: ${verdict}`);
}

test('every route that could have had it has its verdict, in the order in which they are asked', () => {
  expect(verdicts({ target: '/api/cart?x=1' })).toEqual([
    'shop.test =/exact: the path is not /exact',
    'shop.test /api: the field x-beta is not 1',
    'shop.test /api: the method is not POST',
    'shop.test /api: taken',
    'shop.test ~^/v[0-9]+: the expression ^/v[0-9]+ is not in the path',
    '*.test /: the one before it is asked first',
  ]);
  expect(verdicts({ target: '/v1/../x', host: 'SHOP.test:443' })).toContain('*.test /: taken');
});

test('what comes of it is said in words', () => {
  const of = (over: Partial<typeof ask>) => explainRequest(TABLE, { ...ask, ...over });
  expect(of({ target: '/api' })).toMatchObject({
    version: 7,
    serviceId: 'shop',
    tenant: 't',
    outcome: 'sent to one of 2 endpoints',
  });
  expect(of({ target: '/api', method: 'POST' }).outcome).toBe('held until its endpoint is awake');
  expect(of({ target: '/exact' }).outcome).toBe('503: its service has no endpoint');
  const without = (...unhealthy: readonly string[]): string =>
    explainRequest(TABLE, { ...ask, target: '/api' }, (id) => unhealthy.includes(id)).outcome;
  expect([without('a'), without('a', 'b')]).toEqual(['sent to its endpoint', '503: none of its endpoints is healthy']);
  expect(of({ host: 'other.example' })).toMatchObject({ outcome: '404: no route is for it', route: undefined, candidates: [] });
  expect(of({ host: 'a b' })).toMatchObject({ outcome: '400: "a b" is no host', host: undefined });
});
