/** Patches of operators' settings: what they make true, what they refuse, and how they are taken back. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { diffOf } from '#routing/operator/diff.ts';
import { lintSettings } from '#routing/operator/lint.ts';
import { documentJsonSchema, documentSchema, hasPrototypeKey, operationSchema } from '#routing/operator/schema.ts';
import type { EdgeDocument, Operation } from '#routing/operator/schema.ts';
import type { ServiceSettings } from '#routing/operator/service-schema.ts';
import {
  documentOf,
  inverseOf,
  isEmptyPatch,
  NO_SETTINGS,
  patchOfOperations,
  patchToDocument,
  settingsWith,
} from '#routing/operator/settings.ts';
import type { EdgePatch, EdgeSettings, PatchReading } from '#routing/operator/settings.ts';

function patchOf(reading: PatchReading): EdgePatch {
  if (reading.kind === 'refused') throw new Error(JSON.stringify(reading.problems));
  return reading.patch;
}

function settingsOf(document: unknown): EdgeSettings {
  return settingsWith(NO_SETTINGS, patchOf(patchToDocument(NO_SETTINGS, documentSchema.parse(document))));
}

function problemsOf(reading: PatchReading): readonly string[] {
  return reading.kind === 'patch' ? [] : reading.problems.map(({ path, message }) => `${path}: ${message}`);
}

const SHOP = {
  services: { shop: { endpoints: ['http://127.0.0.1:9001'] }, beta: { endpoints: [] } },
  routes: [
    { match: { host: 'shop.test' }, service: 'shop' },
    { match: { host: 'shop.test', path: '/api', methods: ['GET'] }, service: 'beta' },
  ],
};

const names = ['a', 'b', 'c'] as const;
const hosts = ['one.test', 'two.test', '*.two.test', '*'] as const;
const service = fc.record({
  endpoints: fc.uniqueArray(fc.constantFrom('http://127.0.0.1:1', 'http://10.0.0.1:2', 'http://[::1]:3'), { maxLength: 3 }),
});
const match = fc.record(
  {
    host: fc.constantFrom(...hosts),
    path: fc.constantFrom('/', '/x', '/x/', '=/x', '~^/v[0-9]+'),
    methods: fc.constantFrom<string[]>(['GET'], ['GET', 'POST']),
    headers: fc.constantFrom<Record<string, string>>({ 'x-a': '1' }, {}),
  },
  { requiredKeys: ['host'] },
);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ op: fc.constant('put-service' as const), name: fc.constantFrom(...names), service }),
  fc.record({ op: fc.constant('remove-service' as const), name: fc.constantFrom(...names) }),
  fc.record({ op: fc.constant('put-route' as const), route: fc.record({ match, service: fc.constantFrom(...names) }) }),
  fc.record({ op: fc.constant('remove-route' as const), match }),
);

/** What operations do, written down the long way: a list of everything, one step after the other. */
function naive(document: EdgeDocument, operations: readonly Operation[]): EdgeDocument | 'refused' {
  const services = new Map(Object.entries(document.services));
  let { routes } = document;
  const key = (of: EdgeDocument['routes'][number]['match']): string => {
    const path = (of.path ?? '/').replace(/^(\/.*)\/$/, '$1').replace(/^\/$/, '');
    return JSON.stringify([of.host, path, [...new Set(of.methods ?? [])].toSorted(), of.headers ?? {}]);
  };
  for (const step of operations) {
    if (step.op === 'put-service') services.set(step.name, step.service);
    if (step.op === 'remove-service' && !services.delete(step.name)) return 'refused';
    if (step.op === 'put-route') {
      const at = routes.findIndex((route) => key(route.match) === key(step.route.match));
      routes = at === -1 ? [...routes, step.route] : routes.with(at, step.route);
    }
    if (step.op === 'remove-route') {
      const rest = routes.filter((route) => key(route.match) !== key(step.match));
      if (rest.length === routes.length) return 'refused';
      routes = rest;
    }
  }
  if (routes.some((route) => !services.has(route.service ?? ''))) return 'refused';
  return { services: Object.fromEntries(services), routes };
}

