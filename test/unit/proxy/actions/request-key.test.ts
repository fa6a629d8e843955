import { describe, expect, test } from 'vitest';
import { cookieOf, keyOf } from '#proxy/actions/request-key.ts';

const facts = (client: string, fields: Readonly<Record<string, string>> = {}) => ({
  client,
  requestField: (name: string) => fields[name],
});

describe('keyOf()', () => {
  test('takes an address of IPv4 whole, and the first 64 bits of one of IPv6', () => {
    const key = (client: string): string => keyOf({ kind: 'ip' }, facts(client));
    expect(key('192.0.2.1')).not.toBe(key('192.0.2.2'));
    expect(key('2001:db8::1')).toBe(key('2001:db8:0:0:ffff::2'));
    expect(key('2001:db8::1')).not.toBe(key('2001:db8:0:1::1'));
  });

  test('takes a field or a cookie, and the address of who has none', () => {
    const header = { kind: 'header', name: 'x-key' } as const;
    expect(keyOf(header, facts('192.0.2.1', { 'x-key': 'k' }))).toBe('=k');
    expect(keyOf(header, facts('192.0.2.1'))).toBe('192.0.2.1');
    expect(keyOf({ kind: 'cookie', name: 'id' }, facts('192.0.2.1', { cookie: 'a=1; id=2' }))).toBe('=2');
    expect(keyOf({ kind: 'all' }, facts('192.0.2.1'))).toBe('');
  });

  test('is short whatever a client sends, and cannot be another address', () => {
    const header = { kind: 'header', name: 'x-key' } as const;
    const long = keyOf(header, facts('192.0.2.1', { 'x-key': 'x'.repeat(8000) }));
    expect([long.length < 50, long.startsWith('#')]).toEqual([true, true]);
    expect(keyOf(header, facts('192.0.2.1', { 'x-key': '192.0.2.9' }))).not.toBe(keyOf({ kind: 'ip' }, facts('192.0.2.9')));
  });
});

test('cookieOf() gives the first of a name', () => {
  expect(cookieOf('b=2; a = x=y ;a=3', 'a')).toBe('x=y');
  expect(cookieOf('aa=1', 'a')).toBeUndefined();
  expect(cookieOf(undefined, 'a')).toBeUndefined();
});
