import { describe, expect, test } from 'vitest';
import { KeptHead } from '#proxy/connection/kept-head.ts';

const HEAD = 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n';

function kept(text: string): KeptHead {
  const head = new KeptHead();
  head.keep(Buffer.from(`..${text}`), 2, 2 + text.length);
  head.repeatable = true;
  return head;
}

function repeats(head: KeptHead, text: string): boolean {
  const bytes = Buffer.from(`---${text}`);
  return head.isRepeatedBy(bytes, 3, bytes.length);
}

describe('KeptHead', () => {
  test('knows the same bytes again, whatever follows them', () => {
    expect(repeats(kept(HEAD), HEAD)).toBe(true);
    expect(repeats(kept(HEAD), `${HEAD}body`)).toBe(true);
  });

  test.each([
    ['one octet differs', HEAD.replace('a.test', 'b.test')],
    ['the case of a name differs', HEAD.replace('Host', 'host')],
    ['it is cut short', HEAD.slice(0, -1)],
    ['it goes on where the other ends', HEAD.replace('\r\n\r\n', '\r\nX: 1\r\n\r\n')],
    ['an empty line comes first', `\r\n${HEAD}`],
  ])('not where %s', (_title, text) => {
    expect(repeats(kept(HEAD), text)).toBe(false);
  });

  test('not where nobody said that it may be, nor after another one was kept', () => {
    const head = kept(HEAD);
    head.repeatable = false;
    expect(repeats(head, HEAD)).toBe(false);
    const other = kept(HEAD);
    other.keep(Buffer.from('POST'), 0, 4);
    expect(repeats(other, HEAD)).toBe(false);
    expect(repeats(other, 'POST')).toBe(false);
  });

  test('holds heads of any length, each in its own bytes', () => {
    const head = new KeptHead();
    for (const length of [1, 500, 513, 4096, 30_000, 20]) {
      const text = 'x'.repeat(length);
      head.keep(Buffer.from(text), 0, length);
      expect(head.bytes.toString('latin1', 0, head.length)).toBe(text);
    }
  });

  test('tries again, now and then, after many that were others', () => {
    const head = kept(HEAD);
    for (let round = 0; round < 100; round += 1) expect(repeats(head, HEAD.replace('a.test', 'b.test'))).toBe(false);
    const tries = Array.from({ length: 64 }, () => repeats(head, HEAD));
    expect(tries).toContain(true);
    expect(tries.at(-1)).toBe(true); // Once it was right, it is asked each time.
  });
});
