import { assert, constantFrom, pre, property, string as anyString } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expandWord, quoteWord, splitPaths, splitWords } from '#caas/build/dockerfile-words.ts';

const values = new Map([
  ['A', 'one'],
  ['EMPTY', ''],
]);
const expand = (word: string) => expandWord(word, (name) => values.get(name), '\\');

describe('words of a Dockerfile', () => {
  it.each([
    ['busybox:$A', 'busybox:one'],
    ['busybox:${A}', 'busybox:one'],
    ['${B:-two}', 'two'],
    ['${EMPTY:-two}', 'two'],
    ['${A:+three}', 'three'],
    ['${B:+three}', ''],
    ['${B:-${A}x}', 'onex'],
    ['$B', ''],
    ['\\$A', '$A'],
    ["'$A'", '$A'],
    ['"$A\\$A"', 'one$A'],
    ['h\\ttp', 'http'],
    ['ht"tp"', 'http'],
    ['a$', 'a$'],
    ['\uFEFFhttp', 'http'],
  ])('expands %s', (word, expected) => {
    expect(expand(word)).toBe(expected);
  });

  it.each([
    ['${A', /missing ':' in substitution|missing '}'/],
    ['${}', /bad substitution/],
    ['${B:?must}', /B: must/],
    ['${B?}', /B: is not allowed to be unset/],
    ['"a', /matching double-quote/],
    ["'a", /matching single-quote/],
    ['${A:=x}', /unsupported modifier \(=\)/],
  ])('refuses %s in moby’s words', (word, message) => {
    expect(() => expand(word)).toThrow(message);
  });

  it('quotes any text so that it expands to itself', () => {
    assert(
      property(anyString({ unit: 'binary' }), constantFrom('\\', '`'), (text, escape) => {
        pre(!text.startsWith('\uFEFF'));
        expect(expandWord(quoteWord(text, escape), () => 'never', escape)).toBe(text);
      }),
      { numRuns: 50 },
    );
  }, 20_000);

  it.each([
    ['a=b c="d e" f=g\\ h', ['a=b', 'c="d e"', 'f=g\\ h']],
    ["  a  'b c'", ['a', "'b c'"]],
    ['a=""', ['a=""']],
  ])('splits %s', (text, expected) => {
    expect(splitWords(text, '\\')).toEqual(expected);
  });

  it.each([
    ['a  b\tc', ['a', 'b', 'c']],
    ['["a b", "c"]', ['a b', 'c']],
    // Go's decoder reads one value and leaves what follows.
    ['["a", "b"] http://x', ['a', 'b']],
    ['[a, b]', ['[a,', 'b]']],
    ['["a]", "b\\"]"]', ['a]', 'b"]']],
  ])('takes the paths of %s', (text, expected) => {
    expect(splitPaths(text)).toEqual(expected);
  });
});
