/**
 * The source's end of one connection: reads the sandbox's memory in rounds, then the checkpoint, and sends what the sink lacks. It lives in a
 * thread of its own, and reads files without waiting; between two reads it lets the socket work.
 */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { FinishReport, RoundReport } from './exchange.ts';
import { FrameSender } from './frame-sender.ts';
import {
  FILE_PART_BYTES,
  FrameReader,
  ORDER_PAGES_MAX,
  RUNS_PER_FRAME,
  decodeAck,
  decodeAssembled,
  decodeNumber,
  decodeWelcome,
  encodeDone,
  encodeFailed,
  encodeFilePart,
  encodeHello,
  encodeNumber,
  encodeOrder,
  frameKinds,
} from './frames.ts';
import type { FrameKind, Hello, ImageFile, Welcome } from './frames.ts';
import { GrowingFile } from './growing-file.ts';
import { PageBatch } from './page-batch.ts';
import { brokenPeer, failureOfPeer, failureText, pageError } from './page-errors.ts';
import { cpuMsSince } from './page-thread.ts';
import { ID_BYTES, ID_WORDS, PAGES_PER_CALL, PAGE_BYTES, createPageHasher } from './page-hash.ts';
import type { PageHasher } from './page-hash.ts';
import { PageIndex, ZERO_SLOT } from './page-index.ts';
import { dataExtents } from './sandbox-memory.ts';

/** Read between two turns of the event loop: about a millisecond. */
const TURN_BYTES = 2 * 1024 * 1024;
const CALL_BYTES = PAGES_PER_CALL * PAGE_BYTES;
/** What a sink may claim to hold: the memory and what changed in a round, should it have shrunk meanwhile by no more than this. */
const HELD_VERSIONS_MAX = 2;
const HELD_MORE_MAX = 262_144;
/** How often a file that grows is looked at. */
const GROWTH_STEP_MS = 1;

export interface SourceProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly sentBytes: number;
}

export interface SourceOptions {
  readonly memoryFile: string;
  readonly bandwidthBytesPerSecond: number | undefined;
  readonly onProgress: (progress: SourceProgress) => void;
}

interface Opened {
  readonly hasher: PageHasher;
  /** The same ids as bytes. */
  readonly idBytes: Buffer;
  readonly index: PageIndex;
}

export class SourceSession implements Disposable {
  readonly #channel: Duplex;
  readonly #sender: FrameSender;
  readonly #batch: PageBatch;
  readonly #options: SourceOptions;
  readonly #memoryFd: number;
  #opened: Opened | undefined;
  #welcome: Welcome | undefined;
  #heldSlots = 0;
  #keptRound = 0;
  #round = 0;
  #assembled: { readonly imageBytes: number } | undefined;
  #newPages = 0;
  #turnBytes = 0;
  #isClosed = false;

