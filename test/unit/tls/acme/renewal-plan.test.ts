import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planInfoCheck, planRenewal, safetyPointMs } from '#tls/acme/renewal-plan.ts';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

function lifeOf(days: number): { readonly notBeforeMs: number; readonly notAfterMs: number } {
  return { notBeforeMs: 0, notAfterMs: days * DAY_MS };
}

const life = fc
  .record({ notBeforeMs: fc.nat(1e12), hours: fc.integer({ min: 1, max: 9000 }) })
  .map(({ notBeforeMs, hours }) => ({ notBeforeMs, notAfterMs: notBeforeMs + hours * HOUR_MS }));

describe('planRenewal', () => {
  test('renews long lives around two thirds, short ones around a half', () => {
    for (const [days, part] of [
      [90, 2 / 3],
      [45, 2 / 3],
      [10, 1 / 2],
      [6, 1 / 2],
    ] as const) {
      const moments = Array.from({ length: 500 }, (_, index) => planRenewal(`c${String(index)}`, lifeOf(days), undefined).atMs);
      const parts = moments.map((atMs) => atMs / (days * DAY_MS));
      expect(Math.min(...parts)).toBeGreaterThanOrEqual(part - 0.051);
      expect(Math.max(...parts)).toBeLessThanOrEqual(part + 0.051);
      // They are spread, and not a heap at one end of it.
      expect(parts.reduce((sum, one) => sum + one, 0) / parts.length).toBeCloseTo(part, 2);
      expect(new Set(moments).size).toBeGreaterThan(490);
    }
  });

  test('takes a moment inside of the window that the CA gives', () => {
    const window = { startMs: 20 * DAY_MS, endMs: 22 * DAY_MS };
    const plan = planRenewal('shop', lifeOf(45), window);
    expect(plan.by).toBe('window');
    expect(plan.atMs).toBeGreaterThanOrEqual(window.startMs);
    expect(plan.atMs).toBeLessThan(window.endMs);
  });

  test('a window that has passed means now', () => {
    expect(planRenewal('shop', lifeOf(45), { startMs: -2 * DAY_MS, endMs: -DAY_MS }).atMs).toBeLessThan(0);
  });

  test('no window of a CA moves the safety point', () => {
    const plan = planRenewal('shop', lifeOf(45), { startMs: 44 * DAY_MS, endMs: 60 * DAY_MS });
    expect(plan).toEqual({ atMs: safetyPointMs(lifeOf(45)), by: 'safety' });
  });

  test('is steady, in the window where there is one, and never after the safety point', () => {
    fc.assert(
      fc.property(
        fc.string(),
        life,
        fc.option(fc.record({ from: fc.nat(1e12), spanMs: fc.nat(1e10) }), { nil: undefined }),
        (seed, of, given) => {
          const window = given === undefined ? undefined : { startMs: given.from, endMs: given.from + given.spanMs };
          const plan = planRenewal(seed, of, window);
          expect(planRenewal(seed, of, window)).toEqual(plan);
          expect(plan.atMs).toBeLessThanOrEqual(safetyPointMs(of));
          expect(safetyPointMs(of)).toBeLessThan(of.notAfterMs);
          const earliestMs = window?.startMs ?? of.notBeforeMs + 1;
          expect(plan.atMs).toBeGreaterThanOrEqual(Math.min(earliestMs, safetyPointMs(of)));
          expect(plan.atMs).toBeLessThanOrEqual(window?.endMs ?? of.notAfterMs);
        },
      ),
    );
  });
});

describe('planInfoCheck', () => {
  test('obeys the CA between a minute and a day, and takes six hours where it says nothing', () => {
    const pauseOf = (retryAfterMs: number | undefined): number => planInfoCheck('shop', 1000, retryAfterMs) - 1000;
    for (const [said, leastMs] of [
      [undefined, 6 * HOUR_MS],
      [HOUR_MS, HOUR_MS],
      [0, 60_000],
      [-5, 60_000],
      [400 * DAY_MS, DAY_MS],
    ] as const) {
      expect(pauseOf(said)).toBeGreaterThanOrEqual(leastMs);
      expect(pauseOf(said)).toBeLessThanOrEqual(leastMs * 1.1);
    }
  });
});
