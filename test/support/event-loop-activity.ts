/**
 * Whether anything is under way in this process: connections being made, bytes arriving, files, keys and signatures in the making. What other processes
 * and threads do is not seen, and neither are timers: what waits on a real timer is idle.
 */
import { createHook } from 'node:async_hooks';
import type { AsyncHook } from 'node:async_hooks';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';

/** One-shot work, from its making until its callback. */
const WORK = /(?:REQ|REQWRAP|REQCALLBACK|REQPROMISE|CONNECTWRAP|SHUTDOWNWRAP|WRITEWRAP|ZLIB)$/;
/** Keys, signatures, digests. Those that were made at once and have no callback look the same, and stay until they are collected. */
const CRYPTO_JOB = /REQUEST$/;
/** In the stack of a job of WebCrypto, which has a promise instead of a callback. */
const OF_PROMISE = 'jobPromise';
/** What lives long, and is busy only while it calls back. */
const HANDLE = /^(?:TCPWRAP|TLSWRAP|PIPEWRAP|HTTPINCOMINGMESSAGE|HTTPCLIENTREQUEST|MESSAGEPORT|PROCESSWRAP)$/;
/** Bytes over the loopback are there in the next turn; some more for those that go through TLS on both sides. */
const QUIET_TURNS = 8;
/** After so many turns in a row the processor is left to the threads that do the work. */
const TURNS_BEFORE_PAUSE = 2_000;

export class EventLoopActivity implements Disposable {
  readonly #open = new Set<number>();
  /** Jobs of which it is not known yet whether they have a callback: it is given to them a moment after they are made. */
  readonly #jobs = new Map<number, object>();
  readonly #handles = new Set<number>();
  readonly #hook: AsyncHook;
  readonly #isBusy: () => boolean;
  #events = 0;

  /** `isBusy`: what is under way besides, and cannot be seen from here. */
  constructor(isBusy: () => boolean = () => false) {
    this.#isBusy = isBusy;
    this.#hook = createHook({
      init: (id, type, _trigger, resource) => {
        if (HANDLE.test(type)) this.#handles.add(id);
        else if (WORK.test(type)) this.#open.add(id);
        else if (!CRYPTO_JOB.test(type)) return;
        else if (new Error().stack?.includes(OF_PROMISE) === true) this.#open.add(id);
        else this.#jobs.set(id, resource);
        this.#events += 1;
      },
      before: (id) => {
        if (this.#handles.has(id)) this.#events += 1;
      },
      after: (id) => {
        if (this.#open.delete(id) || this.#jobs.delete(id)) this.#events += 1;
      },
      destroy: (id) => {
        this.#handles.delete(id);
        this.#jobs.delete(id);
        if (this.#open.delete(id)) this.#events += 1;
      },
      trackPromises: false,
    }).enable();
  }

  /** Resolves when nothing was under way for some turns of the event loop. */
  async settled(): Promise<void> {
    let quiet = 0;
    for (let turns = 1; quiet < QUIET_TURNS; turns += 1) {
      const before = this.#events;
      await (turns % TURNS_BEFORE_PAUSE === 0 ? pause(1) : turn());
      this.#sortJobs();
      quiet = this.#open.size === 0 && this.#events === before && !this.#isBusy() ? quiet + 1 : 0;
    }
  }

  #sortJobs(): void {
    for (const [id, job] of this.#jobs) if (Object.hasOwn(job, 'ondone')) this.#open.add(id);
    this.#jobs.clear();
  }

  [Symbol.dispose](): void {
    this.#hook.disable();
  }
}
