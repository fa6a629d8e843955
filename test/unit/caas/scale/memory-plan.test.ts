/** Memory limits: up by a quarter within seconds, down after minutes, within what the labels allow. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { memoryStep, NO_MEMORY_STATE } from '#caas/scale/memory-plan.ts';

const MIB = 1024 ** 2;
const WISH = { minBytes: 64 * MIB, maxBytes: 256 * MIB };

/** Plays what is used, second by second. Returns the limits. */
function play(used: readonly number[], firstBytes = WISH.minBytes): readonly number[] {
  let state = NO_MEMORY_STATE;
  let limitBytes = firstBytes;
  return used.map((usedBytes, second) => {
    const step = memoryStep(state, { nowMs: second * 1000, usedBytes: Math.min(usedBytes, limitBytes), limitBytes }, WISH);
    ({ state } = step);
    limitBytes = step.limitBytes ?? limitBytes;
    return limitBytes;
  });
}

const flat = (mib: number, seconds: number): readonly number[] => Array.from({ length: seconds }, () => mib * MIB);

test('rises by a quarter while it is nearly used up, and no further than it may', () => {
  const limits = play(flat(1000, 60));
  expect(limits[3]).toBe(80 * MIB);
  expect(limits.at(-1)).toBe(WISH.maxBytes);
});

test('a peak shorter than three seconds changes nothing', () => {
  expect(new Set(play([...flat(40, 5), ...flat(63, 3), ...flat(40, 5)]))).toEqual(new Set([WISH.minBytes]));
});

test('falls after ten minutes below a half, step by step, to where it began', () => {
  const limits = play(flat(20, 3600), WISH.maxBytes);
  expect(limits[599]).toBe(WISH.maxBytes);
  expect(limits[600]).toBe(205 * MIB);
  // 20 MiB are a half of 40: the limit of the creation stops it before.
  expect(play(flat(20, 20_000), WISH.maxBytes).at(-1)).toBe(WISH.minBytes);
});

test('stays within its bounds whatever is used', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 300 }), (mib) => {
      for (const limit of play(mib.map((one) => one * MIB))) {
        expect(limit).toBeGreaterThanOrEqual(WISH.minBytes);
        expect(limit).toBeLessThanOrEqual(WISH.maxBytes);
      }
    }),
  );
});
