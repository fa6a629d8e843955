import { describe, expect, test } from 'vitest';
import { compileRoutes } from '#routing/compile.ts';
import type { Endpoint, Route } from '#routing/route-table.ts';

const ENDPOINT: Endpoint = { id: 'e', address: '127.0.0.1', port: 80, hostName: 'h', generation: 1 };

function compiled(routes: readonly Partial<Route>[], endpoints: readonly Endpoint[] = [ENDPOINT]): string {
  const result = compileRoutes({
    version: 7,
    services: [{ id: 's', tenant: 't', endpoints }],
    routes: routes.map((route) => ({ host: 'a.test', pathPrefix: '/', serviceId: 's', ...route })),
  });
  return result.kind === 'rejected' ? result.reason : `version ${String(result.table.version)}`;
}

describe('compileRoutes()', () => {
  test.each([
    ['an unknown service', [{ serviceId: 'gone' }], 'unknown service "gone"'],
    ['a duplicate of host and path', [{}, {}], 'defined twice'],
    ['a duplicate but for the slash', [{ pathPrefix: '/x' }, { pathPrefix: '/x/' }], 'defined twice'],
    ['an upper-case host', [{ host: 'A.test' }], 'lower-case'],
    ['a wildcard inside', [{ host: 'a.*.test' }], 'not a label'],
    ['an empty host', [{ host: '' }], 'not a label'],
    ['a path without a slash', [{ pathPrefix: 'x' }], 'start with /'],
    ['a path with dots', [{ pathPrefix: '/x/../y' }], 'dot segment'],
    ['a path with encoded dots', [{ pathPrefix: '/x/%2E%2e' }], 'dot segment'],
    ['a path with a query', [{ pathPrefix: '/x?y' }], 'characters'],
    ['an empty segment', [{ pathPrefix: '/x//y' }], 'empty segment'],
  ])('rejects %s', (_title, routes, reason) => {
    expect(compiled(routes)).toContain(reason);
  });

  test('rejects a service or an endpoint that occurs twice, and a port that is none', () => {
    expect(compiled([], [ENDPOINT, ENDPOINT])).toContain('twice');
    expect(compiled([], [{ ...ENDPOINT, port: 0 }])).toContain('port 0');
    const service = { id: 's', tenant: 't', endpoints: [] };
    expect(compileRoutes({ version: 1, services: [service, service], routes: [] }).kind).toBe('rejected');
  });

  test('gives a table that can cross processes', () => {
    const result = compileRoutes({
      version: 7,
      services: [{ id: 's', tenant: 't', endpoints: [ENDPOINT] }],
      routes: [{ host: '*', pathPrefix: '/', serviceId: 's' }],
    });
    expect(structuredClone(result)).toEqual(result);
  });
});
