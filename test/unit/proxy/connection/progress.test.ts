import { expect, test } from 'vitest';
import { Progress } from '#proxy/connection/progress.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';

const PROGRESS = { ...EDGE_LIMITS, progressBytesMin: 512 };

test('a client that moves too little in a window in which everything waits for it stalls', () => {
  const progress = new Progress(PROGRESS);
  progress.begin(1_000);
  expect(progress.stalls(1_512, true)).toBe(false);
  expect(progress.stalls(2_023, true)).toBe(true);
});

test('a client that was held back does not stall in the moment in which it may go on, but a window later', () => {
  const progress = new Progress(PROGRESS);
  progress.begin(0);
  expect(progress.stalls(0, false)).toBe(false);
  expect(progress.stalls(0, true)).toBe(false);
  expect(progress.stalls(0, true)).toBe(true);
});

test('another exchange begins anew', () => {
  const progress = new Progress(PROGRESS);
  progress.begin(0);
  expect(progress.stalls(0, false)).toBe(false);
  progress.begin(0);
  expect(progress.stalls(0, true)).toBe(true);
});
