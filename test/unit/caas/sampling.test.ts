import { expect, test } from 'vitest';
import { firstSampling, nextSampling } from '#caas/sampling.ts';
import type { Sampling } from '#caas/sampling.ts';

const MIB = 1024 * 1024;

/** Moments at which it is looked in `[fromMs, toMs)`, at memory that `bytesAt` tells. */
function looks(bytesAt: (ms: number) => number, fromMs: number, toMs: number): readonly number[] {
  const moments: number[] = [];
  let sampling: Sampling = firstSampling(0);
  let seed = 3;
  for (let beforeBytes = 0; sampling.nextMs < toMs;) {
    const nowMs = sampling.nextMs;
    const afterBytes = bytesAt(nowMs);
    if (nowMs >= fromMs) moments.push(nowMs);
    sampling = nextSampling(sampling, { nowMs, beforeBytes, afterBytes, chance: seed / 2 ** 31 });
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    beforeBytes = afterBytes;
  }
  return moments;
}

test('a young one twenty times a second, a level one once, at moments that are never the same in a second', () => {
  expect(looks(() => MIB, 0, 10_000)).toHaveLength(200);
  const level = looks(() => 64 * MIB, 20_000, 120_000);
  expect(level.length).toBeGreaterThan(90);
  expect(level.length).toBeLessThan(110);
  for (const [index, atMs] of level.slice(1).entries()) {
    expect(atMs - (level[index] ?? 0)).toBeGreaterThanOrEqual(750);
    expect(atMs - (level[index] ?? 0)).toBeLessThanOrEqual(1_250);
  }
  // In each tenth of a second some.
  expect(new Set(level.map((atMs) => Math.floor((atMs % 1_000) / 100))).size).toBe(10);
});

test('a change makes it quick for ten seconds; what is less than one in a hundred is none', () => {
  expect(looks((ms) => (ms < 30_000 ? 64 : 66) * MIB, 30_000, 130_000).length).toBeGreaterThan(250);
  expect(looks((ms) => (ms < 30_000 ? 64 * MIB : 64 * MIB + 600_000), 30_000, 130_000).length).toBeLessThan(110);
  expect(looks((ms) => (ms < 30_000 ? 640 : 644) * MIB, 30_000, 130_000).length).toBeLessThan(110);
});

test.each([150, 250, 500, 700, 1_000, 3_000])(
  'a square wave with halves of %i ms is quick all the time once it is seen',
  (halfMs) => {
    const wave = (ms: number): number => (Math.floor(ms / halfMs) % 2 === 0 ? 64 * MIB : MIB);
    expect(looks(wave, 60_000, 120_000).length).toBeGreaterThan(1_100);
  },
);
