import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { PageIndex, ZERO_SLOT } from '#isolation/pages/page-index.ts';

const ZERO_ID = Uint32Array.of(0, 0, 0, 0);
/** Few values, so that pages come back, and ids that share the word they are looked up by. */
const anyId = fc.tuple(fc.nat(3), fc.nat(6)).map(([first, second]) => Uint32Array.of(first, second, 1, 1));
const anyStep = fc.oneof(
  { weight: 8, arbitrary: anyId.map((id) => ({ kind: 'page' as const, id })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'end' as const }) },
);

test('a page is found where it was put, as long as each round sees it, and no place has two pages', () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 120 }), fc.nat(20), (steps, guess) => {
      const index = new PageIndex(64, ZERO_ID);
      const model = new Map<string, number>();
      const seen = new Set<string>();
      const wrong: string[] = [];
      for (const step of steps) {
        if (step.kind === 'end') {
          const stale = [...model.keys()].filter((name) => !seen.has(name));
          if (index.endRound() !== stale.length) wrong.push('a round that ended with another number of stale pages');
          for (const name of stale) model.delete(name);
          seen.clear();
          continue;
        }
        const name = step.id.join(':');
        const found = index.find(step.id, 0, guess);
        if (found !== (model.get(name) ?? -1)) wrong.push(`${name} at ${String(found)}`);
        if (found >= 0) index.see(found);
        else {
          const slot = index.take(step.id, 0);
          if (slot === ZERO_SLOT || [...model.values()].includes(slot)) wrong.push(`${name} at a place that is taken`);
          model.set(name, slot);
        }
        seen.add(name);
      }
      expect(wrong).toEqual([]);
      expect(index.find(ZERO_ID, 0, 99)).toBe(ZERO_SLOT);
    }),
    { numRuns: 60 },
  );
});

test('it grows with what is put into it, and finds all of it', () => {
  const index = new PageIndex(20_000, ZERO_ID);
  const ids = new Uint32Array(4 * 10_000).map((_, at) => at * 2_654_435_761);
  let wrong = 0;
  for (let page = 0; page < 10_000; page += 1) if (index.take(ids, 4 * page) !== page + 1) wrong += 1;
  for (let page = 0; page < 10_000; page += 1) if (index.find(ids, 4 * page, 0) !== page + 1) wrong += 1;
  expect(wrong).toBe(0);
});

test('a store that is full says so', () => {
  const index = new PageIndex(2, ZERO_ID);
  expect(index.take(Uint32Array.of(1, 1, 1, 1), 0)).toBe(1);
  expect(index.take(Uint32Array.of(2, 2, 2, 2), 0)).toBe(-1);
});
