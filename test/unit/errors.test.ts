/** Errors on one line. */
import { describe, expect, test } from 'vitest';
import { reasonOf } from '#errors';

describe('reasonOf()', () => {
  test.each([
    ['a', 'a'],
    ['  a \n\n  b\t\nc  d ', 'a b c  d'],
    ['\n', ''],
  ])('%j', (message, line) => {
    expect(reasonOf(new Error(message))).toBe(line);
    expect(reasonOf(message)).toBe(line);
  });

  test('a long run of blanks costs no more than its length', () => {
    const blanks = `a${' '.repeat(1_000_000)}b`;
    expect(reasonOf(blanks)).toBe(blanks);
  });
});
