/** What came of a body with its head: where it was read as long as that is valid, then a copy. */
const NOTHING = Buffer.alloc(0);

export class FirstPiece {
  bytes: Buffer = NOTHING;
  start = 0;
  end = 0;

  /** It lies in `[start, end)`, which is valid until something else is read. */
  set(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
  }

  /** It is needed for longer. */
  keep(): void {
    const { bytes, start, end } = this;
    if (end > start) this.set(Buffer.from(bytes.subarray(start, end)), 0, end - start);
    else this.drop();
  }

  drop(): void {
    this.set(NOTHING, 0, 0);
  }
}
