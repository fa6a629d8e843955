import { describe, expect, test } from 'vitest';
import { isIdle } from '#caas/sleep/idle-watch.ts';
import { idleWishOf, sleepRefusalOf } from '#caas/sleep/sleep-check.ts';
import { afterFailedWake } from '#caas/sleep/wake-backoff.ts';
import { inspectOf, rowOf, specOf } from '../../support/caas-data.ts';

describe('idleWishOf()', () => {
  test('reads a time, or says what is wrong with it', () => {
    expect(idleWishOf({})).toEqual({ kind: 'none' });
    expect(idleWishOf({ 'ecluse.idle': '10m' })).toEqual({ kind: 'after', idleMs: 600_000 });
    for (const text of ['', 'soon', '-1m', '10', '900ms']) expect(idleWishOf({ 'ecluse.idle': text }).kind).toBe('invalid');
  });
});

describe('isIdle()', () => {
  test('counts from the last request, and never while something is under way or waits', () => {
    expect(isIdle({ inFlight: 0, held: 0, quietMs: 5000 }, 60_000, 5000)).toBe(true);
    expect(isIdle({ inFlight: 0, held: 0, quietMs: 4999 }, 60_000, 5000)).toBe(false);
    expect(isIdle({ inFlight: 1, held: 0, quietMs: 9000 }, 60_000, 5000)).toBe(false);
    expect(isIdle({ inFlight: 0, held: 1, quietMs: 9000 }, 60_000, 5000)).toBe(false);
  });

  test('counts from its start where nobody ever asked, or asked before it', () => {
    expect(isIdle({ inFlight: 0, held: 0, quietMs: undefined }, 4000, 5000)).toBe(false);
    expect(isIdle({ inFlight: 0, held: 0, quietMs: undefined }, 5000, 5000)).toBe(true);
    expect(isIdle({ inFlight: 0, held: 0, quietMs: 90_000 }, 100, 5000)).toBe(false);
  });
});

describe('sleepRefusalOf()', () => {
  const why = (change: Partial<Parameters<typeof rowOf>[0]> = {}, spec = specOf(), inspect = inspectOf()): string | undefined =>
    sleepRefusalOf(rowOf(change), spec, inspect, true)?.why;

  test('lets a running container sleep', () => {
    expect(why()).toBeUndefined();
  });

  test('has words for every reason against it', () => {
    expect(why({ snapshot: 'x' })).toBe('container web sleeps already');
    expect(why({ state: 'exited' })).toBe('container web is exited');
    expect(why({}, specOf(), inspectOf({ Paused: true }))).toBe('container web is running');
    expect(why({}, specOf(), inspectOf({}, { ExecIDs: ['x'] }))).toContain('open exec sessions');
    const base = specOf();
    expect(why({}, { ...base, hostConfig: { ...base.hostConfig, AutoRemove: true } })).toContain('--rm');
    expect(sleepRefusalOf(rowOf(), base, inspectOf(), false)?.why).toContain('cannot save a sandbox');
    expect(sleepRefusalOf(rowOf(), base, undefined, true)?.why).toContain('does not know');
  });
});

describe('afterFailedWake()', () => {
  test('waits twice as long each time, up to a minute', () => {
    let failed = afterFailedWake(undefined, 0);
    const waits = [failed.backOffMs];
    for (let round = 0; round < 8; round += 1) {
      failed = afterFailedWake(failed, 0);
      waits.push(failed.backOffMs);
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  });
});
