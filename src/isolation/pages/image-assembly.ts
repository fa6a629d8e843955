/**
 * The image on the target, put together while the order of its pages comes in: pages.img page by page from the store, the other files as they are.
 *
 * Nothing of it is written ahead: one page more or less moves all pages behind it, and to write over a page of memory-backed storage costs as much
 * as to write it (docs/decisions/014-pre-copy.md).
 */
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { imageFiles } from './frames.ts';
import type { ImageFile, ImageSeal, PageRun } from './frames.ts';
import { brokenPeer } from './page-errors.ts';
import { PAGE_BYTES } from './page-hash.ts';
import type { PageStore } from './page-store.ts';
import { writeFully } from './page-store.ts';

/** Copied at once: it stays in a core's second-level cache between being read and being written. */
const COPY_PAGES = 64;
/** The state of a sandbox's kernel; it grows with files, sockets and threads, not with memory. 1 MiB is usual. */
const STATE_BYTES_MAX = 512 * 1024 * 1024;

export class ImageAssembly implements Disposable {
  readonly #store: PageStore;
  readonly #imageDir: string;
  readonly #pagesBytesMax: number;
  readonly #files: ReadonlyMap<ImageFile, number>;
  readonly #digests: ReadonlyMap<ImageFile, ReturnType<typeof createHash>>;
  readonly #bytes: Record<ImageFile, number> = { 'checkpoint.img': 0, 'pages_meta.img': 0, 'pages.img': 0 };
  readonly #buffer = Buffer.allocUnsafeSlow(COPY_PAGES * PAGE_BYTES);
  #buffered = 0;
  #isWhole = false;
  #isOpen = true;

  /** `imageDir` must not exist. */
  constructor(store: PageStore, imageDir: string, pagesBytesMax: number) {
    this.#store = store;
    this.#imageDir = imageDir;
    this.#pagesBytesMax = pagesBytesMax;
    mkdirSync(imageDir, { mode: 0o700 });
    this.#files = new Map(imageFiles.map((file) => [file, openSync(join(imageDir, file), 'wx', 0o600)]));
    this.#digests = new Map(imageFiles.map((file) => [file, createHash('sha256')]));
  }

  get imageBytes(): number {
    return Object.values(this.#bytes).reduce((sum, bytes) => sum + bytes, 0);
  }

  /** The next pages of pages.img. */
  append(runs: readonly PageRun[]): void {
    for (const run of runs) {
      for (let done = 0; done < run.count;) {
        const count = Math.min(run.count - done, COPY_PAGES - this.#buffered);
        const at = this.#buffered * PAGE_BYTES;
        this.#store.read(run.slot + done, count, this.#buffer.subarray(at, at + count * PAGE_BYTES));
        this.#digests.get('pages.img')?.update(this.#store.idsFrom(run.slot + done, count));
        this.#buffered += count;
        done += count;
        if (this.#buffered === COPY_PAGES) this.#flush();
      }
    }
    this.#flush();
  }

  /** The next part of another file, or what is behind the last whole page of pages.img. */
  appendPart(file: ImageFile, bytes: Buffer): void {
    if (file === 'pages.img' && (bytes.length >= PAGE_BYTES || this.#bytes[file] % PAGE_BYTES !== 0)) {
      throw brokenPeer('more than one rest of pages.img');
    }
    this.#digests.get(file)?.update(bytes);
    this.#write(file, bytes);
  }

  /** Closes the image, if it is what it must be. */
  finish(seal: ImageSeal): void {
    const isRight =
      this.#bytes['pages.img'] === seal.pagesBytes &&
      this.#digests.get('pages.img')?.digest().equals(seal.pagesDigest) === true &&
      this.#digests.get('checkpoint.img')?.digest().equals(seal.checkpointDigest) === true &&
      this.#digests.get('pages_meta.img')?.digest().equals(seal.metaDigest) === true;
    if (!isRight) throw brokenPeer('the image on the target is not the image on the source');
    this.#isWhole = true;
    this.#close();
  }

  /** Removes an image that did not become whole. */
  [Symbol.dispose](): void {
    this.#close();
    if (!this.#isWhole) rmSync(this.#imageDir, { recursive: true, force: true });
  }

  #flush(): void {
    this.#write('pages.img', this.#buffer.subarray(0, this.#buffered * PAGE_BYTES));
    this.#buffered = 0;
  }

  #write(file: ImageFile, bytes: Buffer): void {
    const fd = this.#files.get(file);
    const max = file === 'pages.img' ? this.#pagesBytesMax : STATE_BYTES_MAX;
    if (fd === undefined || !this.#isOpen || this.#bytes[file] + bytes.length > max) {
      throw brokenPeer(`${file} has more than ${String(max)} bytes`);
    }
    writeFully(fd, bytes, this.#bytes[file]);
    this.#bytes[file] += bytes.length;
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const fd of this.#files.values()) closeSync(fd);
  }
}
