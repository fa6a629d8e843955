/** Entity tags, and the header fields that name them. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkPrecondition, entityTagOf, ifMatchHeader, isKnownTag, preconditionOf } from '#admin/entity-tag.ts';

const tag = fc
  .tuple(fc.boolean(), fc.stringMatching(/^[!#-~]{0,8}$/))
  .map(([isWeak, opaque]) => `${isWeak ? 'W/' : ''}"${opaque}"`);
const tags = fc.array(tag, { minLength: 1, maxLength: 32 });

test('preconditionOf() reads back what ifMatchHeader() writes, with any spaces and empty members between', () => {
  fc.assert(
    fc.property(tags, fc.constantFrom(',', ', ', ' ,\t', ' , ,, '), (list, separator) => {
      expect(preconditionOf(ifMatchHeader(list)['if-match'])).toEqual(list);
      expect(preconditionOf(` ${list.join(separator)} ,`)).toEqual(list);
    }),
  );
  expect(ifMatchHeader(undefined)).toEqual({});
  expect(preconditionOf(' * ')).toBeUndefined();
  expect(preconditionOf('12')).toEqual(['"12"']);
});

/** What a header is read as; undefined: it is refused. */
function readingOf(text: string): readonly string[] | '*' | undefined {
  try {
    return preconditionOf(text) ?? '*';
  } catch {
    return undefined;
  }
}

test('a header of any text is tags, or is refused and names nothing', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii' }), (text) => {
      const read = readingOf(text);
      const isList = typeof read === 'object' && read.length > 0 && read.every((one) => /^(?:W\/)?"[^"]*"$/.test(one));
      const isNothing = read === undefined && !isKnownTag(text, '"x"');
      expect(isList || isNothing || text.trim() === '*').toBe(true);
    }),
  );
});

test('a header that is as long as a head can be, and almost a list, is refused in its own time', () => {
  const almost = `"a" ${' , '.repeat(20_000)}x`;
  const before = performance.now();
  expect(() => preconditionOf(almost)).toThrow(/If-Match cannot be/);
  expect(performance.now() - before).toBeLessThan(500);
});

test('checkPrecondition() takes the tag of what is there, and no weak one', () => {
  const resource = { name: 'acme', quota: { containersMax: 3 } };
  const own = entityTagOf(resource);
  checkPrecondition(undefined, resource, 'x');
  checkPrecondition(['"other"', own], resource, 'x');
  for (const wrong of [[], ['"other"'], [`W/${own}`]])
    expect(() => {
      checkPrecondition(wrong, resource, 'tenant acme');
    }).toThrow(/tenant acme is not what If-Match asks for/);
  expect(entityTagOf({ ...resource, name: 'other' })).not.toBe(own);
  expect(isKnownTag(`"other", W/${own}`, own)).toBe(true);
});
