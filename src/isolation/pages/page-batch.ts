/** New pages on their way into one frame. Content lies in buffers that come back when the socket is done with them. */
import { encodeBatch } from './batch-encoding.ts';
import { PAGES_PER_FRAME, encodePagesHead } from './frames.ts';
import type { FrameSender } from './frame-sender.ts';
import { ID_BYTES, PAGE_BYTES } from './page-hash.ts';

export class PageBatch {
  readonly #sender: FrameSender;
  readonly #spare: Buffer[] = [];
  readonly #places = Buffer.alloc(4 * PAGES_PER_FRAME);
  readonly #ids = Buffer.alloc(ID_BYTES * PAGES_PER_FRAME);
  #content: Buffer = Buffer.allocUnsafeSlow(PAGE_BYTES * PAGES_PER_FRAME);
  #count = 0;

  constructor(sender: FrameSender) {
    this.#sender = sender;
  }

  get isFull(): boolean {
    return this.#count === PAGES_PER_FRAME;
  }

  add(slot: number, id: Buffer, page: Buffer): void {
    this.#places.writeUInt32LE(slot, 4 * this.#count);
    id.copy(this.#ids, ID_BYTES * this.#count);
    page.copy(this.#content, PAGE_BYTES * this.#count);
    this.#count += 1;
  }

  async flush(): Promise<void> {
    const count = this.#count;
    if (count === 0) return;
    const pages = this.#content;
    const { encoding, content } = encodeBatch(pages.subarray(0, count * PAGE_BYTES), this.#sender.wireBytesPerMs);
    const head = encodePagesHead(
      { encoding, count },
      this.#places.subarray(0, 4 * count),
      this.#ids.subarray(0, ID_BYTES * count),
      content.length,
    );
    this.#count = 0;
    this.#content = this.#spare.pop() ?? Buffer.allocUnsafeSlow(PAGE_BYTES * PAGES_PER_FRAME);
    await this.#sender.send([head, content], () => this.#spare.push(pages));
  }
}
