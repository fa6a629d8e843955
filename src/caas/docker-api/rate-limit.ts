/** How many requests a tenant may begin a second: a token bucket each. A loop gone wild costs its own tenant, not the node's one event loop. */

/** `docker compose up` of 50 services asks for some 20 things each; clients that poll do it once a second. */
const PER_SECOND = 200;
const BURST = 2000;

interface Bucket {
  tokens: number;
  atMs: number;
}

export class RateLimit {
  readonly #buckets = new Map<string, Bucket>();

  /** Undefined: go on. Else after how many seconds to come again. Tenants are few and known: the map needs no bound of its own. */
  take(tenant: string, nowMs: number): number | undefined {
    const bucket = this.#buckets.get(tenant) ?? { tokens: BURST, atMs: nowMs };
    this.#buckets.set(tenant, bucket);
    bucket.tokens = Math.min(BURST, bucket.tokens + (Math.max(0, nowMs - bucket.atMs) / 1000) * PER_SECOND);
    bucket.atMs = nowMs;
    if (bucket.tokens < 1) return Math.ceil((1 - bucket.tokens) / PER_SECOND);
    bucket.tokens -= 1;
    return undefined;
  }
}
