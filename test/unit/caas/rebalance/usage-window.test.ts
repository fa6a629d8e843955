/** Percentiles within their error, over exactly the window, whatever is sampled. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageWindow, UsageWindows } from '#caas/rebalance/usage-window.ts';

const MIB = 1024 ** 2;
const OPTIONS = { sliceMs: 1000, slices: 4 };

describe('UsageWindow', () => {
  test('gives a 95th percentile that is never too small and at most an eighth too large, and the exact peak', () => {
    const sample = fc.record({ cpuMilli: fc.nat(2 ** 21), memoryBytes: fc.nat(2 ** 38) });
    fc.assert(
      fc.property(fc.array(sample, { minLength: 1, maxLength: 300 }), (samples) => {
        const window = new UsageWindow(OPTIONS, 10_000);
        for (const { cpuMilli, memoryBytes } of samples) window.add(cpuMilli, memoryBytes, 10_500);
        const summary = window.summary(10_900);
        for (const [found, values, unit] of [
          [summary?.p95.cpuMilli, samples.map((one) => one.cpuMilli), 1],
          [summary?.p95.memoryBytes, samples.map((one) => one.memoryBytes), MIB / 4],
        ] as const) {
          const exact = values.toSorted((one, other) => one - other)[Math.ceil(values.length * 0.95) - 1] ?? 0;
          expect(found).toBeGreaterThanOrEqual(exact);
          expect(found).toBeLessThanOrEqual(exact + exact / 8 + unit);
        }
        const sum = samples.reduce((total, one) => total + one.cpuMilli, 0);
        expect(summary?.mean.cpuMilli).toBe(Math.ceil(sum / samples.length));
        expect(summary?.peak.cpuMilli).toBe(Math.max(...samples.map((one) => one.cpuMilli)));
        expect(summary?.peak.memoryBytes).toBe(Math.max(...samples.map((one) => one.memoryBytes)));
      }),
    );
  });

  test('forgets slice by slice, also over a gap', () => {
    const window = new UsageWindow(OPTIONS, 0);
    window.add(900, 90 * MIB, 500);
    window.add(100, 10 * MIB, 3500);
    expect(window.summary(3900)?.peak.cpuMilli).toBe(900);
    expect(window.summary(4000)?.peak).toEqual({ cpuMilli: 100, memoryBytes: 10 * MIB });
    expect(window.summary(7100)).toBeUndefined();
    window.add(7, MIB, 1_000_000);
    expect(window.summary(1_000_000)?.p95).toEqual({ cpuMilli: 7, memoryBytes: MIB });
  });

  test('knows how long it has looked, up to its length', () => {
    const window = new UsageWindow(OPTIONS, 0);
    window.add(1, 1, 1500);
    expect(window.summary(1500)?.coveredMs).toBe(1500);
    window.add(1, 1, 9000);
    expect(window.summary(9000)?.coveredMs).toBe(4000);
  });
});

describe('UsageWindows', () => {
  const reading = (
    cpuNs: number,
    sampledMs: number,
  ): { container: string; cpuNs: number; memoryBytes: number; sampledMs: number } => ({
    container: 'c',
    cpuNs,
    memoryBytes: MIB,
    sampledMs,
  });

  test('turns counters into rates, at least a second apart', () => {
    const windows = new UsageWindows({ sliceMs: 60_000, slices: 4 });
    windows.observe([reading(0, 0)], 0);
    expect(windows.summaryOf('c', 0)).toBeUndefined();
    windows.observe([reading(9e8, 400)], 400);
    windows.observe([reading(1e9, 2000)], 2000);
    expect(windows.summaryOf('c', 2000)?.peak.cpuMilli).toBe(500);
  });

  test('takes a counter that went down for another one, and keeps what it knew', () => {
    const windows = new UsageWindows({ sliceMs: 60_000, slices: 4 });
    windows.observe([reading(0, 0)], 0);
    windows.observe([reading(4e9, 2000)], 2000);
    windows.observe([], 4000);
    windows.observe([reading(1e6, 6000)], 6000);
    windows.observe([reading(1e9 + 1e6, 8000)], 8000);
    expect(windows.summaryOf('c', 8000)?.peak.cpuMilli).toBe(2000);
    expect(windows.summaryOf('c', 8000)?.coveredMs).toBe(8000);
  });

  test('goes on after a clock was set back, and drops what is gone for longer than the window', () => {
    const windows = new UsageWindows({ sliceMs: 1000, slices: 4 });
    windows.observe([reading(0, 90_000)], 90_000);
    windows.observe([reading(1e9, 50_000)], 50_000);
    windows.observe([reading(2e9, 52_000)], 52_000);
    expect(windows.summaryOf('c', 90_000)?.peak.cpuMilli).toBe(500);
    windows.observe([], 60_000);
    expect(windows.summaryOf('c', 60_000)).toBeUndefined();
  });
});
