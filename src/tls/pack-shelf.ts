/**
 * Memory in which the packs of a worker that boots lie side by side. Each in the message that brought it, between what was let go since, they took a third
 * more, which malloc gave back late or not at all (2026-11).
 */

/** Large enough that malloc asks the kernel for it, and gives it back, as one piece. */
const SLAB_BYTES = 8 * 1024 * 1024;

export class PackShelf {
  #slab = Buffer.alloc(0);
  #used = 0;

  /** Of this many bytes, which nobody else has. What is larger than a slab has one of its own. */
  take(bytes: number): Buffer {
    if (bytes > this.#slab.length - this.#used) {
      this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
      this.#used = 0;
    }
    this.#used += bytes;
    return this.#slab.subarray(this.#used - bytes, this.#used);
  }
}
