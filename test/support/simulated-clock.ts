/**
 * Time that passes only when everybody waits for it: days in a second, while real bytes still go over the loopback. Sleepers are woken one after the other,
 * in the order of their times, each when what the last one began has come to rest.
 */
import type { Clock } from '#clock';
import { EventLoopActivity } from './event-loop-activity.ts';

interface Sleeper {
  readonly atMs: number;
  /** Those of one time are woken as they fell asleep. */
  readonly order: number;
  readonly wake: () => void;
}

export class SimulatedClock implements Clock, Disposable {
  readonly #activity: EventLoopActivity;
  /** A heap: the next one first. */
  readonly #sleepers: Sleeper[] = [];
  readonly #asleep = new Set<Sleeper>();
  #wallMs: number;
  #passedMs = 0;
  #order = 0;
  #wakings = 0;

  /** `isBusy`: what is under way besides what the event loop of this process shows. */
  constructor(startMs: number, isBusy?: () => boolean) {
    this.#wallMs = startMs;
    this.#activity = new EventLoopActivity(isBusy);
  }

  nowMs(): number {
    return this.#wallMs + this.#passedMs;
  }

  monotonicMs(): number {
    return this.#passedMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) throw aborted(signal);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#order += 1;
    // As timers do: in whole milliseconds, and `nowMs` is an integer like that of the system's clock.
    const sleeper: Sleeper = { atMs: this.#passedMs + Math.max(0, Math.ceil(ms)), order: this.#order, wake: resolve };
    const abort = (): void => {
      this.#asleep.delete(sleeper);
      if (signal !== undefined) reject(aborted(signal));
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#asleep.add(sleeper);
    push(this.#sleepers, sleeper);
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** The wall clock jumps, as it does when somebody sets it; nobody wakes of that. */
  jumpWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  /** How often somebody was woken so far. */
  get wakings(): number {
    return this.#wakings;
  }

  /** Lets so much time pass. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#passedMs + ms;
    while (await this.#wakeNext(untilMs));
    this.#passedMs = untilMs;
    await this.#activity.settled();
  }

  /** Lets time pass until `work` has ended, at most `limitMs`: then, or when nobody sleeps and nothing is under way, it fails. */
  async during<T>(work: Promise<T>, limitMs: number): Promise<T> {
    const untilMs = this.#passedMs + limitMs;
    const state = { isOver: false };
    const over = (): void => {
      state.isOver = true;
    };
    work.then(over, over);
    for (;;) {
      await this.#activity.settled();
      if (state.isOver) return await work;
      if (!(await this.#wakeNext(untilMs))) throw new Error(`it did not end within ${String(limitMs)} ms of simulated time`);
    }
  }

  [Symbol.dispose](): void {
    this.#activity[Symbol.dispose]();
  }

  /** False: nobody is to be woken until then. */
  async #wakeNext(untilMs: number): Promise<boolean> {
    await this.#activity.settled();
    for (let next = this.#sleepers[0]; next !== undefined; next = this.#sleepers[0]) {
      if (next.atMs > untilMs && this.#asleep.has(next)) return false;
      pop(this.#sleepers);
      if (!this.#asleep.delete(next)) continue; // Its wait was called off.
      this.#passedMs = Math.max(this.#passedMs, next.atMs);
      this.#wakings += 1;
      next.wake();
      return true;
    }
    return false;
  }
}

/** As the timers of Node say it. */
function aborted(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' });
}

function isBefore(one: Sleeper, other: Sleeper): boolean {
  return one.atMs === other.atMs ? one.order < other.order : one.atMs < other.atMs;
}

function push(heap: Sleeper[], sleeper: Sleeper): void {
  let at = heap.length;
  heap.push(sleeper);
  while (at > 0) {
    const above = (at - 1) >> 1;
    const parent = heap[above];
    if (parent === undefined || !isBefore(sleeper, parent)) break;
    heap[at] = parent;
    at = above;
  }
  heap[at] = sleeper;
}

function pop(heap: Sleeper[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    const [left, right] = [heap[2 * at + 1], heap[2 * at + 2]];
    if (left === undefined) break;
    const [child, childAt] = right !== undefined && isBefore(right, left) ? [right, 2 * at + 2] : [left, 2 * at + 1];
    if (!isBefore(child, last)) break;
    heap[at] = child;
    at = childAt;
  }
  heap[at] = last;
}
