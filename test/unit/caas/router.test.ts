/** Routes as data: which pattern a path fits, and Docker's words where none does. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Router } from '#caas/docker-api/router.ts';
import type { DockerRoute } from '#caas/docker-api/router.ts';
import { RateLimit } from '#caas/docker-api/rate-limit.ts';

function route(method: DockerRoute['method'], pattern: string): DockerRoute {
  return {
    method,
    pattern,
    answer: async () => {
      await Promise.resolve();
    },
  };
}

const router = new Router([
  route('GET', '/images/json'),
  route('GET', '/images/{*}/json'),
  route('GET', '/images/{*}/get'),
  route('DELETE', '/images/{*}'),
  route('GET', '/containers/json'),
  route('GET', '/containers/{}/json'),
  route('POST', '/containers/{}/exec'),
]);

function ask(method: string, path: string): string {
  try {
    const found = router.find('answer', method, path.slice(1).split('/'));
    return [found.route.pattern, ...found.params].join(' ');
  } catch (error) {
    return error instanceof Error ? error.message : 'no error';
  }
}

describe('Router', () => {
  test.each([
    ['GET', '/images/json', '/images/json'],
    ['GET', '/images/a/b/c/json', '/images/{*}/json a/b/c'],
    ['GET', '/images/json/json', '/images/{*}/json json'],
    ['GET', '/images/host:5000/x/get', '/images/{*}/get host:5000/x'],
    ['DELETE', '/images/a/json', '/images/{*} a/json'],
    ['GET', '/containers/json', '/containers/json'],
    ['GET', '/containers/web/json', '/containers/{}/json web'],
    ['GET', '/containers/a/b/json', 'page not found'],
    ['POST', '/containers//exec', 'page not found'],
    ['POST', '/containers/web/json', 'page not found'],
    ['GET', '/images//json', 'page not found'],
    ['GET', '/debug/pprof', 'page not found'],
    [
      'GET',
      '/services',
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    ],
  ])('%s %s', (method, path, expected) => {
    expect(ask(method, path)).toBe(expected);
  });

  test('never hands out an empty parameter', () => {
    const part = fc.constantFrom('images', 'containers', 'json', 'get', 'exec', 'a', '');
    fc.assert(
      fc.property(fc.constantFrom('GET', 'POST', 'DELETE'), fc.array(part, { minLength: 1, maxLength: 6 }), (method, parts) => {
        const answer = ask(method, `/${parts.join('/')}`);
        expect(answer).not.toMatch(/ $|  /);
      }),
    );
  });
});

test('a tenant that asks without pause is slowed down to its rate, and another is not', () => {
  const limit = new RateLimit();
  let allowed = 0;
  while (limit.take('acme', 0) === undefined) allowed += 1;
  expect(allowed).toBe(2000);
  expect(limit.take('acme', 0)).toBe(1);
  expect(limit.take('rival', 0)).toBeUndefined();
  for (let count = 0; count < 200; count += 1) expect(limit.take('acme', 1000)).toBeUndefined();
  expect(limit.take('acme', 1000)).toBe(1);
  expect(limit.take('acme', 500)).toBe(1); // A clock that goes back gives nothing.
});
