/** Where the body of one message after the other lies in the bytes of a connection. Copies nothing. */
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { createChunkScanner, followChunks, isChunkedDone, resetChunkScanner } from '#proxy/http1/chunked.ts';
import type { ChunkScanner } from '#proxy/http1/chunked.ts';
import type { ChunkLimits } from '#proxy/http1/limits.ts';

export class BodyFollower {
  /** One of `FRAMING`. */
  framing: number = FRAMING.none;
  /** Of a body of known length: what is still to come. */
  left = 0;
  readonly #limits: ChunkLimits;
  /** Most connections never carry a chunked body. */
  #scanner: ChunkScanner | undefined;

  constructor(limits: ChunkLimits) {
    this.#limits = limits;
  }

  /** Begins with the body of another message. */
  begin(framing: number, contentLength: number): void {
    this.framing = framing;
    this.left = framing === FRAMING.fixed ? contentLength : 0;
    if (framing === FRAMING.chunked) resetChunkScanner((this.#scanner ??= createChunkScanner(this.#limits)));
  }

  /** How far the body goes in `[start, limit)`, or a code of `REFUSED`. */
  follow(bytes: Buffer, start: number, limit: number): number {
    switch (this.framing) {
      case FRAMING.none:
        return start;
      case FRAMING.fixed: {
        const end = Math.min(limit, start + this.left);
        this.left -= end - start;
        return end;
      }
      case FRAMING.chunked:
        return this.#scanner === undefined ? start : followChunks(bytes, start, limit, this.#scanner);
      default:
        return limit;
    }
  }

  /** Payload of a chunked body so far. */
  get payloadBytes(): number {
    return this.framing === FRAMING.chunked ? (this.#scanner?.payloadBytes ?? 0) : 0;
  }

  /** Whether the body is over, as far as the message itself tells. */
  get whole(): boolean {
    switch (this.framing) {
      case FRAMING.none:
        return true;
      case FRAMING.fixed:
        return this.left === 0;
      case FRAMING.chunked:
        return this.#scanner === undefined || isChunkedDone(this.#scanner);
      default:
        return false;
    }
  }
}