  constructor(channel: Duplex, options: SourceOptions) {
    this.#channel = channel;
    this.#options = options;
    // Open from the start: the file outlives the sandbox as long as this is so.
    this.#memoryFd = openSync(options.memoryFile, 'r');
    this.#sender = new FrameSender(channel, options.bandwidthBytesPerSecond);
    this.#batch = new PageBatch(this.#sender);
    const reader = new FrameReader((kind, payload) => {
      this.#take(kind, payload);
    });
    channel.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
        this.#sender.wake();
      } catch (error) {
        this.fail(error);
      }
    });
  }

  /** Ends it; the sink is told why. */
  fail(error: unknown): void {
    if (this.#channel.writable) this.#channel.end(encodeFailed(failureText(error)), () => this.#channel.destroy());
    else this.#channel.destroy();
    this.#sender.fail(error instanceof Error ? error : new Error(String(error)));
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.fail(pageError('ECLUSE_PAGES_CANCELLED', 'the source closed the page exchange', 'migrate again'));
    closeSync(this.#memoryFd);
  }

  async open(hello: Hello): Promise<void> {
    this.#sender.sendUncounted(encodeHello(hello));
    await this.#sender.until(
      () => (this.#welcome !== undefined && this.#heldSlots === this.#welcome.heldSlots ? true : undefined),
      'the other node does not answer',
    );
  }

  async round(): Promise<RoundReport> {
    const { index } = this.#open();
    const fromMs = performance.now();
    const sentBefore = this.#sender.sentBytes;
    this.#round += 1;
    this.#newPages = 0;
    this.#sender.sendUncounted(encodeNumber(frameKinds.round, this.#round));
    const extents = dataExtents(this.#options.memoryFile, this.#memoryFd);
    const totalBytes = extents.reduce((sum, { from, to }) => sum + to - from, 0);
    let scannedBytes = 0;
    let guess = ZERO_SLOT;
    for (const { from, to } of extents) {
      for (let at = from; at < to; at += CALL_BYTES) {
        const pages = this.#hash(this.#memoryFd, at, Math.min(CALL_BYTES, to - at));
        for (let page = 0; page < pages; page += 1) {
          guess = this.#place(page, guess) + 1;
          if (this.#batch.isFull) await this.#batch.flush();
        }
        scannedBytes += pages * PAGE_BYTES;
        await this.#turn(pages, { doneBytes: scannedBytes, totalBytes });
      }
    }
    await this.#batch.flush();
    this.#sender.sendUncounted(encodeNumber(frameKinds.roundEnd, this.#round));
    await this.#sender.until(
      () => (this.#keptRound === this.#round ? true : undefined),
      'the other node does not confirm a round',
    );
    return {
      round: this.#round,
      scannedBytes,
      newPages: this.#newPages,
      stalePages: index.endRound(),
      sentBytes: this.#sender.sentBytes - sentBefore,
      tookMs: Math.round(performance.now() - fromMs),
    };
  }

  async finish(image: {
    readonly imageDir: string;
    readonly saved: Promise<unknown>;
    readonly inOrder: boolean;
  }): Promise<FinishReport> {
    const fromMs = performance.now();
    const sentBefore = this.#sender.sentBytes;
    const cpuFrom = process.threadCpuUsage();
    this.#newPages = 0;
    let savedMs: number | undefined;
    const watchSave = async (): Promise<void> => {
      try {
        await image.saved;
        savedMs = performance.now();
      } catch (error) {
        this.fail(error);
      }
    };
    void watchSave();
    using file = new GrowingFile(join(image.imageDir, 'pages.img'), image.inOrder);
    const { pagesBytes, pagesDigest } = await this.#sendPages(file, () => savedMs !== undefined);
    const checkpointDigest = await this.#sendFile(image.imageDir, 'checkpoint.img');
    const metaDigest = await this.#sendFile(image.imageDir, 'pages_meta.img');
    this.#sender.sendUncounted(encodeDone({ pagesBytes, pagesDigest, checkpointDigest, metaDigest }));
    const sentMs = performance.now();
    await this.#sender.until(() => this.#assembled, 'the other node does not confirm the image');
    const assembledMs = performance.now();
    return {
      pagesBytes,
      newPages: this.#newPages,
      sentBytes: this.#sender.sentBytes - sentBefore,
      tookMs: Math.round(assembledMs - fromMs),
      cpuMs: cpuMsSince(cpuFrom),
      afterSaveMs: {
        sent: Math.round(sentMs - (savedMs ?? sentMs)),
        assembled: Math.round(assembledMs - (savedMs ?? assembledMs)),
      },
    };
  }

  async #sendPages(
    file: GrowingFile,
    isSaved: () => boolean,
  ): Promise<{ readonly pagesBytes: number; readonly pagesDigest: Buffer }> {
    const digest = createHash('sha256');
    const order = new PageOrder();
    let at = 0;
    for (;;) {
      // Asked before the size: what is written between the two is then read in the next turn.
      const isLast = isSaved();
      const bytes = file.readableBytes(isLast);
      const wholeBytes = bytes - (bytes % PAGE_BYTES);
      if (wholeBytes > at) await this.#sendPart(file.opened(), { from: at, to: wholeBytes, order, digest });
      at = wholeBytes;
      await this.#sendOrder(order);
      if (!isLast) {
        this.#sender.check();
        await delay(GROWTH_STEP_MS);
        continue;
      }
      const rest = Buffer.alloc(bytes - at);
      readSync(file.opened(), rest, 0, rest.length, at);
      digest.update(rest);
      if (rest.length > 0) await this.#sender.send([encodeFilePart('pages.img', rest)]);
      return { pagesBytes: bytes, pagesDigest: digest.digest() };
    }
  }

  async #sendPart(
    fd: number,
    part: { readonly from: number; readonly to: number; readonly order: PageOrder; readonly digest: Hash },
  ): Promise<void> {
    const { idBytes } = this.#open();
    for (let at = part.from; at < part.to; at += CALL_BYTES) {
      const pages = this.#hash(fd, at, Math.min(CALL_BYTES, part.to - at));
      part.digest.update(idBytes.subarray(0, pages * ID_BYTES));
      for (let page = 0; page < pages; page += 1) {
        part.order.add(this.#place(page, part.order.next));
        if (this.#batch.isFull) await this.#batch.flush();
        if (part.order.isFull) await this.#sendOrder(part.order);
      }
      await this.#turn(pages, { doneBytes: at + pages * PAGE_BYTES, totalBytes: part.to });
    }
  }

  /** Pages first: an order is carried out as it comes. */
  async #sendOrder(order: PageOrder): Promise<void> {
    await this.#batch.flush();
    const runs = order.take();
    if (runs.length > 0) await this.#sender.send([encodeOrder(runs)]);
  }

  async #sendFile(imageDir: string, file: ImageFile): Promise<Buffer> {
    const bytes = readFileSync(join(imageDir, file));
    for (let at = 0; at < bytes.length; at += FILE_PART_BYTES) {
      await this.#sender.send([encodeFilePart(file, bytes.subarray(at, at + FILE_PART_BYTES))]);
    }
    return createHash('sha256').update(bytes).digest();
  }

  /** Reads and names pages; a file's end that is no whole page is made one by zeros. */
  #hash(fd: number, at: number, bytes: number): number {
    const { hasher } = this.#open();
    const pages = Math.ceil(bytes / PAGE_BYTES);
    const read = readSync(fd, hasher.input, 0, bytes, at);
    if (read < pages * PAGE_BYTES) hasher.input.fill(0, read, pages * PAGE_BYTES);
    hasher.hash(pages);
    return pages;
  }

  /** Where a page of the last `#hash` lies at the sink; a new one is put into the batch, which must have room. */
  #place(page: number, guess: number): number {
    const { hasher, index, idBytes } = this.#open();
    const known = index.find(hasher.ids, page * ID_WORDS, guess);
    if (known >= 0) {
      index.see(known);
      return known;
    }
    const slot = index.take(hasher.ids, page * ID_WORDS);
    if (slot < 0) {
      throw pageError(
        'ECLUSE_PAGES_FULL',
        'the container has more memory than the other node has places for',
        'raise its memory limit, or migrate it without pre-copy',
      );
    }
    this.#newPages += 1;
    this.#batch.add(
      slot,
      idBytes.subarray(page * ID_BYTES, (page + 1) * ID_BYTES),
      hasher.input.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
    );
    return slot;
  }

  async #turn(pages: number, progress: Pick<SourceProgress, 'doneBytes' | 'totalBytes'>): Promise<void> {
    this.#turnBytes += pages * PAGE_BYTES;
    if (this.#turnBytes < TURN_BYTES) return;
    this.#turnBytes = 0;
    this.#options.onProgress({ ...progress, sentBytes: this.#sender.sentBytes });
    await nextTurn();
    this.#sender.check();
  }

  #open(): Opened {
    if (this.#opened === undefined) throw brokenPeer('the exchange is not open');
    return this.#opened;
  }

  #take(kind: FrameKind, payload: Buffer): void {
    const work: Partial<Record<FrameKind, () => void>> = {
      [frameKinds.welcome]: () => {
        if (this.#welcome !== undefined) throw brokenPeer('a second welcome');
        this.#begin(decodeWelcome(payload));
      },
      [frameKinds.held]: () => {
        this.#hold(payload);
      },
      [frameKinds.ack]: () => {
        this.#sender.acked(decodeAck(payload));
      },
      [frameKinds.roundKept]: () => {
        this.#keptRound = decodeNumber(payload);
      },
      [frameKinds.assembled]: () => {
        this.#assembled = decodeAssembled(payload);
      },
      [frameKinds.failed]: () => {
        this.#sender.fail(failureOfPeer(payload.toString('utf8')));
        this.#channel.destroy();
      },
    };
    const found = work[kind];
    if (found === undefined) throw brokenPeer(`a frame of kind ${String(kind)} from a sink`);
    found();
  }

  #begin(welcome: Welcome): void {
    const pages = Math.ceil(fstatSync(this.#memoryFd).size / PAGE_BYTES);
    if (welcome.heldSlots > HELD_VERSIONS_MAX * pages + HELD_MORE_MAX) throw brokenPeer('it holds more than there is');
    const hasher = createPageHasher(welcome.seed);
    hasher.input.fill(0, 0, PAGE_BYTES);
    hasher.hash(1);
    this.#welcome = welcome;
    this.#opened = {
      hasher,
      idBytes: Buffer.from(hasher.ids.buffer, hasher.ids.byteOffset, hasher.ids.byteLength),
      index: new PageIndex(welcome.slotsMax, hasher.ids),
    };
  }

  /** Pages that the sink has from an earlier attempt; the first is the zero page. */
  #hold(payload: Buffer): void {
    const { index, idBytes } = this.#open();
    const count = payload.length / ID_BYTES;
    if (!Number.isInteger(count) || count < 1 || this.#heldSlots + count > (this.#welcome?.heldSlots ?? 0)) {
      throw brokenPeer('more pages held than it said');
    }
    const ids = new Uint32Array(new Uint8Array(payload).buffer);
    if (this.#heldSlots === ZERO_SLOT && !payload.subarray(0, ID_BYTES).equals(idBytes.subarray(0, ID_BYTES))) {
      throw brokenPeer('its zero page is another');
    }
    for (let at = this.#heldSlots === ZERO_SLOT ? 1 : 0; at < count; at += 1) index.put(this.#heldSlots + at, ids, at * ID_WORDS);
    this.#heldSlots += count;
  }
}

/** The order of pages as runs of places. */
class PageOrder {
  #runs: { readonly slot: number; count: number }[] = [];
  #pages = 0;
  #next = ZERO_SLOT;

  get isFull(): boolean {
    return this.#pages >= ORDER_PAGES_MAX || this.#runs.length >= RUNS_PER_FRAME;
  }

  /** The place that would go on with the last run. */
  get next(): number {
    return this.#next;
  }

  add(slot: number): void {
    this.#next = slot + 1;
    this.#pages += 1;
    const last = this.#runs.at(-1);
    if (last !== undefined && last.slot + last.count === slot) last.count += 1;
    else this.#runs.push({ slot, count: 1 });
  }

  take(): readonly { readonly slot: number; readonly count: number }[] {
    const runs = this.#runs;
    this.#runs = [];
    this.#pages = 0;
    return runs;
  }
}
