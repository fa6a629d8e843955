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
