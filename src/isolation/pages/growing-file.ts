/** pages.img while runsc writes it: what of it may be read already. */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { codeOf } from '#errors';

const BLOCK_BYTES = 512;

export class GrowingFile implements Disposable {
  readonly #path: string;
  readonly #inOrder: boolean;
  #fd: number | undefined;

  constructor(path: string, inOrder: boolean) {
    this.#path = path;
    this.#inOrder = inOrder;
  }

  /** The file, once it is there. */
  get fd(): number | undefined {
    if (this.#fd !== undefined) return this.#fd;
    try {
      this.#fd = openSync(this.#path, 'r');
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
    return this.#fd;
  }

  /** Bytes from the beginning that are final. All of them, once it is saved. */
  readableBytes(isSaved: boolean): number {
    const { fd } = this;
    if (fd === undefined || (!isSaved && !this.#inOrder)) return 0;
    const { size, blocks } = fstatSync(fd);
    // Fewer blocks than bytes are holes: something is written behind what is not written yet.
    return isSaved || blocks * BLOCK_BYTES >= size ? size : 0;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}
