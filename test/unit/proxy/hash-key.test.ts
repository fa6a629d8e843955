import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hashKeyOf } from '#proxy/hash-key.ts';
import { hashText } from '#routing/balance.ts';
import type { Balance } from '#routing/route-table.ts';

/** The head lies in a buffer that is longer, as it does in a worker. */
function headOf(lines: readonly string[]): { client: string; head: Buffer; headBytes: number } {
  const text = `GET / HTTP/1.1\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;
  return {
    client: '192.0.2.1',
    head: Buffer.from(`${text}X-User: behind\r\nCookie: sid=behind\r\n`, 'latin1'),
    headBytes: text.length,
  };
}

const byHeader: Balance = { kind: 'hash-header', name: 'x-user' };
const byCookie: Balance = { kind: 'hash-cookie', name: 'sid' };

describe('hashKeyOf()', () => {
  test.each([
    [['X-User: ann'], 'ann'],
    [['Host: x', 'x-USER:\t ann \t'], 'ann'],
    [['X-User:', 'X-User: ann', 'X-User: bob'], 'ann'],
    [['X-User2: ann', 'AX-User: ann'], undefined],
    [['Y: X-User: ann'], undefined],
    [[], undefined],
  ])('of a field: %j gives %j', (lines, value) => {
    expect(hashKeyOf(byHeader, headOf(lines))).toBe(value === undefined ? undefined : hashText(value));
  });

  test.each([
    [['Cookie: sid=1'], '1'],
    [['cookie: a=2; sid=1; b=3'], '1'],
    [['Cookie: a=2;sid="1"'], '1'],
    [['Cookie: xsid=2; SID=3; sid=1'], '1'],
    [['Cookie: a=2', 'Cookie: sid=1'], '1'],
    [['Cookie: sid=', 'X: sid=1'], undefined],
    [['Cookie: a="; sid=1"'], '1"'], // RFC 6265 knows no semicolons in quotes.
    [['X-Cookie: sid=1'], undefined],
  ])('of a cookie: %j gives %j', (lines, value) => {
    expect(hashKeyOf(byCookie, headOf(lines))).toBe(value === undefined ? undefined : hashText(value));
  });

  test('of a cookie is what splitting at semicolons gives', () => {
    const text = fc.string({ unit: fc.constantFrom('s', 'i', 'd', '=', ';', ' ', 'x', '"'), maxLength: 30 });
    fc.assert(
      fc.property(text, (cookies) => {
        const values = cookies.split(';').flatMap((pair) => {
          const trimmed = pair.replace(/^ +/, '');
          const value = trimmed.startsWith('sid=') ? trimmed.slice(4) : '';
          const bare = (/^"(.+)"$/.exec(value)?.[1] ?? value).replaceAll(/^ +| +$/g, '');
          return bare === '' ? [] : [bare];
        });
        const expected = values[0] === undefined ? undefined : hashText(values[0]);
        expect(hashKeyOf(byCookie, headOf([`Cookie: ${cookies}`]))).toBe(expected);
      }),
      { examples: [['sid="1" '], ['sid= ;sid=x']] },
    );
  });

  test('of an address, and of nothing', () => {
    expect(hashKeyOf({ kind: 'hash-ip' }, headOf([]))).toBe(hashText('192.0.2.1'));
    expect(hashKeyOf({ kind: 'round-robin' }, headOf([]))).toBeUndefined();
  });
});
