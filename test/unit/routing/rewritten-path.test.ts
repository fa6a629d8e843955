import { describe, expect, test } from 'vitest';
import { locationOf, redirectFault, sentPath } from '#routing/rewritten-path.ts';

describe('sentPath()', () => {
  test.each([
    ['/api/x', '/api', '/x'],
    ['/api', '/api', '/'],
    ['/api/', '/api', '/'],
    ['/api/x/', '/api', '/x/'],
    ['/apix', '/api', '/apix'],
    ['/x/api/y', '/api', '/x/api/y'],
    ['/x/../api/y', '/api', '/y'],
    ['/api/../x', '/api', '/../x'],
    ['/%61pi/x', '/api', '/%61pi/x'],
    ['*', '/api', '*'],
  ])('%s without %s is %s', (path, prefix, sent) => {
    expect(sentPath(path, prefix)).toBe(sent);
  });
});

describe('redirectFault()', () => {
  test.each([
    'https://{host}{uri}',
    'https://www.{host}{uri}',
    'https://{host}:8443{path}',
    'https://shop.example.com/new{path}?from={host}',
    'http://[::1]:80/',
    'https://a.test',
    'https://a.test{query}',
    '/new{path}{query}',
    '/',
  ])('lets %s through', (to) => {
    expect(redirectFault(to)).toBeUndefined();
  });

  test.each([
    ['', 'characters'],
    ['https://', 'no URL with a host'],
    ['https://{path}', 'no URL with a host'],
    ['https://a.test{host}', 'no URL with a host'],
    ['https://user@a.test/', 'no URL with a host'],
    ['https://a.test:99999/', 'no URL with a host'],
    ['javascript:alert(1)', 'write https://HOST/PATH'],
    ['//evil.test/', 'two slashes'],
    ['/{path}', 'two slashes'],
    ['/{uri}', 'two slashes'],
    ['{uri}', 'write https://HOST/PATH'],
    ['/a{b}', '{b} is not known'],
    ['/a{', 'a brace is open'],
    ['/a b', 'characters'],
    ['/a\r\nX: y', 'characters'],
    [`/${'x'.repeat(2048)}`, 'longer than'],
  ])('refuses %j', (to, reason) => {
    expect(redirectFault(to)).toContain(reason);
  });
});

test('locationOf() puts in what the request says', () => {
  const facts = { host: 'a.test', path: '/x', query: '?y=$&' };
  expect(locationOf('https://{host}{uri}', facts)).toBe('https://a.test/x?y=$&');
  expect(locationOf('/new{path}{query}', facts)).toBe('/new/x?y=$&');
  expect(locationOf('/old', facts)).toBe('/old');
});
