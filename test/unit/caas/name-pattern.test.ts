/** Expressions of `docker ps --filter name=`. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileNamePattern } from '#caas/docker-api/name-pattern.ts';

function matches(pattern: string, text: string): boolean {
  const compiled = compileNamePattern(pattern);
  if (compiled.kind === 'refused') throw new Error(compiled.reason);
  return compiled.matches(text);
}

/** Expressions that JavaScript reads as Go does. */
const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\w', '\\d', '(?:ab|b)', '(a|)', '^', '$', '-');
const part = fc
  .tuple(atom, fc.constantFrom('', '', '*', '+', '?', '{1,2}', '*?'))
  .map(([one, times]) => (one === '^' || one === '$' ? one : `${one}${times}`));
const pattern = fc
  .array(fc.array(part, { maxLength: 5 }), { minLength: 1, maxLength: 3 })
  .map((sides) => sides.map((side) => side.join('')).join('|'));
const text = fc.string({ unit: fc.constantFrom('a', 'b', '1', '-', '_'), maxLength: 12 });

describe('compileNamePattern()', () => {
  test('matches what JavaScript’s own expressions match', () => {
    fc.assert(
      fc.property(pattern, text, (expression, name) => {
        expect(matches(expression, name), `${expression} on ${name}`).toBe(new RegExp(expression).test(name));
      }),
      { numRuns: 2000 },
    );
  });

  test('does not run away', () => {
    const name = 'a'.repeat(2000);
    for (const bomb of ['(a+)+$b', '(a|a)*c', '(.*)*x', '(a{1,5}){1,5}b', '((((){1000}){1000}){1000}){1000}b'])
      expect(matches(bomb, name)).toBe(false);
  });

  test.each([
    ['(', 'missing closing )'],
    ['a)', 'unexpected )'],
    ['[a', 'missing closing ]'],
    ['[b-a]', 'invalid character class range'],
    ['*a', 'missing argument'],
    ['a\\', 'trailing backslash'],
    ['(?i)a', 'not supported'],
    ['\\bweb', 'not supported'],
    ['[[:alpha:]]', 'not supported'],
    ['a{1000}{1000}', 'too large'],
    ['a'.repeat(300), 'too long'],
  ])('refuses %s', (expression, reason) => {
    expect(compileNamePattern(expression)).toEqual({ kind: 'refused', reason: expect.stringContaining(reason) as unknown });
  });
});
