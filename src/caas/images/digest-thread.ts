/**
 * A thread that hashes, so that the bytes of a load are proved beside its way to the engine and other tenants' requests do not wait for it.
 *
 * One for the process. It starts with the first load, ends some time after the last, and does not keep the process alive.
 */
import { Worker } from 'node:worker_threads';

/** Starting it costs some 50 ms, and it holds some 10 MiB. */
const IDLE_MS = 60_000;

export interface DigestSpan {
  readonly from: number;
  readonly to: number;
  /** The file ends here. */
  readonly isLast: boolean;
}

export interface DigestJob {
  readonly job: number;
  readonly series: number;
  /** Undefined: the series is over. */
  readonly memory: SharedArrayBuffer | undefined;
  readonly spans: readonly DigestSpan[];
}

export interface DigestAnswer {
  readonly job: number;
  readonly digests: readonly string[];
}

type Waiting = PromiseWithResolvers<readonly string[]>;

/** The thread while it runs. */
interface Running {
  readonly worker: Worker;
  readonly waiting: Map<number, Waiting>;
}

let current: Running | undefined;
let openSeries = 0;
let lastNumber = 0;
let idleTimer: NodeJS.Timeout | undefined;

function start(): Running {
  const worker = new Worker(new URL('digest-worker.ts', import.meta.url));
  const running: Running = { worker, waiting: new Map() };
  worker.unref();
  worker.on('message', ({ job, digests }: DigestAnswer) => {
    running.waiting.get(job)?.resolve(digests);
    running.waiting.delete(job);
  });
  const gone = (error: Error): void => {
    if (current === running) current = undefined;
    for (const { reject } of running.waiting.values()) reject(error);
    running.waiting.clear();
  };
  worker.on('error', gone);
  worker.on('exit', () => {
    gone(new Error('the thread that hashes has ended'));
  });
  return running;
}

/** Files that come one after the other. To be disposed of, finished or not. */
export class DigestSeries implements Disposable {
  readonly #series = ++lastNumber;
  readonly #running: Running;

  constructor() {
    clearTimeout(idleTimer);
    openSeries += 1;
    current ??= start();
    this.#running = current;
  }

  /** Hashes some of the memory, which must stay as it is until then. Returns the digests of the files that end in it. */
  async update(memory: SharedArrayBuffer, spans: readonly DigestSpan[]): Promise<readonly string[]> {
    const job: DigestJob = { job: ++lastNumber, series: this.#series, memory, spans };
    const waiting: Waiting = Promise.withResolvers();
    this.#running.waiting.set(job.job, waiting);
    if (current !== this.#running) waiting.reject(new Error('the thread that hashes has ended'));
    this.#running.worker.postMessage(job, []);
    return await waiting.promise;
  }

  [Symbol.dispose](): void {
    const end: DigestJob = { job: 0, series: this.#series, memory: undefined, spans: [] };
    this.#running.worker.postMessage(end, []);
    openSeries -= 1;
    if (openSeries > 0) return;
    idleTimer = setTimeout(() => {
      void current?.worker.terminate();
      current = undefined;
    }, IDLE_MS);
    idleTimer.unref();
  }
}
