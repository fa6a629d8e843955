import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { caFailed, chooseCas, nameFailed } from '#tls/acme/back-off.ts';
import type { FailureKind, Failures } from '#tls/acme/back-off.ts';

const HOUR_MS = 3_600_000;
const KINDS: readonly FailureKind[] = ['ca', 'rate-limit', 'validation', 'refused', 'internal'];

function failAgainAndAgain(kind: FailureKind, count: number): readonly number[] {
  let before: Failures | undefined;
  let nowMs = 0;
  return Array.from({ length: count }, () => {
    before = nameFailed(before, { seed: 'a.test', kind, nowMs, retryAfterMs: undefined });
    const pauseMs = before.untilMs - nowMs;
    nowMs = before.untilMs;
    return pauseMs;
  });
}

describe('nameFailed', () => {
  test.each(KINDS)('%s: waits longer each time, up to a cap', (kind) => {
    const pauses = failAgainAndAgain(kind, 20);
    expect(pauses[1]).toBeGreaterThan(pauses[0] ?? 0);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(12 * 1.3 * HOUR_MS);
    expect(pauses[19]).toBeGreaterThanOrEqual((pauses[18] ?? 0) * 0.7);
  });

  test('fails to validate less than five times in any hour', () => {
    let atMs = 0;
    const times = [0, ...failAgainAndAgain('validation', 20).map((pauseMs) => (atMs += pauseMs))];
    for (const fromMs of times) expect(times.filter((ms) => ms >= fromMs && ms < fromMs + HOUR_MS).length).toBeLessThan(5);
  });

  test('obeys Retry-After, and not for ever', () => {
    const untilOf = (retryAfterMs: number): number =>
      nameFailed(undefined, { seed: 'a', kind: 'ca', nowMs: 0, retryAfterMs }).untilMs;
    expect(untilOf(5 * HOUR_MS)).toBe(5 * HOUR_MS);
    expect(untilOf(10_000 * HOUR_MS)).toBe(24 * HOUR_MS);
    expect(untilOf(-1)).toBeGreaterThanOrEqual(60_000);
  });

  test('names that failed together do not come back together', () => {
    const untils = Array.from(
      { length: 200 },
      (_, index) => nameFailed(undefined, { seed: `h${String(index)}`, kind: 'ca', nowMs: 0, retryAfterMs: undefined }).untilMs,
    );
    expect(new Set(untils).size).toBeGreaterThan(150);
  });

  test('what failed days ago is forgotten', () => {
    const before = { count: 9, lastMs: 0, untilMs: 1 };
    expect(nameFailed(before, { seed: 'a', kind: 'ca', nowMs: 72 * HOUR_MS, retryAfterMs: undefined }).count).toBe(1);
  });
});

describe('caFailed', () => {
  const failed = { seed: 'ca', kind: 'ca', retryAfterMs: undefined } as const;

  test('an outage of two days is asked after often enough to see its end within the hour, and not more', () => {
    let failures: Failures | undefined;
    let attempts = 0;
    let nowMs = 0;
    while (nowMs < 48 * HOUR_MS) {
      failures = caFailed(failures, { ...failed, nowMs, beganMs: nowMs });
      attempts += 1;
      expect(failures.untilMs - nowMs).toBeLessThanOrEqual(HOUR_MS);
      nowMs = failures.untilMs;
    }
    expect(attempts).toBeLessThan(80);
  });

  test('orders that were under way together are one failure', () => {
    const first = caFailed(undefined, { ...failed, nowMs: 1000, beganMs: 10 });
    const second = caFailed(first, { ...failed, nowMs: 1001, beganMs: 20 });
    expect(second).toEqual(first);
    expect(caFailed(first, { ...failed, nowMs: 1002, beganMs: 20, retryAfterMs: HOUR_MS }).untilMs).toBe(1002 + HOUR_MS);
    expect(caFailed(first, { ...failed, nowMs: 40_000, beganMs: 39_000 }).count).toBe(2);
  });
});

describe('chooseCas', () => {
  const fresh = (id: string): { readonly id: string; readonly ofCa: undefined; readonly ofName: undefined } => ({
    id,
    ofCa: undefined,
    ofName: undefined,
  });
  const failures = (count: number, untilMs: number): Failures => ({ count, lastMs: 0, untilMs });

  test('takes them in the operator’s order', () => {
    expect(chooseCas([fresh('one'), fresh('two')], 10, false).open).toEqual(['one', 'two']);
  });

  test('waits for the first while its failures are few, and not in danger', () => {
    const standings = [{ ...fresh('one'), ofName: failures(2, 100) }, fresh('two')];
    expect(chooseCas(standings, 10, false)).toEqual({ open: [], untilMs: 100 });
    expect(chooseCas(standings, 10, true)).toEqual({ open: ['two'], untilMs: 100 });
    expect(chooseCas(standings, 100, false).open).toEqual(['one', 'two']);
  });

  test('goes on to the next after three failures of the name, or five of the CA', () => {
    expect(chooseCas([{ ...fresh('one'), ofName: failures(3, 5) }, fresh('two')], 10, false).open).toEqual(['two']);
    expect(chooseCas([{ ...fresh('one'), ofCa: failures(5, 5) }, fresh('two')], 10, false).open).toEqual(['two']);
  });

  test('when all have failed often, takes whichever may be asked, else says when', () => {
    const standings = [
      { ...fresh('one'), ofName: failures(4, 300) },
      { ...fresh('two'), ofName: failures(4, 200) },
    ];
    expect(chooseCas(standings, 10, false)).toEqual({ open: [], untilMs: 200 });
    expect(chooseCas(standings, 250, false).open).toEqual(['two']);
    expect(chooseCas(standings, 300, false).open).toEqual(['one', 'two']);
  });

  test('never gives one that may not be asked, and always says when where there is none', () => {
    const standing = fc.record({
      ofCa: fc.option(fc.record({ count: fc.nat(9), lastMs: fc.nat(1000), untilMs: fc.nat(2000) }), { nil: undefined }),
      ofName: fc.option(fc.record({ count: fc.nat(9), lastMs: fc.nat(1000), untilMs: fc.nat(2000) }), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(standing, { minLength: 1, maxLength: 4 }), fc.nat(2000), fc.boolean(), (list, nowMs, isUrgent) => {
        const standings = list.map((one, index) => ({ id: String(index), ...one }));
        const { open, untilMs } = chooseCas(standings, nowMs, isUrgent);
        for (const id of open) {
          const { ofCa, ofName } = standings[Number(id)] ?? fresh('');
          expect(Math.max(ofCa?.untilMs ?? 0, ofName?.untilMs ?? 0)).toBeLessThanOrEqual(nowMs);
        }
        expect(new Set(open).size).toBe(open.length);
        if (open.length > 0) return;
        expect(untilMs).toBeGreaterThan(nowMs);
        expect(chooseCas(standings, untilMs, isUrgent).open.length).toBeGreaterThan(0);
      }),
    );
  });
});
