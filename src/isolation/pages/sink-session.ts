/**
 * The target's end of one connection. Each frame is carried out when it is whole, before the next is read: so the memory it takes is one frame,
 * and a source that is too fast waits in TCP.
 */
import type { Duplex } from 'node:stream';
import type { AssembledImage } from './exchange.ts';
import { decodeBatch } from './batch-encoding.ts';
import {
  FrameReader,
  HEADER_BYTES,
  HELD_PER_FRAME,
  decodeDone,
  decodeFilePart,
  decodeHello,
  decodeNumber,
  decodeOrder,
  decodePages,
  encodeAck,
  encodeAssembled,
  encodeFailed,
  encodeNumber,
  encodeWelcome,
  frame,
  frameKinds,
} from './frames.ts';
import type { FrameKind, Hello } from './frames.ts';
import { ImageAssembly } from './image-assembly.ts';
import { brokenPeer, cancelled, connectionLost, failureOfPeer, failureText, stalled } from './page-errors.ts';
import { PAGE_BYTES } from './page-hash.ts';
import type { PageStore } from './page-store.ts';
import { cpuMsSince } from './page-thread.ts';

/** What an admitted source writes to. */
export interface SinkJob {
  readonly store: PageStore;
  readonly imageDir: string;
  readonly pagesBytesMax: number;
}

export interface SinkLimits {
  /** Until the first frame: who connects and says nothing holds one of few places. */
  readonly helloMs: number;
  /** In the middle of a frame. */
  readonly stallMs: number;
  /** Between two frames: the edge is frozen and drained, the sandbox paused. */
  readonly idleMs: number;
}

export const SINK_LIMITS: SinkLimits = { helloMs: 5_000, stallMs: 15_000, idleMs: 120_000 };
const CHECK_MS = 500;
/** For the source to read why, and to close. */
const LINGER_MS = 2_000;

type SinkState = 'hello' | 'copying' | 'finishing' | 'done';

export class SinkSession {
  /** Settles when the image is whole, or when nothing will come of it. */
  readonly ended: Promise<AssembledImage>;
  readonly #channel: Duplex;
  readonly #admit: (hello: Hello) => SinkJob;
  readonly #limits: SinkLimits;
  readonly #outcome = Promise.withResolvers<AssembledImage>();
  readonly #watch: NodeJS.Timeout;
  readonly #reader: FrameReader;
  #state: SinkState = 'hello';
  #job: SinkJob | undefined;
  #image: ImageAssembly | undefined;
  #heardMs = performance.now();
  #receivedBytes = 0;
  #finishFromMs = 0;
  #finishCpuFrom: NodeJS.CpuUsage | undefined;

