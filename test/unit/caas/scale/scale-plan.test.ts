/** How many copies: never outside of what the labels allow, up quickly, down slowly, and still where the load is. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SCALE_POLICY, firstScaleState, scaled, scaleStep } from '#caas/scale/scale-plan.ts';
import type { ScaleWish } from '#caas/scale/scale-labels.ts';

const WISH: ScaleWish = { min: 1, max: 8, requests: 10 };

/** Plays a load, second by second; what is wanted is there after one second. Returns the copies after each second. */
function play(load: readonly number[], wish: ScaleWish = WISH): readonly number[] {
  let state = firstScaleState(0);
  let copies = 1;
  return load.map((inFlight, second) => {
    const nowMs = (second + 1) * 1000;
    const step = scaleStep(state, { nowMs, copies, inFlight, held: 0 }, wish);
    ({ state } = step);
    if (step.wanted !== copies) {
      copies = step.wanted;
      state = scaled(state, nowMs);
    }
    return copies;
  });
}

const flat = (load: number, seconds: number): readonly number[] => Array.from({ length: seconds }, () => load);

describe('scaleStep()', () => {
  test('at most doubles, and reaches what the load needs', () => {
    const copies = play(flat(75, 120));
    expect(copies.at(-1)).toBe(8);
    for (const [index, now] of copies.entries()) expect(now).toBeLessThanOrEqual(2 * (copies[index - 1] ?? 1));
  });

  test('a peak of one second changes nothing, and requests that wait count', () => {
    expect(Math.max(...play([...flat(5, 60), 16, ...flat(5, 60)]))).toBe(1);
    const state = { ...firstScaleState(0), smoothed: 0 };
    const step = scaleStep(state, { nowMs: 60_000, copies: 1, inFlight: 0, held: 30 }, WISH);
    expect(step).toMatchObject({ wanted: 2, why: '30.0 requests at a time at 1, each for 10' });
  });

  test('goes down one by one, with time in between, and keeps the last', () => {
    const copies = play([...flat(75, 60), ...flat(0, 600)]);
    const falls = copies.flatMap((now, index) =>
      now < (copies[index - 1] ?? 1) ? [{ index, by: (copies[index - 1] ?? 1) - now }] : [],
    );
    expect(falls.every(({ by }) => by === 1)).toBe(true);
    for (const [order, fall] of falls.entries())
      expect(fall.index - (falls[order - 1]?.index ?? 0)).toBeGreaterThanOrEqual(SCALE_POLICY.downAfterMs / 1000);
    expect(copies.at(-1)).toBe(1);
  });

  test('comes to the least that is asked for without a load, and back below the most', () => {
    expect(play(flat(0, 60), { ...WISH, min: 3 }).at(-1)).toBe(3);
    const above = scaleStep(firstScaleState(0), { nowMs: 60_000, copies: 9, inFlight: 90, held: 0 }, WISH);
    expect(above).toMatchObject({ wanted: 8, why: 'more than 8' });
  });

  test('stays within its limits whatever comes', () => {
    const wish = fc
      .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 2, max: 20 }), fc.integer({ min: 1, max: 50 }))
      .map(([min, max, requests]) => ({ min: Math.min(min, max), max, requests }));
    fc.assert(
      fc.property(wish, fc.array(fc.integer({ min: 0, max: 2000 }), { maxLength: 200 }), (one, load) => {
        const copies = play(load, one);
        for (const now of copies) expect(now >= 1 && now <= one.max).toBe(true);
      }),
    );
  });

  test('a load that stays the same comes to a number of copies that stays the same', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 200 }), (before, load) => {
        const copies = play([...flat(before, 120), ...flat(load, 600)]);
        expect(new Set(copies.slice(-200)).size).toBe(1);
        expect((copies.at(-1) ?? 0) * WISH.requests).toBeGreaterThanOrEqual(Math.min(Math.floor(load), WISH.max * WISH.requests));
      }),
      { numRuns: 25 }, // Each plays twelve minutes.
    );
  });
});
