import { describe, expect, test } from 'vitest';
import { actionsOf } from '#routing/operator/action-schema.ts';
import { routeOf } from '#routing/operator/compile-settings.ts';
import { documentSchema, servicesOf } from '#routing/operator/schema.ts';
import type { EdgeDocument } from '#routing/operator/schema.ts';
import { lintSettings } from '#routing/operator/lint.ts';
import { NO_SETTINGS, patchToDocument, settingsWith } from '#routing/operator/settings.ts';
import { compileRoutes } from '#routing/compile.ts';
import { explainRequest } from '#routing/explain.ts';
import { serviceOf } from '#routing/operator/compile-settings.ts';

const SERVICES = {
  shop: { endpoints: ['http://127.0.0.1:9001'] },
  next: { endpoints: ['http://127.0.0.1:9002'] },
  login: { endpoints: ['http://127.0.0.1:9003'] },
};
const HASH = `$scrypt$ln=14,r=8,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`;

function documentWith(route: object): unknown {
  return { services: SERVICES, routes: [{ match: { host: 'a.test' }, ...route }] };
}

/** What is wrong, with its path; empty: nothing. */
function faults(route: object): readonly string[] {
  const reading = documentSchema.safeParse(documentWith(route));
  return reading.success ? [] : reading.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
}

function parsed(route: object): EdgeDocument {
  return documentSchema.parse(documentWith(route));
}