/** Routes of different hosts have no order. */
function sorted({ services, routes }: EdgeDocument): EdgeDocument {
  const byHost = Map.groupBy(routes, (route) => route.match.host);
  return {
    services: Object.fromEntries(Object.entries(services).toSorted(([one], [other]) => (one < other ? -1 : 1))),
    routes: [...byHost].toSorted(([one], [other]) => (one < other ? -1 : 1)).flatMap(([, list]) => list),
  };
}

describe('settings', () => {
  test(
    'any transaction does what its steps do one by one, all or nothing, and its inverse takes it back',
    { timeout: 20_000 },
    () => {
      fc.assert(
        fc.property(fc.array(fc.array(operation, { minLength: 1, maxLength: 6 }), { maxLength: 6 }), (transactions) => {
          let settings = NO_SETTINGS;
          let expected: EdgeDocument = { services: {}, routes: [] };
          for (const operations of transactions) {
            const before = documentOf(settings);
            const reading = patchOfOperations(settings, operations);
            const next = naive(expected, operations);
            expect(reading.kind).toBe(next === 'refused' ? 'refused' : 'patch');
            if (reading.kind === 'refused' || next === 'refused') continue;
            const inverse = inverseOf(settings, reading.patch);
            const after = settingsWith(settings, reading.patch);
            expect(documentOf(after)).toEqual(sorted(next));
            expect(documentOf(settingsWith(after, inverse))).toEqual(before);
            expect(after.routes).toBe(next.routes.length);
            expect(diffOf(settings, reading.patch).length === 0).toBe(isEmptyPatch(reading.patch));
            expected = next;
            settings = after;
          }
        }),
        { numRuns: 200 },
      );
    },
  );

  test('a document makes itself true from wherever there is, and its patch is empty when it is', { timeout: 20_000 }, () => {
    const transactions = fc.array(operation, { maxLength: 10 });
    fc.assert(
      fc.property(transactions, transactions, (one, other) => {
        const from = patchOfOperations(NO_SETTINGS, one);
        const to = patchOfOperations(NO_SETTINGS, other);
        if (from.kind === 'refused' || to.kind === 'refused') return;
        const before = settingsWith(NO_SETTINGS, from.patch);
        const wanted = documentOf(settingsWith(NO_SETTINGS, to.patch));
        const patch = patchOf(patchToDocument(before, wanted));
        const after = settingsWith(before, patch);
        expect(documentOf(after)).toEqual(wanted);
        expect(isEmptyPatch(patchOf(patchToDocument(after, wanted)))).toBe(true);
        expect(documentOf(settingsWith(after, inverseOf(before, patch)))).toEqual(documentOf(before));
      }),
    );
  });

  test('a schema takes what the design shows, and says of the rest what is wrong and where', () => {
    const faults = (document: unknown): readonly string[] =>
      documentSchema.safeParse(document).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? [];
    expect(faults(SHOP)).toEqual([]);
    expect(faults({})).toEqual([]);
    const route = (over: object): object => ({ routes: [{ match: { host: 'a.test', ...over }, service: 'a' }] });
    expect(faults(route({ host: 'A.test' }))[0]).toMatch(/^routes\.0\.match\.host: .*lower-case/);
    expect(faults(route({ path: '~(a+)+\\1' }))[0]).toMatch(/^routes\.0\.match\.path: /);
    expect(faults(route({ path: '~(?=a)' }))[0]).toMatch(/^routes\.0\.match\.path: /);
    expect(faults(route({ path: 'x' }))[0]).toContain('does not start with /');
    expect(faults(route({ methods: ['get'] }))[0]).toContain('is written GET');
    expect(faults(route({ pth: '/x' }))[0]).toContain('routes.0.match: ');
    const endpoint = (url: string): readonly string[] => faults({ services: { a: { endpoints: [url] } } });
    expect(endpoint('http://127.0.0.1:9001')).toEqual([]);
    expect(endpoint('http://[::1]:9001')).toEqual([]);
    expect(endpoint('http://localhost:9001')[0]).toContain('IP address');
    expect(endpoint('http://127.1:80')[0]).toContain('no IP address');
    expect(endpoint('ftp://127.0.0.1')[0]).toContain('http://ADDRESS:PORT');
    expect(endpoint('http://127.0.0.1:70000')[0]).toContain('no port');
    expect(endpoint('http://127.0.0.1:80/x')[0]).toContain('nothing behind it');
    expect(faults({ services: { _operator: { endpoints: [] } } })).toHaveLength(1);
    expect(hasPrototypeKey(JSON.parse('{"routes":[{"match":{"headers":{"__proto__":"x"}}}]}'))).toBe(true);
    expect(hasPrototypeKey(SHOP)).toBe(false);
    const odd: unknown = JSON.parse('{"services":{"__proto__":{"endpoints":[]}}}');
    expect(Object.getPrototypeOf(documentSchema.parse(odd).services)).toBe(Object.prototype);
    expect(operationSchema.safeParse({ op: 'drop-everything' }).success).toBe(false);
  });

  test('problems name the place: an unknown service, a route twice, a service in use, too many routes of a host', () => {
    const document = documentSchema.parse({
      ...SHOP,
      routes: [...SHOP.routes, { match: { host: 'shop.test', path: '/' }, service: 'none' }],
    });
    expect(problemsOf(patchToDocument(NO_SETTINGS, document))).toEqual([
      'routes[2].match: the same as routes[0].match',
      'routes[2].service: there is no service "none"',
    ]);
    const settings = settingsOf(SHOP);
    const refused = (...operations: Operation[]): readonly string[] => problemsOf(patchOfOperations(settings, operations));
    expect(refused({ op: 'remove-service', name: 'shop' })).toEqual(['services.shop: 1 routes lead to it']);
    expect(refused({ op: 'remove-service', name: 'none' })).toEqual(['operations[0].name: there is no service "none"']);
    expect(refused({ op: 'remove-route', match: { host: 'shop.test', path: '/none' } })).toEqual([
      'operations[0].match: there is no such route of shop.test',
    ]);
    expect(refused({ op: 'put-route', route: { match: { host: 'x.test' }, service: 'none' } })).toEqual([
      'the route of x.test/: there is no service "none"',
    ]);
    const many = Array.from({ length: 1001 }, (_, index): Operation => ({
      op: 'put-route',
      route: { match: { host: 'shop.test', path: `/${String(index)}` }, service: 'shop' },
    }));
    expect(refused(...many)[0]).toBe('operations[998].route: shop.test would have more than 1000 routes');
  });

  test('docs/routes.schema.json is that of the code (bin/ecluse config-schema --routes >docs/routes.schema.json; npx oxfmt docs)', async () => {
    const kept: unknown = JSON.parse(await readFile(join(import.meta.dirname, '../../../../docs/routes.schema.json'), 'utf8'));
    expect(kept).toEqual(JSON.parse(JSON.stringify(documentJsonSchema())));
  });

  test('a diff tells a change of order, which counts for expressions', () => {
    const of = (...paths: readonly string[]): EdgeSettings =>
      settingsOf({
        services: { a: { endpoints: [] } },
        routes: paths.map((path) => ({ match: { host: 'x.test', path }, service: 'a' })),
      });
    const before = of('~^/a', '~^/b', '/c');
    const wanted = documentOf(of('~^/b', '~^/a', '/d'));
    const diff = diffOf(before, patchOf(patchToDocument(before, wanted)));
    expect(diff.map(({ change, kind, name }) => `${change} ${kind} ${name}`)).toEqual([
      'changed order x.test',
      'removed route x.test/c',
      'added route x.test/d',
    ]);
  });

  test('a host may be called like something that every object has', () => {
    const settings = settingsOf({
      services: { a: { endpoints: [] } },
      routes: [{ match: { host: 'constructor' }, service: 'a' }],
    });
    expect(documentOf(settingsWith(settings, patchOf(patchToDocument(settings, { services: {}, routes: [] }))))).toEqual({
      services: {},
      routes: [],
    });
  });

  test('endpoints with health checks are counted over all changes, and refused where there are too many', () => {
    const checked = (ports: number): ServiceSettings => ({
      endpoints: Array.from({ length: ports }, (_, index) => `http://10.0.0.1:${String(index + 1)}`),
      health: { path: '/' },
    });
    const put = (name: string, wanted: ServiceSettings): Operation => ({ op: 'put-service', name, service: wanted });
    const full = ['a', 'b', 'c', 'd', 'e'].map((name) => put(name, checked(1000)));
    let settings = settingsWith(NO_SETTINGS, patchOf(patchOfOperations(NO_SETTINGS, full)));
    expect(settings.checks).toBe(5000);
    const more = patchOfOperations(settings, [put('f', checked(1))]);
    expect(problemsOf(more)).toEqual(['services: more than 5000 endpoints have health checks']);
    const steps: readonly Operation[] = [
      put('a', checked(999)),
      put('b', { endpoints: [] }),
      { op: 'remove-service', name: 'c' },
    ];
    for (const step of steps) settings = settingsWith(settings, patchOf(patchOfOperations(settings, [step])));
    expect(settings.checks).toBe(2999);
  });

  test('lint says which wishes of a service come to nothing', () => {
    const endpoints = ['http://127.0.0.1:1'];
    const two = [...endpoints, 'http://127.0.0.1:2'];
    const services: Record<string, ServiceSettings> = {
      alone: { endpoints, balance: 'round-robin' },
      fine: {
        endpoints: two,
        balance: 'round-robin',
        health: { path: '/' },
        limits: { connections: 1, pending: 1, hold: '1s' },
      },
      hangs: { endpoints: two, health: { path: '/', interval: '2s', timeout: '2s' } },
      hold: { endpoints: two, limits: { hold: '1s' } },
      pending: { endpoints: two, limits: { pending: 1 } },
    };
    const settings = settingsOf({
      services,
      routes: Object.keys(services).map((name) => ({ match: { host: `${name}.test` }, service: name })),
    });
    expect(
      lintSettings(settings, new Map(), Date.now())
        .map(({ at, message }) => `${at}: ${message}`)
        .toSorted(),
    ).toEqual([
      'services.alone: it has one endpoint: there is nothing to balance',
      'services.hangs: health.timeout is no shorter than health.interval: an endpoint that hangs is checked less often than that',
      'services.hold: limits.hold without limits.pending: no request waits',
      "services.pending: limits.pending without limits.connections: requests wait only where an endpoint has all that the node's edge.limits allow",
    ]);
  });

  test('lint says what is hardly meant', () => {
    const settings = settingsOf({
      services: { shop: { endpoints: ['http://127.0.0.1:1'] }, empty: { endpoints: [] }, unused: { endpoints: [] } },
      routes: [
        { match: { host: 'shop.test', path: '/' }, service: 'shop' },
        { match: { host: 'shop.test', path: '~^/v[0-9]+' }, service: 'empty' },
        { match: { host: 'api.test', path: '/v1' }, service: 'shop' },
        { match: { host: 'api.test', path: '~^/v1/[a-z]+' }, service: 'shop' },
        { match: { host: 'api.test', path: '~^/v2' }, service: 'shop' },
        { match: { host: 'api.test', path: '~^/v1/?x' }, service: 'shop' },
        { match: { host: 'api.test', path: '~^/v1/a/|^/b' }, service: 'shop' },
      ],
    });
    const containers = new Map([['shop.test', [{ host: 'shop.test', path: '/', serviceId: 'acme/shop' }]]]);
    expect(
      lintSettings(settings, containers, Date.now())
        .map(({ at, message }) => `${at}: ${message}`)
        .toSorted(),
    ).toEqual([
      'api.test ~^/v1/[a-z]+: never asked: api.test/v1 takes all of its requests before it',
      'services.empty: it has no endpoint: 1 routes answer 503',
      'services.unused: no route leads to it',
      'shop.test ~^/v[0-9]+: never asked: shop.test/ takes all of its requests before it',
      'shop.test/: it hides the route of containers to acme/shop',
    ]);
  });
});
