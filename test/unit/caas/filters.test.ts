/** `docker ps --filter` and `docker images --filter`. */
import { describe, expect, test } from 'vitest';
import { imageSchema } from '#caas/engine-answers.ts';
import { matchesFilters } from '#caas/docker-api/filters.ts';
import { namesToList } from '#caas/docker-api/image-filters.ts';
import { rowOf, specOf } from '../../support/caas-data.ts';

const rows = [
  rowOf({ id: 'c'.repeat(64), name: 'newest' }),
  rowOf({ id: 'b'.repeat(64), name: 'web', state: 'exited' }),
  rowOf({ id: 'a'.repeat(64), name: 'web-2', state: 'lost' }),
];
const spec = specOf({ Labels: { tier: 'web', empty: '' } });

function names(filters: Readonly<Record<string, readonly string[]>>): readonly string[] {
  return rows.filter((row) => matchesFilters(row, spec, new Map(Object.entries(filters)), rows)).map(({ name }) => name);
}

describe('matchesFilters()', () => {
  test('takes names as substrings, anchored or with a slash', () => {
    expect(names({ name: ['web'] })).toEqual(['web', 'web-2']);
    expect(names({ name: ['^web$'] })).toEqual(['web']);
    expect(names({ name: ['^/web$'] })).toEqual(['web']);
    expect(names({ name: ['^web'] })).toEqual(['web', 'web-2']);
    expect(names({ name: ['newest', 'web-2'] })).toEqual(['newest', 'web-2']);
  });

  test('takes ids, states, images and labels', () => {
    expect(names({ id: ['bbb'] })).toEqual(['web']);
    expect(names({ status: ['running', 'dead'] })).toEqual(['newest', 'web-2']);
    expect(names({ ancestor: ['shop:1'] })).toHaveLength(3);
    expect(names({ ancestor: ['docker.io/library/shop:1'] })).toHaveLength(3);
    expect(names({ ancestor: ['111111111111'] })).toHaveLength(3);
    expect(names({ ancestor: ['shop'] })).toHaveLength(0);
    expect(names({ label: ['tier'] })).toHaveLength(3);
    expect(names({ label: ['tier=web', 'empty='] })).toHaveLength(3);
    expect(names({ label: ['tier=web', 'other'] })).toHaveLength(0);
    expect(names({ label: ['toString'] })).toHaveLength(0);
  });

  test('takes the order of creation', () => {
    expect(names({ before: ['web'] })).toEqual(['web-2']);
    expect(names({ since: ['web'] })).toEqual(['newest']);
    expect(() => names({ since: ['nothing'] })).toThrow('No such container: nothing');
  });

  test('refuses what it does not know, names of objects’ own methods too', () => {
    for (const key of ['nonsense', 'constructor', '__proto__', 'toString'])
      expect(() => names({ [key]: ['x'], name: ['web'] })).toThrow('Invalid filter');
  });
});

describe('namesToList()', () => {
  const image = imageSchema.parse({
    Id: `sha256:${'1'.repeat(64)}`,
    Created: '',
    Size: 1,
    Architecture: '',
    Os: '',
    Config: { Labels: { a: 'b' } },
  });
  const list = (
    filters: Readonly<Record<string, readonly string[]>>,
    own: readonly string[] = ['shop:1', 'team/shop:2'],
  ): readonly string[] | undefined => namesToList(new Map(Object.entries(filters)), own, image);

  test('matches references by Go’s path patterns, and shows the matching names only', () => {
    expect(list({})).toEqual(['shop:1', 'team/shop:2']);
    expect(list({ reference: ['shop'] })).toEqual(['shop:1']);
    expect(list({ reference: ['*/shop'] })).toEqual(['team/shop:2']);
    expect(list({ reference: ['sh*:?', '*/*:2'] })).toEqual(['shop:1', 'team/shop:2']);
    expect(list({ reference: ['team'] })).toBeUndefined();
    expect(list({ reference: ['*'] })).toEqual(['shop:1']);
  });

  test('does not run away with a pattern', () => {
    expect(list({ reference: [`${'*a'.repeat(2000)}b`] }, [`${'a'.repeat(400)}:1`])).toBeUndefined();
  });

  test('takes labels and dangling, and refuses the rest', () => {
    expect(list({ label: ['a=b'] })).toHaveLength(2);
    expect(list({ label: ['a=c'] })).toBeUndefined();
    expect(list({ label: ['toString'] })).toBeUndefined();
    expect(list({ dangling: ['true'] })).toBeUndefined();
    expect(list({ dangling: ['true'] }, [])).toEqual([]);
    expect(list({ dangling: ['false'] }, [])).toBeUndefined();
    expect(() => list({ before: ['x'] })).toThrow("Invalid filter 'before'");
  });
});
