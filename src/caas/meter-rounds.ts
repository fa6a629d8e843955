/** Intervals of many containers that a round of the meter writes down together: a commit costs a write to the disk, whatever is in it. */
import type { Clock } from '#clock';

/** How many containers of a round may wait for their intervals to be written together, and how long: a move that pauses one of them waits as well. */
const ROUND_WRITES_MAX = 100;
const ROUND_WAIT_MS = 25;

/** The containers of one round that wait for the others, to be written with them. */
export class RoundWrites {
  readonly #clock: Clock;
  readonly #works: Promise<void>[] = [];
  #gate = Promise.withResolvers<undefined>();
  #waiting = 0;
  #sinceMs: number;
  #failed: { readonly reason: unknown } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
  }

  /** Resolves when `work` has ended, or waits to write. */
  async begin(work: (sampled: () => Promise<void>) => Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const { promise: opened } = this.#gate;
    const sampled = async (): Promise<void> => {
      this.#waiting += 1;
      resolve(undefined);
      await opened;
    };
    const begun = work(sampled)
      .catch((error: unknown) => {
        this.#failed ??= { reason: error };
      })
      .finally(() => {
        resolve(undefined);
      });
    this.#works.push(begun);
    await promise;
    if (this.#waiting >= ROUND_WRITES_MAX || this.#clock.monotonicMs() - this.#sinceMs >= ROUND_WAIT_MS) this.#open();
  }

  #open(): void {
    this.#gate.resolve(undefined);
    this.#gate = Promise.withResolvers();
    this.#waiting = 0;
    this.#sinceMs = this.#clock.monotonicMs();
  }

  /** Resolves when everything is written; throws the first error. */
  async end(): Promise<void> {
    this.#open();
    await Promise.all(this.#works);
    if (this.#failed !== undefined) throw this.#failed.reason;
  }
}
