/**
 * Reads one head after the other from the bytes of a connection, as they come.
 *
 * PERF: almost every head comes whole: it is read where it lies, into the one view of its kind that the worker has. Only a head that comes in
 * parts is gathered in a buffer of its own, with a view of its own, so that each byte is looked at once however they trickle in.
 */
import { NEED_MORE, abandonHead, parseHead } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, createHeadView } from '#proxy/http1/head-view.ts';
import type { HeadKind, HeadView } from '#proxy/http1/head-view.ts';
import type { HeadLimits } from '#proxy/http1/limits.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';

/** Of all unfinished heads of a worker: with 20 000 connections of 32 KiB each it would be ten times that. */
const UNFINISHED_BYTES_MAX = 64 * 1024 * 1024;
const FIRST_BYTES = 1024;

/** What all readers of one kind in a worker have in common. */
export interface HeadReading {
  readonly kind: HeadKind;
  readonly limits: HeadLimits;
  readonly view: HeadView;
  unfinishedBytes: number;
}

export function createHeadReading(kind: HeadKind, limits: HeadLimits): HeadReading {
  return { kind, limits, view: createHeadView(kind, limits), unfinishedBytes: 0 };
}

const NOTHING = Buffer.alloc(0);

export class HeadReader {
  /** After a head was read: the bytes it lies in, their end, and where everything is. Valid until other bytes are read. */
  bytes: Buffer;
  end = 0;
  view: HeadView;
  readonly #shared: HeadReading;
  #gathered: Buffer | undefined;
  #gatheredBytes = 0;

  constructor(shared: HeadReading) {
    this.#shared = shared;
    this.view = shared.view;
    this.bytes = NOTHING;
  }

  /** The view into which a whole head is read. One that this reader has read before fits it, whatever the limits are for others by now. */
  get sharedView(): HeadView {
    return this.#shared.view;
  }

  /** Whether a head has begun to come. */
  get begun(): boolean {
    return this.#gathered !== undefined;
  }

  /** Reads `[start, end)`. The offset in `bytes` after the head, `NEED_MORE`, or a code of `REFUSED`. */
  read(buffer: Buffer, start: number, end: number): number {
    if (this.#gathered !== undefined) return this.#gather(buffer, start, end);
    const { view } = this.#shared;
    const after = parseHead(buffer, start, end, view);
    if (after === NEED_MORE) {
      abandonHead(view);
      if (start === end) return NEED_MORE;
      this.view = createHeadView(this.#shared.kind, this.#shared.limits);
      this.#gathered = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, 2 * (end - start)));
      this.#shared.unfinishedBytes += this.#gathered.length + this.#viewBytes();
      return this.#gather(buffer, start, end);
    }
    this.bytes = buffer;
    this.end = end;
    return after;
  }

  /** Lets go of what was gathered: what the head says is no longer needed. */
  release(): void {
    if (this.#gathered === undefined) return;
    this.#shared.unfinishedBytes -= this.#gathered.length + this.#viewBytes();
    this.#gathered = undefined;
    this.#gatheredBytes = 0;
    this.view = this.#shared.view;
  }

  #viewBytes(): number {
    return (this.#shared.limits.fieldCountMax + 1) * FIELD_STRIDE * Int32Array.BYTES_PER_ELEMENT;
  }

  #gather(buffer: Buffer, start: number, end: number): number {
    let gathered = this.#gathered ?? NOTHING;
    const needed = this.#gatheredBytes + end - start;
    if (needed > gathered.length) {
      const larger = Buffer.allocUnsafeSlow(2 * needed);
      this.#shared.unfinishedBytes += larger.length - gathered.length;
      gathered.copy(larger, 0, 0, this.#gatheredBytes);
      gathered = larger;
      this.#gathered = larger;
    }
    if (this.#shared.unfinishedBytes > UNFINISHED_BYTES_MAX) return REFUSED.overloaded;
    buffer.copy(gathered, this.#gatheredBytes, start, end);
    this.#gatheredBytes = needed;
    this.bytes = gathered;
    this.end = needed;
    return parseHead(gathered, 0, needed, this.view);
  }
}
