/** How often each source may ask: a bucket that fills with time. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import { SOURCE_BURST, SOURCE_RATE_PER_SECOND, SOURCES_MAX } from './limits.ts';

interface Bucket {
  tokens: number;
  filledMs: number;
}

export class SourceRate {
  readonly #clock: Clock;
  readonly #buckets = new LRUCache<string, Bucket>({ max: SOURCES_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether the source may ask now; it has then. */
  take(source: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    const bucket = this.#buckets.get(source) ?? { tokens: SOURCE_BURST, filledMs: nowMs };
    const filled = bucket.tokens + ((nowMs - bucket.filledMs) * SOURCE_RATE_PER_SECOND) / 1000;
    const tokens = Math.min(SOURCE_BURST, filled);
    this.#buckets.set(source, { tokens: tokens >= 1 ? tokens - 1 : tokens, filledMs: nowMs });
    return tokens >= 1;
  }
}
