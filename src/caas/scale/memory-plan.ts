/** Which memory limit a container should have, from what it uses. Pure. Up within seconds, because too little kills; down after minutes. */
import type { MemoryWish } from './scale-labels.ts';

export interface MemoryState {
  /** Since when use is above the upper threshold, or below the lower one; undefined: it is in between. */
  readonly since: { readonly side: 'above' | 'below'; readonly ms: number } | undefined;
}

export interface MemorySample {
  readonly nowMs: number;
  readonly usedBytes: number;
  readonly limitBytes: number;
}

export interface MemoryStep {
  readonly state: MemoryState;
  /** The limit that it should get; undefined: it keeps what it has. */
  readonly limitBytes: number | undefined;
}

export const NO_MEMORY_STATE: MemoryState = { since: undefined };

const HIGH_MILLI = 900;
const LOW_MILLI = 500;
/** Two samples of the meter and one more: a peak of one sample is a peak. */
const HIGH_MS = 3_000;
/** A limit that goes down costs the page cache; that must be worth it. */
const LOW_MS = 600_000;
/** Up by a quarter; down by a fifth, which is the same step back. */
const UP_MILLI = 1250;
const DOWN_MILLI = 800;
const MIB = 1024 ** 2;

export function memoryStep(before: MemoryState, { nowMs, usedBytes, limitBytes }: MemorySample, wish: MemoryWish): MemoryStep {
  const usedMilli = limitBytes <= 0 ? 0 : (usedBytes * 1000) / limitBytes;
  const side = sideOf(usedMilli);
  if (side === undefined) return { state: NO_MEMORY_STATE, limitBytes: undefined };
  const since = before.since?.side === side ? before.since : { side, ms: nowMs };
  const state = { since };
  if (nowMs - since.ms < (side === 'above' ? HIGH_MS : LOW_MS)) return { state, limitBytes: undefined };
  const changed =
    side === 'above'
      ? Math.min(wish.maxBytes, Math.ceil((limitBytes * UP_MILLI) / 1000 / MIB) * MIB)
      : Math.max(wish.minBytes, Math.ceil((limitBytes * DOWN_MILLI) / 1000 / MIB) * MIB);
  const isChange = side === 'above' ? changed > limitBytes : changed < limitBytes;
  // What is at its end waits for a change of its use, not for the next round.
  return isChange ? { state: NO_MEMORY_STATE, limitBytes: changed } : { state, limitBytes: undefined };
}

function sideOf(usedMilli: number): 'above' | 'below' | undefined {
  if (usedMilli > HIGH_MILLI) return 'above';
  return usedMilli < LOW_MILLI ? 'below' : undefined;
}
