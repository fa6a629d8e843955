/** Docker's frames of stdout and stderr: `[stream, 0, 0, 0, length:4][payload]`. Pure. */

const HEADER_BYTES = 8;

/** Takes the headers out of an engine's output, in any pieces; both streams become one. */
export class FrameStripper {
  #left = 0;
  #header: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): readonly Buffer[] {
    const payloads: Buffer[] = [];
    let bytes = chunk;
    while (bytes.length > 0) {
      if (this.#left > 0) {
        const payload = bytes.subarray(0, this.#left);
        payloads.push(payload);
        this.#left -= payload.length;
        bytes = bytes.subarray(payload.length);
        continue;
      }
      const missing = HEADER_BYTES - this.#header.length;
      this.#header = Buffer.concat([this.#header, bytes.subarray(0, missing)]);
      bytes = bytes.subarray(missing);
      if (this.#header.length < HEADER_BYTES) break;
      this.#left = this.#header.readUInt32BE(4);
      this.#header = Buffer.alloc(0);
    }
    return payloads;
  }
}
