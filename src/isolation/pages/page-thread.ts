/** A thread that is asked things by its owner, answers each, and tells of progress in between. What crosses is plain data. */
import { parentPort, Worker } from 'node:worker_threads';
import { fromPlainFailure, pageError, plainFailure } from './page-errors.ts';
import type { PlainFailure } from './page-errors.ts';

interface Asked<Request> {
  readonly call: number;
  readonly request: Request;
}

type Said<Answer, News> =
  | { readonly kind: 'answer'; readonly call: number; readonly answer: Answer }
  | { readonly kind: 'failure'; readonly call: number; readonly failure: PlainFailure }
  | { readonly kind: 'news'; readonly news: News };

/** How long a thread may take to end by itself: it tells the other end, and closes files. */
const END_MS = 2_000;

/** The owner's end. */
export class PageThread<Request, Answer, News> implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<Answer>>();
  readonly #ended: Promise<void>;
  #lastCall = 0;
  #isOver = false;

  /** `program`: a file that makes a `PageThreadEnd`. */
  constructor(program: URL, onNews: (news: News) => void) {
    this.#worker = new Worker(program);
    this.#worker.on('message', (said: Said<Answer, News>) => {
      if (said.kind === 'news') {
        onNews(said.news);
        return;
      }
      const waiting = this.#waiting.get(said.call);
      this.#waiting.delete(said.call);
      if (said.kind === 'answer') waiting?.resolve(said.answer);
      else waiting?.reject(fromPlainFailure(said.failure));
    });
    this.#worker.on('error', (error) => {
      this.#over(error);
    });
    const ended = Promise.withResolvers<undefined>();
    this.#ended = ended.promise;
    this.#worker.on('exit', () => {
      this.#over(undefined);
      ended.resolve(undefined);
    });
  }

  async ask(request: Request): Promise<Answer> {
    if (this.#isOver) throw threadEnded(undefined);
    this.#lastCall += 1;
    const waiting = Promise.withResolvers<Answer>();
    this.#waiting.set(this.#lastCall, waiting);
    const asked: Asked<Request> = { call: this.#lastCall, request };
    this.#worker.postMessage(asked, []);
    return await waiting.promise;
  }

  /** Asks for a last thing, and ends the thread whatever comes of it. */
  async end(last: Request): Promise<void> {
    const timer = setTimeout(() => {
      void this.#worker.terminate();
    }, END_MS);
    try {
      await this.ask(last);
    } catch {
      // It ended before it answered, which is all that is wanted.
    }
    clearTimeout(timer);
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
    await this.#ended;
  }

  #over(error: unknown): void {
    this.#isOver = true;
    for (const { reject } of this.#waiting.values()) reject(threadEnded(error));
    this.#waiting.clear();
  }
}

function threadEnded(cause: unknown): Error {
  return pageError('ECLUSE_PAGES_THREAD', 'the thread of the page exchange has ended', 'see the log of the daemon', cause);
}

/** CPU time of this thread since `from`. */
export function cpuMsSince(from: NodeJS.CpuUsage): number {
  const { user, system } = process.threadCpuUsage(from);
  return Math.round((user + system) / 1000);
}

/** The thread's end: answers each request by what `answerTo` comes to, or by its failure, and tells news. */
export class PageThreadEnd<Request, Answer, News> {
  readonly #answerTo: (request: Request) => Promise<Answer>;

  constructor(answerTo: (request: Request) => Promise<Answer>) {
    this.#answerTo = answerTo;
    parentPort?.on('message', (asked: Asked<Request>) => {
      void this.#answer(asked);
    });
  }

  tell(news: News): void {
    this.#say({ kind: 'news', news });
  }

  async #answer({ call, request }: Asked<Request>): Promise<void> {
    try {
      this.#say({ kind: 'answer', call, answer: await this.#answerTo(request) });
    } catch (error) {
      this.#say({ kind: 'failure', call, failure: plainFailure(error) });
    }
  }

  #say(said: Said<Answer, News>): void {
    parentPort?.postMessage(said, []);
  }
}