  /** `admit` looks a hello over; what it throws is told to the source, so it must say no more than a stranger may know. */
  constructor(channel: Duplex, admit: (hello: Hello) => SinkJob, limits: SinkLimits) {
    this.#channel = channel;
    this.#admit = admit;
    this.#limits = limits;
    this.ended = this.#outcome.promise;
    this.ended.catch(() => undefined); // Whoever waits for it may come later.
    this.#reader = new FrameReader((kind, payload) => {
      this.#take(kind, payload);
    });
    channel.on('data', (chunk: Buffer) => {
      this.#hear(chunk);
    });
    channel.on('error', (error: unknown) => {
      this.fail(connectionLost(error));
    });
    for (const end of ['end', 'close']) {
      channel.on(end, () => {
        this.fail(connectionLost('it was closed'));
      });
    }
    this.#watch = setInterval(() => {
      this.#checkTime();
    }, CHECK_MS);
  }

  /** Ends it, whatever it is at. Once it has ended, this does nothing. */
  fail(error: unknown): void {
    if (this.#state === 'done') return;
    this.#state = 'done';
    clearInterval(this.#watch);
    this.#image?.[Symbol.dispose]();
    this.#outcome.reject(error);
    if (!this.#channel.writable) {
      this.#channel.destroy();
      return;
    }
    // What is on its way is still taken in, and thrown away: a connection that is closed over it would lose our reason.
    this.#channel.end(encodeFailed(failureText(error)));
    setTimeout(() => this.#channel.destroy(), LINGER_MS).unref();
  }

  cancel(): void {
    this.fail(cancelled());
  }

  #hear(chunk: Buffer): void {
    if (this.#state === 'done') return;
    this.#heardMs = performance.now();
    this.#receivedBytes += chunk.length;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.fail(error);
    }
  }

  #checkTime(): void {
    const silentMs = performance.now() - this.#heardMs;
    const { helloMs, stallMs, idleMs } = this.#limits;
    const limitMs = this.#state === 'hello' ? helloMs : this.#reader.isInside ? stallMs : idleMs;
    if (silentMs > limitMs) this.fail(stalled('nothing came from the source', limitMs));
  }

  #take(kind: FrameKind, payload: Buffer): void {
    if (this.#state === 'done') return;
    if (kind === frameKinds.failed) {
      this.fail(failureOfPeer(payload.toString('utf8')));
      return;
    }
    if (this.#state === 'hello') {
      if (kind !== frameKinds.hello) throw brokenPeer('no hello');
      this.#welcome(decodeHello(payload));
      return;
    }
    const work = this.#workOf(kind);
    if (work === undefined) throw brokenPeer(`a frame of kind ${String(kind)} from a source`);
    work(payload);
    // What was taken in may be forgotten by the source, which has bounded what is under way.
    if (kind === frameKinds.pages || kind === frameKinds.order || kind === frameKinds.file) {
      this.#channel.write(encodeAck(HEADER_BYTES + payload.length));
    }
  }

  #workOf(kind: FrameKind): ((payload: Buffer) => void) | undefined {
    const work: Partial<Record<FrameKind, (payload: Buffer) => void>> = {
      [frameKinds.round]: (payload) => {
        this.#round(payload);
      },
      [frameKinds.roundEnd]: (payload) => {
        this.#channel.write(encodeNumber(frameKinds.roundKept, this.#round(payload)));
      },
      [frameKinds.pages]: (payload) => {
        const { places, ids, ...batch } = decodePages(payload);
        this.#admitted().store.put(places, ids, decodeBatch(batch, batch.count * PAGE_BYTES));
      },
      [frameKinds.order]: (payload) => {
        this.#assembly().append(decodeOrder(payload));
      },
      [frameKinds.file]: (payload) => {
        const { file, bytes } = decodeFilePart(payload);
        this.#assembly().appendPart(file, bytes);
      },
      [frameKinds.done]: (payload) => {
        this.#seal(payload);
      },
    };
    return work[kind];
  }

  #round(payload: Buffer): number {
    if (this.#state !== 'copying') throw brokenPeer('a round in the final pass');
    return decodeNumber(payload);
  }

  #admitted(): SinkJob {
    if (this.#job === undefined) throw brokenPeer('no hello');
    return this.#job;
  }

  #welcome(hello: Hello): void {
    const job = this.#admit(hello);
    this.#job = job;
    this.#state = 'copying';
    const { store } = job;
    // Place 0 is the zero page: who holds only that holds nothing.
    const heldSlots = store.top;
    this.#channel.write(encodeWelcome({ seed: store.seed, slotsMax: store.slotsMax, heldSlots }));
    for (let slot = 0; slot < heldSlots; slot += HELD_PER_FRAME) {
      this.#channel.write(frame(frameKinds.held, store.idsFrom(slot, Math.min(HELD_PER_FRAME, heldSlots - slot))));
    }
  }

  #assembly(): ImageAssembly {
    if (this.#image === undefined) {
      const { store, imageDir, pagesBytesMax } = this.#admitted();
      this.#state = 'finishing';
      this.#finishFromMs = performance.now();
      this.#finishCpuFrom = process.threadCpuUsage();
      this.#image = new ImageAssembly(store, imageDir, pagesBytesMax);
    }
    return this.#image;
  }

  #seal(payload: Buffer): void {
    const image = this.#assembly();
    image.finish(decodeDone(payload));
    const assembleMs = performance.now() - this.#finishFromMs;
    this.#state = 'done';
    clearInterval(this.#watch);
    this.#channel.write(encodeAssembled(image.imageBytes, assembleMs));
    this.#channel.end();
    this.#outcome.resolve({
      imageDir: this.#admitted().imageDir,
      imageBytes: image.imageBytes,
      receivedBytes: this.#receivedBytes,
      assembleMs: Math.round(assembleMs),
      cpuMs: this.#finishCpuFrom === undefined ? 0 : cpuMsSince(this.#finishCpuFrom),
    });
  }
}
