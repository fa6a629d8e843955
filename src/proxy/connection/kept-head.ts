/**
 * The raw head of the request at hand: kept for the log, for another attempt, and to see whether the next one is the same.
 *
 * PERF: many connections carry the same head again and again (polling, health checks, clients of one API). Where the bytes are the same,
 * nothing has to be read, matched or rewritten again but the id of the request. Bytes are compared, never what they mean.
 */

import { FIELD, isIn } from '#proxy/http1/field-names.ts';
import { valueEnd, valueStart } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { hostKey } from '#proxy/http1/target.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { readTraceparent } from '#proxy/trace-context.ts';

/** Room for the heads of most clients; it grows with the longest. */
const KEPT_BYTES = 512;
/** Longer heads carry what changes, and cost more to compare in vain. */
const REPEATED_BYTES_MAX = 4096;
/** After so many comparisons in vain only every `MISS_STEP`th head is compared. */
const MISSES_MAX = 4;
const MISS_STEP = 32;
const NOTHING = Buffer.alloc(0);
/** What stands before the trace id in a `traceparent`: `00-`. */
const VERSION_LENGTH = 3;

export class KeptHead {
  bytes: Buffer = NOTHING;
  length = 0;
  /** Whether a repetition of it means the same again. */
  repeatable = false;
  #misses = 0;

  /** Keeps `[start, end)`. */
  keep(bytes: Buffer, start: number, end: number): void {
    const length = end - start;
    if (this.bytes.length < length) this.bytes = Buffer.allocUnsafe(Math.max(KEPT_BYTES, 2 ** Math.ceil(Math.log2(length))));
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

/** PERF: most requests of a connection are for the host of the one before: its string is taken again where the bytes are the same. */
export class KnownHost {
  #name = '';

  of(bytes: Buffer, view: HeadView): string {
    const known = this.#name;
    const { hostStart, hostEnd } = view;
    let same = known.length === hostEnd - hostStart;
    for (let index = 0; same && index < known.length; index += 1) same = bytes[hostStart + index] === known.charCodeAt(index);
    if (!same) this.#name = hostKey(bytes, view);
    return this.#name;
  }
}

/** Notes in `record` where the parts lie of the head that `kept` has just taken over. */
export function noteHead(record: ExchangeRecord, kept: KeptHead, bytes: Buffer, view: HeadView): void {
  const { start } = view;
  record.head = kept.bytes;
  record.headBytes = kept.length;
  record.methodEnd = view.methodEnd - start;
  record.pathStart = view.pathStart - start;
  record.pathEnd = view.queryStart - start;
  if (!isIn(view.seen, FIELD.traceparent) || isIn(view.repeated, FIELD.traceparent)) return;
  const from = valueStart(view, FIELD.traceparent);
  if (readTraceparent(bytes, from, valueEnd(view, FIELD.traceparent))) record.traceIdStart = from + VERSION_LENGTH - start;
}
