/** `docker images --filter` and prune's. */
import { describe, expect, test } from 'vitest';
import { listFilter, pruneFilter } from '#caas/docker-api/image-filters.ts';
import type { ImageNames } from '#caas/docker-api/image-filters.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';

const NOW = Date.UTC(2026, 0, 2);
const candidate = {
  tags: ['shop:1', 'shop:2', 'a.test/team/shop:1'],
  digests: [`shop@sha256:${'0'.repeat(64)}`],
  createdMs: NOW - 3_600_000,
  labels: { own: 'yes', empty: '' },
};
const bare = { ...candidate, tags: [], digests: [] };

async function names(filters: Readonly<Record<string, readonly string[]>>, of = candidate): Promise<ImageNames | undefined> {
  const createdOf = async (reference: string): Promise<number> => {
    if (reference === 'none') throw dockerError(404, 'No such image: none:latest');
    return await Promise.resolve(candidate.createdMs + (reference === 'newer' ? 1 : reference === 'older' ? -1 : 0));
  };
  return (await listFilter(new Map(Object.entries(filters)), NOW, createdOf)).namesOf(of);
}

describe('listFilter()', () => {
  test('reference is Go’s path.Match on short names, with tag and without', async () => {
    const cases: readonly (readonly [string, readonly string[]])[] = [
      ['shop', ['shop:1', 'shop:2']],
      ['shop:1', ['shop:1']],
      ['sh*', ['shop:1', 'shop:2']],
      ['*', ['shop:1', 'shop:2']],
      ['*/*/*', ['a.test/team/shop:1']],
      ['shop:[12]', ['shop:1', 'shop:2']],
      ['shop:[^1]', ['shop:2']],
      ['shop:[2-9]', ['shop:2']],
      ['s?op:1', ['shop:1']],
      [String.raw`sho\p`, ['shop:1', 'shop:2']],
    ];
    for (const [pattern, tags] of cases) expect((await names({ reference: [pattern] }))?.tags, pattern).toEqual(tags);
    for (const pattern of ['SHOP', 'shop:', 'op', 'a.test/*', ''])
      expect(await names({ reference: [pattern] }), pattern).toBeUndefined();
    for (const pattern of ['[', 'a[', '[]a]', '[a-]', String.raw`a\ `.trim(), '[^]'])
      await expect(names({ reference: [pattern] }), pattern).rejects.toThrow('syntax error in pattern');
    expect(await names({ reference: ['*'] }, bare)).toBeUndefined();
  });

  test('a pattern takes no longer than its length times the text’s', async () => {
    const startMs = performance.now();
    await names({ reference: [`${'*a'.repeat(2000)}b`] }, { ...candidate, tags: ['a'.repeat(500)] });
    expect(performance.now() - startMs).toBeLessThan(5000);
  });

  test('dangling is about tags when true, about any name when false', async () => {
    for (const value of ['true', '1']) {
      expect(await names({ dangling: [value] })).toBeUndefined();
      expect(await names({ dangling: [value] }, { ...candidate, tags: [] })).toEqual({ tags: [], digests: candidate.digests });
      expect(await names({ dangling: [value] }, bare)).toEqual({ tags: [], digests: [] });
    }
    expect(await names({ dangling: ['false'] }, bare)).toBeUndefined();
    expect(await names({ dangling: ['0'] })).toBeDefined();
    await expect(names({ dangling: ['x'] })).rejects.toThrow("Invalid filter 'dangling=[x]'");
  });

  test('labels, times, and what is none', async () => {
    for (const label of ['own', 'own=yes', 'empty', 'empty=']) expect(await names({ label: [label] }), label).toBeDefined();
    for (const label of ['own=no', 'other', 'own=']) expect(await names({ label: [label] }), label).toBeUndefined();
    expect(await names({ before: ['newer'] })).toBeDefined();
    expect(await names({ before: ['self'] })).toBeUndefined();
    expect(await names({ since: ['older'] })).toBeDefined();
    expect(await names({ since: ['self'] })).toBeUndefined();
    expect(await names({ until: ['30m'] })).toBeDefined();
    expect(await names({ until: ['2h'] })).toBeUndefined();
    await expect(names({ before: ['none'] })).rejects.toThrow('No such image: none:latest');
    await expect(names({ foo: ['x'] })).rejects.toThrow("Invalid filter 'foo'");
  });
});

test('pruneFilter() takes dangling images unless told otherwise', () => {
  const filter = (filters: Readonly<Record<string, readonly string[]>>) => pruneFilter(new Map(Object.entries(filters)), NOW);
  expect(filter({}).danglingOnly).toBe(true);
  expect(filter({ dangling: ['false'] }).danglingOnly).toBe(false);
  expect(filter({ 'label!': ['own'] }).isWanted(candidate)).toBe(false);
  expect(filter({ 'label!': ['other'] }).isWanted(candidate)).toBe(true);
  expect(filter({ label: ['own=yes'], until: ['30m'] }).isWanted(candidate)).toBe(true);
  expect(filter({ until: ['2h'] }).isWanted(candidate)).toBe(false);
  expect(() => filter({ reference: ['x'] })).toThrow("Invalid filter 'reference'");
});
