/** Keys as Go's JSON decoder reads them. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { foldFields, foldKey, isZero } from '#caas/docker-api/go-json.ts';
import { containing } from '../../support/matchers.ts';

/** Every code point whose simple case fold is an ASCII letter (Unicode CaseFolding.txt, status C and S). */
const FOLDS_TO_ASCII: ReadonlyMap<string, string> = new Map([
  ...Array.from({ length: 26 }, (_value, index): [string, string] => [
    String.fromCodePoint(65 + index),
    String.fromCodePoint(97 + index),
  ]),
  ['\u017F', 's'],
  ['\u212A', 'k'],
]);

describe('foldKey()', () => {
  test('folds what Unicode folds to ASCII, and nothing else meets an ASCII letter', () => {
    const found: [string, string][] = [];
    for (let code = 0x80; code <= 0xffff; code += 1) {
      const character = String.fromCodePoint(code);
      const folded = foldKey(character);
      if (folded.length === 1 && folded < '\x80') found.push([character, folded]);
    }
    expect(found).toEqual([...FOLDS_TO_ASCII].filter(([from]) => from >= '\x80'));
    for (const [from, to] of FOLDS_TO_ASCII) expect(foldKey(from)).toBe(to);
  });

  test('is the same for every spelling of a name', () => {
    const name = 'HostConfigNetworkModeBinds';
    const spellings = fc.array(fc.nat(2), { minLength: name.length, maxLength: name.length }).map((choices) =>
      Array.from(name)
        .map((letter, index) => {
          const lower = letter.toLowerCase();
          const odd = lower === 's' ? '\u017F' : lower === 'k' ? '\u212A' : lower;
          return [lower, letter.toUpperCase(), odd][choices[index] ?? 0] ?? letter;
        })
        .join(''),
    );
    fc.assert(fc.property(spellings, (spelling) => foldKey(spelling) === name.toLowerCase()));
  });
});

describe('isZero()', () => {
  test('is true for what clients send for fields that they do not use', () => {
    for (const value of [null, undefined, '', 0, false, [], {}]) expect(isZero(value)).toBe(true);
  });

  test('is false for lists and maps with anything in them', () => {
    for (const value of ['x', 1, -1, true, [null], [''], [{}], { '/data': {} }, { '80/tcp': [{ HostPort: '' }] }])
      expect(isZero(value)).toBe(false);
  });
});

describe('foldFields()', () => {
  test('gives known fields their canonical names and drops unused unknown ones', () => {
    expect(foldFields({ IMAGE: 'x', env: ['a'], Other: null, More: [] }, '', ['Image', 'Env'])).toEqual({
      kind: 'folded',
      fields: { Image: 'x', Env: ['a'] },
    });
    expect(foldFields(null, '', ['Image'])).toEqual({ kind: 'folded', fields: {} });
  });

  test('refuses unknown fields with a value, by their reason where there is one', () => {
    expect(foldFields({ privileged: true }, 'HostConfig', [], { Privileged: 'no' })).toEqual({
      kind: 'refused',
      reason: 'HostConfig.Privileged is not supported: no',
    });
    expect(foldFields({ x: 1 }, '', [])).toEqual({ kind: 'refused', reason: 'x is not supported' });
  });

  test('refuses two spellings of one field, known or not, set or not', () => {
    for (const body of ['{"Image":"a","image":"b"}', '{"Binds":[],"Bind\u017F":[]}', '{"__proto__":null,"__PROTO__":null}']) {
      expect(foldFields(JSON.parse(body), '', ['Image'])).toMatchObject({
        kind: 'refused',
        reason: containing('given twice'),
      });
    }
  });

  test('refuses what is no object', () => {
    for (const body of [[], 'x', 7, true])
      expect(foldFields(body, '', [])).toMatchObject({ kind: 'refused', reason: 'the body must be an object' });
  });

  test('gives nothing but known names, whatever it is given', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (body) => {
        const result = foldFields(body, '', ['Image', 'Env']);
        const names = result.kind === 'folded' ? Object.keys(result.fields) : [];
        expect(names.filter((name) => name !== 'Image' && name !== 'Env')).toEqual([]);
      }),
    );
  });
});
