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

  /** `program`: a file that calls `answerOwner`. */
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

/** The thread's end: answers each request. Returns how to tell news. */
export function answerOwner<Request, Answer, News>(answerTo: (request: Request) => Promise<Answer>): (news: News) => void {
  const say = (said: Said<Answer, News>): void => {
    parentPort?.postMessage(said, []);
  };
  parentPort?.on('message', ({ call, request }: Asked<Request>) => {
    answerTo(request).then(
      (answer) => {
        say({ kind: 'answer', call, answer });
      },
      (error: unknown) => {
        say({ kind: 'failure', call, failure: plainFailure(error) });
      },
    );
  });
  return (news) => {
    say({ kind: 'news', news });
  };
}
