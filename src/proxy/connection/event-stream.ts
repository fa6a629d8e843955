/**
 * Follows a stream of server-sent events as an endpoint frames it, and tells where it can be ended in order.
 *
 * Source: WHATWG HTML §9.2.6. An event is dispatched by the empty line behind it; one that the stream ends in is dropped by clients, and `retry` is
 * heeded as soon as its line is over. INVARIANT: any split of the bytes into reads gives the same result.
 */
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { createChunkScanner, isBetweenChunks, isChunkEnding, nextChunkPiece } from '#proxy/http1/chunked.ts';
import type { ChunkScanner } from '#proxy/http1/chunked.ts';
import type { ChunkLimits } from '#proxy/http1/limits.ts';

const LF = 10;
const CR = 13;
const COLON = 58;

/** Where the events of a stream end, in the bytes without any framing. */
export class EventFollower {
  /** Whether a line begins, and whether something of an event stands before it. */
  #lineBegins = true;
  #hasBegun = false;
  #afterCr = false;

  /** Whether no event is under way: comments are none. */
  get isBetween(): boolean {
    return this.#lineBegins && !this.#hasBegun;
  }

  follow(buffer: Buffer, start: number, end: number): void {
    for (let at = start; at < end; at += 1) {
      const octet = buffer[at] ?? 0;
      const endsPair = octet === LF && this.#afterCr;
      this.#afterCr = octet === CR;
      if (endsPair) continue;
      if (octet === LF || octet === CR) {
        if (this.#lineBegins) this.#hasBegun = false;
        this.#lineBegins = true;
      } else if (this.#lineBegins) {
        this.#lineBegins = false;
        if (octet !== COLON) this.#hasBegun = true;
      }
    }
  }
}

/** When the clients of a stream of events come again, each at its own time: a service is back in about that. */
const RETRY_MS_MIN = 200;
const RETRY_SPREAD_MS = 200;

export function randomRetryMs(): number {
  return RETRY_MS_MIN + Math.floor(Math.random() * RETRY_SPREAD_MS);
}

export class EventStream {
  readonly #events: EventFollower | undefined;
  readonly #scanner: ChunkScanner | undefined;

  /** `framing`: `FRAMING.chunked` or `FRAMING.untilClose`. `encoded`: its events cannot be read. */
  constructor(framing: number, encoded: boolean, limits: ChunkLimits) {
    this.#events = encoded ? undefined : new EventFollower();
    this.#scanner = framing === FRAMING.chunked ? createChunkScanner(limits) : undefined;
  }

  /** Follows `[start, end)`. The offset of the last place there between two events and two chunks; -1: there is none. */
  follow(buffer: Buffer, start: number, end: number): number {
    const scanner = this.#scanner;
    if (scanner === undefined) {
      this.#events?.follow(buffer, start, end);
      return this.isBetween ? end : -1;
    }
    let last = -1;
    let at = start;
    while (at < end) {
      // Octet by octet behind a chunk, so that its end is seen.
      const next = nextChunkPiece(buffer, at, isChunkEnding(scanner) ? at + 1 : end, scanner);
      if (next <= at) break; // The bytes were judged before: the body is over.
      this.#events?.follow(buffer, scanner.payloadStart, scanner.payloadEnd);
      at = next;
      if (this.isBetween) last = at;
    }
    return last;
  }

  /** Whether it can end here without a loss. */
  get isBetween(): boolean {
    return this.isBetweenChunks && this.#events?.isBetween !== false;
  }

  /** Whether it can end here, with the loss of an event that has begun. */
  get isBetweenChunks(): boolean {
    return this.#scanner === undefined || isBetweenChunks(this.#scanner);
  }

  /** What is said last: when to come again. `isBetween`: between two events. */
  farewell(retryMs: number, isBetween: boolean): string {
    if (this.#events === undefined) return '';
    // A colon begins a comment, or spoils the line that has begun; without an empty line its event is dropped.
    return isBetween ? `retry: ${String(retryMs)}\n\n` : `:\nretry: ${String(retryMs)}\n`;
  }
}
