/** What fails with every request would fill the log: one line in some seconds for each that fails. */
import { LRUCache } from 'lru-cache';

const EACH_MS = 10_000;
/** Services and endpoints that fail at a time. */
const KEPT_MAX = 1000;

export class Complaints {
  readonly #said = new LRUCache<string, number>({ max: KEPT_MAX });

  /** Calls `say`, unless there was one about `about` a moment ago. */
  of(about: string, say: () => void): void {
    const nowMs = performance.now();
    if (nowMs - (this.#said.get(about) ?? Number.NEGATIVE_INFINITY) < EACH_MS) return;
    this.#said.set(about, nowMs);
    say();
  }
}
