/**
 * Rate limits of routes: token buckets that all workers of a node fill and empty together.
 *
 * A worker decides at once, from what it knows, and tells what it let through some times a second; the primary passes that on to the others, which
 * take it off their own buckets. So over any time that is long beside `SPENT_PERIOD_MS` no more goes through than the limit says, whichever worker a
 * client's connections land on; what comes in the same instant can be the burst once for each worker.
 *
 * A bucket is one number, the time at which it is full again (GCRA, ITU-T I.371 §A: the theoretical arrival time), so that it never has to be filled.
 */
import type { RateLimit } from '#routing/actions.ts';
import type { Clock } from '#clock';

/** What of a bucket was used: `[bucket, ms that one request takes to come back, requests]`. */
export type Spend = readonly [bucket: string, intervalMs: number, requests: number];

/** What of rate limits is used up: `more` than before, or at `least` that in all. */
export interface Spends {
  readonly spends: readonly Spend[];
  readonly how: 'more' | 'least';
}

/** How often a worker tells what it let through. */
export const SPENT_PERIOD_MS = 100;
/** Of one message: more than a worker lets through in the time, but for many clients at once; the rest is told in the next. */
const SPENDS_MAX = 5_000;
/** About 200 bytes each. Clients beyond them make those forgotten that are full again, and then the oldest, which get a full bucket. */
const BUCKETS_MAX = 100_000;
/** So many are looked at for one that is full again. */
const SWEEP = 64;

export class RateLimits implements Disposable {
  readonly #clock: Clock;
  readonly #tell: ((spends: readonly Spend[]) => void) | undefined;
  /** By bucket, in the order in which they came up: when it is full again, in monotonic ms. */
  readonly #fullAt = new Map<string, number>();
  readonly #untold = new Map<string, [intervalMs: number, requests: number]>();
  #timer: NodeJS.Timeout | undefined;

  /** `tell`: hears what `take` let through, every `SPENT_PERIOD_MS` while there is something. */
  constructor(clock: Clock, tell?: (spends: readonly Spend[]) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Lets a request through: 0. Or says how many ms from now one would be. */
  take(bucket: string, { requests, perMs, burst }: RateLimit): number {
    const nowMs = this.#clock.monotonicMs();
    const intervalMs = perMs / requests;
    const fullAt = Math.max(this.#fullAt.get(bucket) ?? 0, nowMs);
    const waitMs = fullAt - nowMs - intervalMs * (burst - 1);
    // What adding up intervals loses in the last digits is no reason to refuse.
    if (waitMs > intervalMs / 1e6) return waitMs;
    this.#set(bucket, fullAt + intervalMs);
    this.#noteSpent(bucket, intervalMs);
    return 0;
  }

  /** Other workers let these through. */
  hear({ spends, how }: Spends): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [bucket, intervalMs, requests] of spends) {
      const fullAt = this.#fullAt.get(bucket) ?? 0;
      const usedMs = intervalMs * requests;
      this.#set(bucket, how === 'more' ? Math.max(fullAt, nowMs) + usedMs : Math.max(fullAt, nowMs + usedMs));
    }
  }

  /** All that are not full, as what they are empty by at least. */
  levels(): readonly Spend[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#fullAt].filter(([, fullAt]) => fullAt > nowMs).map(([bucket, fullAt]) => [bucket, fullAt - nowMs, 1]);
  }

  get size(): number {
    return this.#fullAt.size;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #set(bucket: string, fullAt: number): void {
    if (!this.#fullAt.has(bucket) && this.#fullAt.size >= BUCKETS_MAX) this.#forgetOne();
    this.#fullAt.set(bucket, fullAt);
  }

  #forgetOne(): void {
    const nowMs = this.#clock.monotonicMs();
    let oldest: string | undefined;
    let looked = 0;
    for (const [bucket, fullAt] of this.#fullAt) {
      oldest ??= bucket;
      if (fullAt <= nowMs) {
        oldest = bucket;
        break;
      }
      looked += 1;
      if (looked >= SWEEP) break;
    }
    if (oldest !== undefined) this.#fullAt.delete(oldest);
  }

  #noteSpent(bucket: string, intervalMs: number): void {
    if (this.#tell === undefined) return;
    const noted = this.#untold.get(bucket);
    if (noted === undefined) this.#untold.set(bucket, [intervalMs, 1]);
    else noted[1] += 1;
    this.#timer ??= setTimeout(() => {
      this.#tellSpent();
    }, SPENT_PERIOD_MS);
  }

  #tellSpent(): void {
    this.#timer = undefined;
    const spends: Spend[] = [];
    for (const [bucket, [intervalMs, requests]] of this.#untold) {
      spends.push([bucket, intervalMs, requests]);
      this.#untold.delete(bucket);
      if (spends.length >= SPENDS_MAX) break;
    }
    this.#tell?.(spends);
    if (this.#untold.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#tellSpent();
    }, SPENT_PERIOD_MS);
  }
}
