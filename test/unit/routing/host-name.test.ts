import { describe, expect, test } from 'vitest';
import { normaliseRequestHost, parseRouteHost } from '#routing/host-name.ts';
import { hasPrefix, pathOf } from '#routing/path-prefix.ts';

describe('parseRouteHost()', () => {
  test('reads exact, wildcard and any', () => {
    expect(parseRouteHost('shop.example.com')).toEqual({ kind: 'exact', name: 'shop.example.com' });
    expect(parseRouteHost('*.example.com')).toEqual({ kind: 'wildcard', suffix: 'example.com' });
    expect(parseRouteHost('*')).toEqual({ kind: 'any' });
  });

  test.each([
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    '-a.b',
    'a-.b',
    'a_b',
    'A.b',
    '*.*.b',
    'a.*',
    'a:80',
    `${'a'.repeat(64)}.b`,
    'a.'.repeat(127) + 'bb',
  ])('refuses "%s"', (text) => {
    expect(parseRouteHost(text).kind).toBe('invalid');
  });
});

describe('normaliseRequestHost()', () => {
  test.each([
    ['Shop.Example.COM:8080', 'shop.example.com'],
    ['shop.example.com.', 'shop.example.com'],
    ['shop.example.com.:443', 'shop.example.com'],
    ['localhost', 'localhost'],
    ['127.0.0.1:80', '127.0.0.1'],
    ['[::1]:80', '[::1]'],
    ['a:', 'a'],
  ])('reads %s as %s', (header, host) => {
    expect(normaliseRequestHost(header)).toBe(host);
  });

  test.each(['', '.', 'a b', 'a/b', 'a@b', 'a:b', 'a:99999', 'a..b', '.a', 'a..', '[::1', 'a,b', 'é', 'a'.repeat(254)])(
    'refuses "%s"',
    (header) => {
      expect(normaliseRequestHost(header)).toBeUndefined();
    },
  );
});

describe('paths', () => {
  test('hasPrefix() compares whole segments', () => {
    expect(['/x', '/x/', '/x/y', '/xy', '/', '/y/x'].map((path) => hasPrefix(path, '/x'))).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(hasPrefix('/anything', '')).toBe(true);
  });

  test.each([
    ['/a/b?c=/../d', '/a/b'],
    ['/public/../admin', '/admin'],
    ['/public/%2e%2E/admin', '/admin'],
    ['/a/./b/.', '/a/b/'],
    ['/../../a', '/a'],
    ['/a/..', '/'],
    ['/...', '/...'],
  ])('pathOf(%s) is %s', (target, path) => {
    expect(pathOf(target)).toBe(path);
  });
});
