/**
 * Where the frames of a WebSocket end, in one direction. Reads nothing but their lengths.
 *
 * Source: RFC 6455 §5.2. A frame of our own may be put in between two others, even in the middle of a message (§5.4).
 * INVARIANT: any split of the bytes into reads gives the same result. Never throws, allocates nothing.
 */

const HEAD_BYTES = 2;
const MASK_BIT = 0x80;
const MASK_BYTES = 4;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

export class FrameFollower {
  /** Payload of the frame at hand that is still to come. */
  #left = 0;
  /** Octets of its head that came, and how many it has as far as that is known. */
  #headBytes = 0;
  #headSize = HEAD_BYTES;
  #lengthEnd = HEAD_BYTES;
  #length = 0;

  /** Whether what was followed ends with a frame. */
  get isBetween(): boolean {
    return this.#left === 0 && this.#headBytes === 0;
  }

  /** Follows `[start, end)`. The offset behind the last frame that ends there; -1: none does. */
  follow(buffer: Buffer, start: number, end: number): number {
    let at = start;
    let last = -1;
    while (at < end) {
      if (this.#left > 0) {
        const stop = Math.min(end, at + this.#left);
        this.#left -= stop - at;
        at = stop;
      } else {
        this.#readHead(buffer[at] ?? 0);
        at += 1;
        if (this.#headBytes > 0) continue;
      }
      if (this.#left === 0) last = at;
    }
    return last;
  }

  #readHead(octet: number): void {
    const index = this.#headBytes;
    this.#headBytes += 1;
    if (index === 1) {
      const length = octet & (MASK_BIT - 1);
      const lengthBytes = length === LENGTH_64 ? 8 : length === LENGTH_16 ? 2 : 0;
      this.#headSize = HEAD_BYTES + lengthBytes + (octet >= MASK_BIT ? MASK_BYTES : 0);
      this.#length = lengthBytes === 0 ? length : 0;
      this.#lengthEnd = HEAD_BYTES + lengthBytes;
    } else if (index > 1 && index < this.#lengthEnd) this.#length = this.#length * 256 + octet;
    if (this.#headBytes < this.#headSize) return;
    this.#left = this.#length;
    this.#headBytes = 0;
    this.#headSize = HEAD_BYTES;
  }
}
