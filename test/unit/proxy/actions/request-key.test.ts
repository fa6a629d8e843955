import { describe, expect, test } from 'vitest';
import { keyOf } from '#proxy/actions/request-key.ts';

/** A request of a client with these fields. */
function facts(client: string, fields: Readonly<Record<string, string>> = {}) {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = Buffer.from(`GET / HTTP/1.1\r\nHost: a.test\r\n${lines.join('')}\r\n`, 'latin1');
  return { client, head, headBytes: head.length };
}

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

test.each([
  ['b=2; a = x', 'a', undefined], // RFC 6265 §4.1.1: no blank belongs to a name.
  ['b=2; a=x=y ;a=3', 'a', '=x=y'],
  ['a="quoted"', 'a', '=quoted'],
  ['aa=1', 'a', undefined],
  ['A=1', 'a', undefined],
  ['a=; a=2', 'a', '=2'],
])('of the cookies %s that called %s counts', (cookie, name, expected) => {
  expect(keyOf({ kind: 'cookie', name }, facts('192.0.2.1', { cookie }))).toBe(expected ?? '192.0.2.1');
});
