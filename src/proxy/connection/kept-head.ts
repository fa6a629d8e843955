/**
 * The raw head of the request at hand: kept for the log, for another attempt, and to see whether the next one is the same.
 *
 * PERF: many connections carry the same head again and again (polling, health checks, clients of one API). Where the bytes are the same,
 * nothing has to be read, matched or rewritten again but the id of the request. Bytes are compared, never what they mean.
 */

/** Room for the heads of most clients; it grows with the longest. */
const KEPT_BYTES = 512;
/** Longer heads carry what changes, and cost more to compare in vain. */
const REPEATED_BYTES_MAX = 4096;
/** After so many comparisons in vain only every `MISS_STEP`th head is compared. */
const MISSES_MAX = 4;
const MISS_STEP = 32;
const NOTHING = Buffer.alloc(0);

export class KeptHead {
  bytes: Buffer = NOTHING;
  length = 0;
  /** Whether a repetition of it means the same again. */
  repeatable = false;
  #misses = 0;

  /** Keeps `[start, end)`. */
  keep(bytes: Buffer, start: number, end: number): void {
    const length = end - start;
    if (this.bytes.length < length) this.bytes = Buffer.allocUnsafeSlow(Math.max(KEPT_BYTES, 2 ** Math.ceil(Math.log2(length))));
    bytes.copy(this.bytes, 0, start, end);
    this.length = length;
    this.repeatable = false;
  }

  /** Whether `[start, end)` begins with the same head again. */
  isRepeatedBy(buffer: Buffer, start: number, end: number): boolean {
    const { length } = this;
    if (!this.repeatable || end - start < length || length > REPEATED_BYTES_MAX) return false;
    if (this.#misses >= MISSES_MAX) {
      this.#misses += 1;
      if (this.#misses % MISS_STEP !== 0) return false;
    }
    if (buffer.compare(this.bytes, 0, length, start, start + length) !== 0) {
      this.#misses += 1;
      return false;
    }
    this.#misses = 0;
    return true;
  }
}
