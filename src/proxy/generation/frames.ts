/** Messages between a worker and a primary that did not fork it: V8's structured clones behind their length (4 bytes, big-endian). */
import { deserialize, serialize } from 'node:v8';

const LENGTH_BYTES = 4;

export function frameOf(message: object): Buffer {
  const body = serialize(message);
  const head = Buffer.allocUnsafe(LENGTH_BYTES);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

/** Takes frames out of a stream of bytes. Throws at one that is longer than allowed, or no message. */
export class FrameReader<M> {
  readonly #bytesMax: number;
  #parts: Buffer[] = [];
  #length = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** `M` is what the other end says that it sends. */
  read(bytes: Buffer): M[] {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    const messages: M[] = [];
    for (;;) {
      const wanted = this.#wanted();
      if (wanted === undefined || this.#length < wanted) return messages;
      const all = this.#joined();
      // oxlint-disable-next-line typescript/no-unsafe-assignment -- V8 gives back what the other end, a program of this node, gave it
      const message: M = deserialize(all.subarray(LENGTH_BYTES, wanted));
      messages.push(message);
      this.#parts = [all.subarray(wanted)];
      this.#length -= wanted;
    }
  }

  /** How many bytes the frame at hand has; undefined while that is not known. */
  #wanted(): number | undefined {
    if (this.#length < LENGTH_BYTES) return undefined;
    const [first] = this.#parts;
    const head = first !== undefined && first.length >= LENGTH_BYTES ? first : this.#joined();
    const bodyBytes = head.readUInt32BE();
    if (bodyBytes > this.#bytesMax) throw new Error(`a message of ${String(bodyBytes)} bytes is over the limit`);
    return LENGTH_BYTES + bodyBytes;
  }

  #joined(): Buffer {
    const all = this.#parts.length === 1 && this.#parts[0] !== undefined ? this.#parts[0] : Buffer.concat(this.#parts);
    this.#parts = [all];
    return all;
  }
}
