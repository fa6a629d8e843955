import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RateLimits } from '#proxy/actions/rate-limits.ts';
import type { Spend } from '#proxy/actions/rate-limits.ts';
import type { Clock } from '#clock';

const TEN_A_SECOND = { requests: 10, perMs: 1000, burst: 3, by: { kind: 'ip' } } as const;

class SteppedClock implements Clock {
  atMs = 1_000_000;

  nowMs(): number {
    return this.atMs;
  }

  monotonicMs(): number {
    return this.atMs;
  }

  async sleep(ms: number): Promise<void> {
    this.atMs += ms;
    await Promise.resolve();
  }
}

describe('RateLimits', () => {
  test('lets the burst through, then one for each interval, and says how long to wait', () => {
    const clock = new SteppedClock();
    using limits = new RateLimits(clock);
    const take = (): number => Math.round(limits.take('a', TEN_A_SECOND));
    expect([take(), take(), take(), take()]).toEqual([0, 0, 0, 100]);
    clock.atMs += 60;
    expect(take()).toBe(40);
    clock.atMs += 40;
    expect([take(), take()]).toEqual([0, 100]);
    clock.atMs += 100_000;
    expect([take(), take(), take(), take()]).toEqual([0, 0, 0, 100]);
  });

  test('keeps buckets apart', () => {
    const clock = new SteppedClock();
    using limits = new RateLimits(clock);
    for (let index = 0; index < 3; index += 1) limits.take('a', TEN_A_SECOND);
    expect([limits.take('a', TEN_A_SECOND) > 0, limits.take('b', TEN_A_SECOND)]).toEqual([true, 0]);
  });

  test('never lets more through than burst and rate allow, as a plain bucket does', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 500 }), { minLength: 1, maxLength: 200 });
    const limit = fc.record({ requests: fc.integer({ min: 1, max: 50 }), burst: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(gaps, limit, (gapsMs, { requests, burst }) => {
        const clock = new SteppedClock();
        using limits = new RateLimits(clock);
        const rule = { requests, perMs: 1000, burst, by: { kind: 'all' } } as const;
        // The reference fills a bucket of tokens, in thousandths of a token for each ms.
        let tokens = burst * 1000;
        for (const gapMs of gapsMs) {
          clock.atMs += gapMs;
          tokens = Math.min(burst * 1000, tokens + gapMs * requests);
          const passes = limits.take('x', rule) === 0;
          expect(passes).toBe(tokens >= 1000);
          if (passes) tokens -= 1000;
        }
      }),
    );
  });

  test('takes off what others let through, and learns how empty buckets are', () => {
    const clock = new SteppedClock();
    using limits = new RateLimits(clock);
    limits.hear({ how: 'more', spends: [['a', 100, 2]] });
    expect([limits.take('a', TEN_A_SECOND), limits.take('a', TEN_A_SECOND) > 0]).toEqual([0, true]);
    using other = new RateLimits(clock);
    other.hear({ how: 'least', spends: limits.levels() });
    other.hear({ how: 'least', spends: limits.levels() }); // From a second worker: it is the same use.
    expect(Math.round(other.take('a', TEN_A_SECOND))).toBe(100);
    clock.atMs += 1000;
    expect([limits.levels(), other.take('a', TEN_A_SECOND)]).toEqual([[], 0]);
  });

  test('over two workers that tell each other no more goes through than for one, but for what comes before they have', async () => {
    const clock = new SteppedClock();
    const told: (readonly Spend[])[] = [];
    using first = new RateLimits(clock, (spends) => told.push(spends));
    using second = new RateLimits(clock);
    let passed = 0;
    for (let step = 0; step < 50; step += 1) {
      clock.atMs += 100;
      const before = passed;
      for (let index = 0; index < 5; index += 1) if (first.take('a', TEN_A_SECOND) === 0) passed += 1;
      second.hear({ how: 'more', spends: [['a', 100, passed - before]] });
      if (second.take('a', TEN_A_SECOND) === 0) passed += 1;
    }
    // Told in real time: all of it at once here.
    await expect.poll(() => told.length, { timeout: 2000 }).toBe(1);
    expect(told[0]?.map(([bucket, intervalMs]) => [bucket, intervalMs])).toEqual([['a', 100]]);
    // 5 s at 10 a second, the burst, and one more that the second worker lets through of the burst that it did not use.
    expect(passed).toBeGreaterThanOrEqual(50);
    expect(passed).toBeLessThanOrEqual(56);
  });

  test('forgets the oldest, or one that is full, where there are too many', () => {
    const clock = new SteppedClock();
    using limits = new RateLimits(clock);
    for (let index = 0; index < 100_010; index += 1) limits.take(String(index), TEN_A_SECOND);
    expect(limits.size).toBe(100_000);
    expect(limits.levels()[0]?.[0]).toBe('10');
  });
});
