/** Time as a dependency: pure code takes `nowMs`, effects take a `Clock`. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Wall clock, milliseconds since 1970. Can jump. */
  nowMs(): number;
  /** Monotonic milliseconds, for spans. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects when `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, signal === undefined ? {} : { signal });
  },
};

/**
 * Asks `probe` every `stepMs` until it gives something else than undefined, at most for `limitMs`.
 * Returns undefined when the time is over. Errors of `probe` pass through.
 */
export async function waitFor<T>(
  clock: Clock,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { readonly limitMs: number; readonly stepMs: number },
): Promise<T | undefined> {
  const endMs = clock.monotonicMs() + options.limitMs;
  for (;;) {
    const answer = await probe();
    if (answer !== undefined) return answer;
    if (clock.monotonicMs() >= endMs) return undefined;
    await clock.sleep(options.stepMs);
  }
}
