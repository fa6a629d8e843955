/**
 * When a container's memory is looked at next. Pure.
 *
 * What changes is looked at twenty times a second, what does not once: a load that comes and goes within a second would else be billed by chance, and at
 * twenty times each the node would do little else. The second is never quite one, by chance, so that no program can be in step with it.
 */

export const QUICK_MS = 50;
const SLOW_MS = 1_000;
/** What lives for seconds has few samples, and a change that is seen a second late is a large part of it. */
const YOUNG_MS = 10_000;
/** How long after a change it is taken to go on changing. */
const CHANGING_MS = 10_000;
/** A change is what would be an error of one in a hundred, or a MiB. */
const CHANGE_SHARE = 0.01;
const CHANGE_BYTES = 1024 * 1024;
const JITTER = 0.5;

export interface Sampling {
  /** Until then it is looked at often. By the monotonic clock, as all. */
  readonly quickUntilMs: number;
  readonly nextMs: number;
}

export function firstSampling(nowMs: number): Sampling {
  return { quickUntilMs: nowMs + YOUNG_MS, nextMs: nowMs };
}

interface Look {
  readonly nowMs: number;
  readonly beforeBytes: number;
  readonly afterBytes: number;
  /** In [0, 1). */
  readonly chance: number;
}

/** After a look that found `afterBytes` where there were `beforeBytes`. */
export function nextSampling({ quickUntilMs }: Sampling, { nowMs, beforeBytes, afterBytes, chance }: Look): Sampling {
  const change = Math.abs(afterBytes - beforeBytes);
  const changes = change > Math.max(CHANGE_BYTES, CHANGE_SHARE * Math.max(beforeBytes, afterBytes));
  const untilMs = changes ? Math.max(quickUntilMs, nowMs + CHANGING_MS) : quickUntilMs;
  const jitter = 1 - JITTER / 2 + JITTER * chance;
  return { quickUntilMs: untilMs, nextMs: nowMs + (nowMs < untilMs ? QUICK_MS : SLOW_MS * jitter) };
}
