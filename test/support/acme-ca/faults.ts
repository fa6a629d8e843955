/** What a test has this CA do wrong. Everything is off in the beginning, and can be switched on and off at any time. */

export type Lie =
  | { readonly kind: 'directory-with-foreign-urls'; readonly origin: string }
  | { readonly kind: 'directory-without'; readonly key: string }
  | { readonly kind: 'directory-is-html' }
  | { readonly kind: 'certificate-of-other-key' }
  | { readonly kind: 'certificate-of-other-names'; readonly names: readonly string[] }
  | { readonly kind: 'certificate-expired' }
  | { readonly kind: 'certificate-not-yet-valid' }
  | { readonly kind: 'certificate-cut-off' }
  | { readonly kind: 'certificate-without-intermediate' }
  /** A body of so many bytes instead of the answer to paths that begin so. */
  | { readonly kind: 'huge-body'; readonly path: string; readonly bytes: number }
  | { readonly kind: 'endless-body'; readonly path: string };

export interface Outage {
  readonly fromMs: number;
  readonly untilMs: number;
  /** `unavailable`: 503. `cut`: connections are reset. */
  readonly kind: 'unavailable' | 'cut';
}

export interface Faults {
  /** Of requests with a good nonce, the share that is told it were bad. It is used up all the same. */
  nonceRejectionRate: number;
  /** Of signed requests, the share that is answered by 500 and does nothing; its nonce is used up. */
  serverErrorRate: number;
  /** Of new orders, the share that is answered by 429 though no limit is reached. */
  tooManyRate: number;
  tooManyRetryAfterSeconds: number;
  /** How long an order is `processing`, on this CA's clock. */
  processingMs: number;
  /** It sees nothing of what hosts show. */
  challengesFail: boolean;
  outages: readonly Outage[];
  lie: Lie | undefined;
}

export function noFaults(): Faults {
  return {
    nonceRejectionRate: 0,
    serverErrorRate: 0,
    tooManyRate: 0,
    tooManyRetryAfterSeconds: 60,
    processingMs: 0,
    challengesFail: false,
    outages: [],
    lie: undefined,
  };
}

export function outageAt({ outages }: Faults, nowMs: number): Outage | undefined {
  return outages.find(({ fromMs, untilMs }) => nowMs >= fromMs && nowMs < untilMs);
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
