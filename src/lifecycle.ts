/** Background work with an owner: a named loop that restarts after an error a bounded number of times and ends on dispose; locks, and turns. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';

export interface LoopOptions {
  readonly name: string;
  /** Pause between two rounds; a function is asked after each. */
  readonly periodMs: number | (() => number);
  readonly round: (signal: AbortSignal) => Promise<void>;
}

/** Errors in a row after which a loop says so at `error` level; it goes on, because a loop that gave up would be a silent fault. */
const ERRORS_IN_A_ROW_LOUD = 5;

/** Runs `round` again and again, never twice at once. Disposing waits for the round under way. */
export function startLoop(deps: { readonly log: Log; readonly clock: Clock }, options: LoopOptions): AsyncDisposable {
  const stop = new AbortController();
  const isStopped = (): boolean => stop.signal.aborted;
  const run = async (): Promise<void> => {
    let errorsInARow = 0;
    while (!isStopped()) {
      try {
        await options.round(stop.signal);
        errorsInARow = 0;
      } catch (error) {
        if (isStopped()) return;
        errorsInARow += 1;
        const level = errorsInARow >= ERRORS_IN_A_ROW_LOUD ? 'error' : 'warn';
        deps.log[level]({ loop: options.name, reason: reasonOf(error), errorsInARow }, 'loop round failed');
      }
      try {
        const { periodMs } = options;
        await deps.clock.sleep(typeof periodMs === 'number' ? periodMs : periodMs(), stop.signal);
      } catch {
        return; // Only the stop signal ends the sleep early.
      }
    }
  };
  const done = run();
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      stop.abort();
      await done;
    },
  };
}

/** Serialises work by key: `run` calls of one key follow each other, other keys go on beside. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<unknown>>();

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const previous = this.#tails.get(key) ?? Promise.resolve();
    const mine = previous.then(work, work);
    const settled = mine.catch(() => undefined);
    this.#tails.set(key, settled);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(key) === settled) this.#tails.delete(key);
    }
  }

  /** True while work under `key` is under way or waiting. */
  held(key: string): boolean {
    return this.#tails.has(key);
  }
}

/** At most so many at one time; others wait in order. */
export class Turns {
  readonly #max: number;
  #taken = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  /** Runs `work` when there is a turn for it; `onWait` is called where there is none at once. */
  async run<T>(onWait: () => void, work: () => Promise<T>): Promise<T> {
    if (this.#taken < this.#max) this.#taken += 1;
    else {
      onWait();
      const { promise, resolve } = Promise.withResolvers<undefined>();
      this.#waiting.push(() => {
        resolve(undefined);
      });
      await promise; // Who gives a turn back hands it over: it stays taken.
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken -= 1;
      else next();
    }
  }
}