describe('actions', () => {
  test.each([
    [{ stripPrefix: '/' }, 'nothing to strip'],
    [{ stripPrefix: 'api' }, 'does not start with /'],
    [{ setRequestHeaders: { Connection: 'close' } }, 'Connection belongs to the connection'],
    [{ setRequestHeaders: { Transfer_Encoding: 'chunked' } }, 'Transfer_Encoding belongs to the connection'],
    [{ setRequestHeaders: { 'X-Forwarded-For': '1.2.3.4' } }, 'X-Forwarded-For belongs to the connection'],
    [{ setRequestHeaders: { 'X-Ecluse-Host': 'x' } }, 'X-Ecluse-Host belongs'],
    [{ setRequestHeaders: { Host: null } }, 'Host can only be a host'],
    [{ setRequestHeaders: { Host: 'a b' } }, 'Host can only be a host'],
    [{ setRequestHeaders: { 'X A': '1' } }, '"X A" is no name'],
    [{ setRequestHeaders: { 'X-A': 'a\r\nb' } }, 'cannot be sent'],
    [{ setRequestHeaders: { 'X-A': '' } }, 'cannot be sent'],
    [{ setRequestHeaders: { 'X-A': '1', 'x-a': '2' } }, 'there twice'],
    [{ setResponseHeaders: { 'Content-Length': '0' } }, 'Content-Length belongs'],
    [{ setResponseHeaders: { Date: 'now' } }, 'Date is the time'],
    [
      { setResponseHeaders: Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`X-${String(index)}`, '1'])) },
      'more than 32',
    ],
    [{ rateLimit: { requests: 0 } }, '>=1'],
    [{ rateLimit: { requests: 1, per: '1 fortnight' } }, 'not a value with a unit'],
    [{ rateLimit: { requests: 1, per: '2d' } }, 'use 100 to 86400000 ms'],
    [{ rateLimit: { requests: 1, by: 'moon' } }, 'write ip, header:NAME'],
    [{ rateLimit: { requests: 1, by: 'header:' } }, 'write ip, header:NAME'],
    [{ auth: {} }, 'either basic or forward'],
    [{ auth: { basic: { users: {} } } }, 'there is no user'],
    [{ auth: { basic: { users: { ann: 'secret' } } } }, 'ecluse hash-password'],
    [{ auth: { basic: { users: { 'a:b': HASH } } } }, 'without blanks and colons'],
    [{ auth: { basic: { realm: 'a"b', users: { ann: HASH } } } }, 'without quotes'],
    [{ auth: { forward: { service: 'login', path: 'x' } } }, 'write a path'],
    [{ auth: { forward: { service: 'login', pass: ['Connection'] } } }, 'Connection belongs'],
    [{ auth: { forward: { service: 'login', timeout: '2m' } } }, 'use 50 to 60000 ms'],
    [{ mirror: { service: 'next', percent: 101 } }, '<=100'],
    [{ mirrors: 'next' }, 'Unrecognized key'],
  ])('%j are refused with the reason', (actions, reason) => {
    expect(faults({ service: 'shop', actions }).join('\n')).toContain(reason);
  });

  test.each([
    [{ actions: { redirect: { to: '//evil.test' } } }, 'two slashes'],
    [{ actions: { redirect: { to: '/x', status: 200 } } }, 'actions.redirect.status'],
    [{ service: 'shop', actions: { redirect: { to: '/x' } } }, 'has no service and no split'],
    [{ actions: { redirect: { to: '/x' }, respond: { status: 200 } } }, 'either redirect or respond'],
    [{ actions: { respond: { status: 101 } } }, '>=200'],
    [{ actions: { respond: { status: 200, body: 'x'.repeat(70_000) } } }, '<=65536'],
    [{ actions: { respond: { status: 200 }, mirror: 'next' } }, 'is not mirrored'],
    [{ actions: { stripPrefix: '/x' } }, 'either service or split'],
    [{}, 'either service or split'],
  ])('a route %j is refused with the reason', (route, reason) => {
    expect(faults(route).join('\n')).toContain(reason);
  });

  test('services that are asked or copied to must be there, and cannot go', () => {
    const route = { service: 'shop', actions: { auth: { forward: { service: 'gone' } }, mirror: 'next' } };
    expect(patchToDocument(NO_SETTINGS, parsed(route))).toEqual({
      kind: 'refused',
      problems: [{ path: 'routes[0].service', message: 'there is no service "gone"' }],
    });
    const used = parsed({
      service: 'shop',
      actions: { auth: { forward: { service: 'login' } }, mirror: { service: 'next', percent: 5 } },
    });
    expect(used.routes.map(servicesOf)).toEqual([['shop', 'login', 'next']]);
    const reading = patchToDocument(NO_SETTINGS, used);
    const settings = reading.kind === 'patch' ? settingsWith(NO_SETTINGS, reading.patch) : NO_SETTINGS;
    expect(['shop', 'login', 'next'].map((name) => settings.uses.get(name))).toEqual([1, 1, 1]);
    const { login, ...others } = SERVICES;
    expect(login.endpoints).toHaveLength(1);
    const without = documentSchema.parse({ services: others, routes: used.routes });
    expect(patchToDocument(settings, without).kind).toBe('refused');
  });

  test('defaults are filled in', () => {
    const actions = actionsOf(
      {
        stripPrefix: '/api/',
        rateLimit: { requests: 7 },
        redirect: { to: '/x' },
        auth: { forward: { service: 'login' } },
        mirror: 'next',
        setRequestHeaders: { 'X-A': '1', 'X-B': null },
      },
      (name) => `_operator/${name}`,
    );
    expect(actions).toEqual({
      stripPrefix: '/api',
      rateLimit: { requests: 7, perMs: 1000, burst: 7, by: { kind: 'ip' } },
      redirect: { to: '/x', status: 302 },
      auth: { kind: 'forward', serviceId: '_operator/login', path: '/', timeoutMs: 5000, pass: [] },
      mirror: { serviceId: '_operator/next', percent: 100 },
      requestFields: [
        { name: 'x-a', written: 'X-A', value: '1' },
        { name: 'x-b', written: 'X-B', value: undefined },
      ],
    });
  });

  test('explain says what a request meets', () => {
    const routes = [
      {
        match: { host: 'a.test', path: '/r' },
        actions: { stripPrefix: '/r', redirect: { to: 'https://b.test{uri}', status: 301 as const } },
      },
      { match: { host: 'a.test', path: '/f' }, actions: { respond: { status: 404 } } },
      {
        match: { host: 'a.test' },
        service: 'shop',
        actions: { rateLimit: { requests: 5 }, auth: { basic: { users: { ann: HASH } } } },
      },
    ];
    const compiled = compileRoutes({
      version: 1,
      services: Object.entries(SERVICES).map(([name, service]) => serviceOf(name, service)),
      routes: routes.map(routeOf),
    });
    const outcome = (target: string): string =>
      compiled.kind === 'compiled'
        ? explainRequest(compiled.table, { host: 'a.test', target, method: 'GET', headers: {} }).outcome
        : compiled.reason;
    expect(outcome('/r/x?y=1')).toBe('301 to https://b.test/x?y=1');
    expect(outcome('/f')).toBe('404: the route answers itself');
    expect(outcome('/')).toBe('429 beyond 5 requests in 1000 ms, then 401 without a password, then sent to its endpoint');
  });

  test('lint says where a prefix is never stripped', () => {
    const document = documentSchema.parse({
      services: SERVICES,
      routes: ['/api', '/', '/other', '=/api/x', '=/x'].map((path, index) => ({
        match: { host: `${String(index)}.test`, path },
        service: 'shop',
        actions: { stripPrefix: '/api' },
      })),
    });
    const reading = patchToDocument(NO_SETTINGS, document);
    const settings = reading.kind === 'patch' ? settingsWith(NO_SETTINGS, reading.patch) : NO_SETTINGS;
    const said = lintSettings(settings, new Map(), Date.now()).filter(({ message }) => message.includes('never stripped'));
    expect(said.map(({ at }) => at).toSorted()).toEqual(['2.test/other', '4.test =/x']);
  });
});
