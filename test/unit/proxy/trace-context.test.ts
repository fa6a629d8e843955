import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readTraceparent } from '#proxy/trace-context.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT = '00f067aa0ba902b7';
const VALID = `00-${TRACE}-${PARENT}-01`;

/** In the middle of other bytes, which are digits where a value could go on. */
function valid(text: string): boolean {
  const buffer = Buffer.from(`0a-0${text}0a-0`, 'latin1');
  return readTraceparent(buffer, 4, buffer.length - 4);
}

describe('readTraceparent()', () => {
  test.each([
    ['an example', VALID],
    ['no flag', `00-${TRACE}-${PARENT}-00`],
    ['all flags', `00-${TRACE}-${PARENT}-ff`],
    ['one bit in each id', `00-${'0'.repeat(31)}1-1${'0'.repeat(15)}-00`],
    ['a later version', `01-${TRACE}-${PARENT}-01`],
    ['the last version', `fe-${TRACE}-${PARENT}-01`],
    ['a later version with more', `cc-${TRACE}-${PARENT}-01-what-the-future-will-be-like`],
    ['a later version with an empty rest', `cc-${TRACE}-${PARENT}-01-`],
  ])('takes %s', (_, text) => {
    expect(valid(text)).toBe(true);
  });

  test.each([
    ['nothing', ''],
    ['one character too few', VALID.slice(0, -1)],
    ['version ff', `ff-${TRACE}-${PARENT}-01`],
    ['version 00 with more', `${VALID}-`],
    ['version 00 with much more', `${VALID}-what-the-future-will-be-like`],
    ['version 00 with a digit', `${VALID}0`],
    ['a later version with a digit', `cc-${TRACE}-${PARENT}-010`],
    ['a later version with a dot', `cc-${TRACE}-${PARENT}-01.what`],
    ['a trace id of zeros', `00-${'0'.repeat(32)}-${PARENT}-01`],
    ['a parent id of zeros', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['a later version with zeros', `01-${TRACE}-${'0'.repeat(16)}-01`],
    ['capitals in the trace id', `00-${TRACE.toUpperCase()}-${PARENT}-01`],
    ['capitals in the parent id', `00-${TRACE}-${PARENT.toUpperCase()}-01`],
    ['capitals in the flags', `00-${TRACE}-${PARENT}-0A`],
    ['capitals in the version', `0A-${TRACE}-${PARENT}-01`],
    ['a letter after f', `00-${TRACE.slice(0, -1)}g-${PARENT}-01`],
    ['a character between 9 and a', `00-${TRACE.slice(0, -1)}:-${PARENT}-01`],
    ['a flag that is none', `00-${TRACE}-${PARENT}-.1`],
    ['a space first', ` ${VALID}`],
    ['a space after', `${VALID} `],
    ['underscores', VALID.replaceAll('-', '_')],
    ['a dash in an id', `00-${TRACE.slice(0, 15)}-${TRACE.slice(16)}-${PARENT}-01`],
    ['an octet above ASCII', `00-${TRACE.slice(0, -1)}\xe1-${PARENT}-01`],
    ['a trace id of 64 bits', `00-${TRACE.slice(16)}-${PARENT}-01`],
  ])('refuses %s', (_, text) => {
    expect(valid(text)).toBe(false);
  });
});

test('readTraceparent() takes what the grammar has, and nothing else', () => {
  const grammar =
    /^(?!ff)(?:00-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}|(?!00)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}(?:-.*)?)$/s;
  const nearly = fc
    .record({
      version: fc.constantFrom('00', 'ff', '01', 'a0'),
      at: fc.nat(60),
      octet: fc.nat(255),
      rest: fc.constantFrom('', '-', '0', '-x'),
    })
    .map(({ version, at, octet, rest }) => {
      const text = `${version}${VALID.slice(2)}${rest}`;
      return at < text.length ? text.slice(0, at) + String.fromCodePoint(octet) + text.slice(at + 1) : text;
    });
  fc.assert(
    fc.property(nearly, (text) => {
      expect(valid(text)).toBe(grammar.test(text));
    }),
    { numRuns: 1_000 },
  );
});
