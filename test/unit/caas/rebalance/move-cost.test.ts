/** Pauses and work of moves, as plans weigh them. */
import { expect, test } from 'vitest';
import { moveCostOf } from '#caas/rebalance/move-cost.ts';
import { DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import type { RebalancePolicy } from '#caas/rebalance/policy.ts';
import { containerOf, GIB, measured, MIB } from '../../../support/fleet.ts';

const PRE_COPY: RebalancePolicy = { ...DEFAULT_POLICY, move: { ...DEFAULT_POLICY.move, kind: 'pre-copy' } };

test('a pause by stop and copy grows with the peak of memory', () => {
  const container = containerOf('c', 'a', { usage: measured(1, 100 * MIB, 500 * MIB) });
  expect(moveCostOf(container, DEFAULT_POLICY)).toEqual({ durationMs: 3600, blackoutMs: 1600, costMs: 3600 + 60 * 1600 });
});

test('what was not measured may be as large as its limit', () => {
  const container = containerOf('c', 'a', { usage: undefined, limits: { cpuMilli: undefined, memoryBytes: 1000 * MIB } });
  expect(moveCostOf(container, DEFAULT_POLICY).blackoutMs).toBe(2600);
});

test('a pause by pre-copy has what is written meanwhile, and none of it where nothing is known', () => {
  const calm = containerOf('c', 'a', { usage: measured(1, GIB), dirtyBytesPerSecond: MIB });
  expect(moveCostOf(calm, PRE_COPY).blackoutMs).toBe(601);
  const wild = { ...calm, dirtyBytesPerSecond: 600 * MIB };
  expect(moveCostOf(wild, PRE_COPY).blackoutMs).toBe(moveCostOf(calm, DEFAULT_POLICY).blackoutMs);
  expect(moveCostOf({ ...calm, dirtyBytesPerSecond: undefined }, PRE_COPY)).toEqual(moveCostOf(calm, DEFAULT_POLICY));
});
