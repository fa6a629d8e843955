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

  /** The file, which must be there by now. */
  opened(): number {
    this.#fd ??= openSync(this.#path, 'r');
    return this.#fd;
  }

  /** Bytes from the beginning that are final: all of them, once it is saved. */
  readableBytes(isSaved: boolean): number {
    if (!isSaved && !(this.#inOrder && this.#isThere())) return 0;
    const { size, blocks } = fstatSync(this.opened());
    // Fewer blocks than bytes are holes: something is written behind what is not written yet.
    return isSaved || blocks * BLOCK_BYTES >= size ? size : 0;
  }

  #isThere(): boolean {
    if (this.#fd !== undefined) return true;
    try {
      this.opened();
      return true;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}
