/**
 * What the target has of one container's memory: pages by place, in memory-backed storage of our own cgroup, never shared with another
 * container. It belongs to a thread: files are read and written without waiting.
 *
 *   DIR/pages   4096 bytes a place; place 0 is the zero page
 *   DIR/index   only while nobody has the store open and it was kept for another attempt: seed, then an id for each place
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { brokenPeer, pageError } from './page-errors.ts';
import { ID_BYTES, PAGES_PER_CALL, PAGE_BYTES, SEED_BYTES, createPageHasher } from './page-hash.ts';
import type { PageHasher } from './page-hash.ts';
import { ZERO_SLOT } from './page-index.ts';

const IDS_FIRST = 4096;

/** Writes all of it: a file system that is full takes a part first. */
export function writeFully(fd: number, bytes: Buffer, position: number): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}

export class PageStore implements Disposable {
  readonly seed: Buffer;
  readonly slotsMax: number;
  readonly #dir: string;
  readonly #fd: number;
  readonly #hasher: PageHasher;
  #ids: Buffer;
  #top = 1;
  #isOpen = true;

  /** Opens what an earlier attempt kept in `dir`, or a new store. */
  constructor(dir: string, slotsMax: number) {
    this.slotsMax = slotsMax;
    this.#dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const index = join(dir, 'index');
    const kept = existsSync(index) ? readFileSync(index) : Buffer.alloc(0);
    const keptSlots = Math.floor((kept.length - SEED_BYTES) / ID_BYTES);
    const isKept = keptSlots > 0 && keptSlots <= slotsMax;
    // While it is open places change: an index from before would be wrong after a crash.
    rmSync(index, { force: true });
    this.seed = isKept ? kept.subarray(0, SEED_BYTES) : randomBytes(SEED_BYTES);
    this.#hasher = createPageHasher(this.seed);
    this.#ids = Buffer.alloc(Math.max(IDS_FIRST, isKept ? keptSlots : 0) * ID_BYTES);
    this.#fd = openSync(join(dir, 'pages'), isKept ? 'r+' : 'w+', 0o600);
    if (isKept) {
      kept.copy(this.#ids, 0, SEED_BYTES);
      this.#top = keptSlots;
    } else {
      ftruncateSync(this.#fd, PAGE_BYTES);
      this.#hasher.input.fill(0, 0, PAGE_BYTES);
      this.#hasher.hash(1);
      this.#ids.set(this.#hashedIds(1));
    }
  }

  /** Places below this are filled. */
  get top(): number {
    return this.#top;
  }

  /** The ids of `count` places; good until the next `put`. */
  idsFrom(slot: number, count: number): Buffer {
    return this.#ids.subarray(slot * ID_BYTES, (slot + count) * ID_BYTES);
  }

  /** Takes pages in. Each must have the id that it claims; a place is one that is filled, or the next. */
  put(places: readonly number[], ids: Buffer, content: Buffer): void {
    for (let from = 0; from < places.length; from += PAGES_PER_CALL) {
      const count = Math.min(PAGES_PER_CALL, places.length - from);
      content.copy(this.#hasher.input, 0, from * PAGE_BYTES, (from + count) * PAGE_BYTES);
      this.#hasher.hash(count);
      if (!this.#hashedIds(count).equals(ids.subarray(from * ID_BYTES, (from + count) * ID_BYTES))) {
        throw brokenPeer('a page that does not have the id it was sent with');
      }
    }
    for (let from = 0; from < places.length;) {
      const slot = places[from] ?? ZERO_SLOT;
      let count = 1;
      while (places[from + count] === slot + count) count += 1;
      this.#fill(slot, count, ids.subarray(from * ID_BYTES, (from + count) * ID_BYTES));
      writeFully(this.#fd, content.subarray(from * PAGE_BYTES, (from + count) * PAGE_BYTES), slot * PAGE_BYTES);
      from += count;
    }
  }

  /** Reads pages that lie one after the other. */
  read(slot: number, count: number, into: Buffer): void {
    if (slot + count > this.#top) throw brokenPeer(`an order for page ${String(slot + count - 1)} of ${String(this.#top)}`);
    const bytes = count * PAGE_BYTES;
    if (readSync(this.#fd, into, 0, bytes, slot * PAGE_BYTES) !== bytes) {
      throw pageError('ECLUSE_PAGES_STORE', 'the page store is shorter than it should be', 'migrate again');
    }
  }

  /** Closes the files, and leaves the pages for another attempt. */
  keep(): void {
    if (!this.#isOpen) return;
    this.#close();
    writeFileSync(join(this.#dir, 'index'), Buffer.concat([this.seed, this.idsFrom(0, this.#top)]), { mode: 0o600 });
  }

  /** Gives the memory back, unless the pages were kept. */
  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#close();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #close(): void {
    this.#isOpen = false;
    closeSync(this.#fd);
  }

  #hashedIds(count: number): Buffer {
    const { buffer, byteOffset } = this.#hasher.ids;
    return Buffer.from(buffer, byteOffset, count * ID_BYTES);
  }

  #fill(slot: number, count: number, ids: Buffer): void {
    if (slot === ZERO_SLOT || slot > this.#top || slot + count > this.slotsMax) {
      throw brokenPeer(`a page for place ${String(slot)} of ${String(this.slotsMax)}`);
    }
    this.#top = Math.max(this.#top, slot + count);
    if (this.#top * ID_BYTES > this.#ids.length) {
      const grown = Buffer.alloc(Math.max(2 * this.#ids.length, this.#top * ID_BYTES));
      this.#ids.copy(grown);
      this.#ids = grown;
    }
    this.#ids.set(ids, slot * ID_BYTES);
  }
}
