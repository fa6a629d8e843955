/**
 * Which sleeping endpoints were asked to wake, and which could not. A worker has one towards the primary, the primary one towards whoever wakes.
 *
 * Whoever waits asks as often as it likes: it is passed on once, and again after a while, because a message can be lost with the process that
 * had it. An endpoint that could not wake is not asked for until its time is over.
 */
import type { Endpoint } from '#routing/route-table.ts';
import type { Clock } from '#clock';

interface Asked {
  readonly endpointIds: readonly string[];
  readonly atMs: number;
}

export interface WakesOptions {
  /** After that long the same is passed on again. */
  readonly againMs: number;
  /** Any one of the endpoints will do. */
  readonly tell: (endpointIds: readonly string[]) => void;
}

export class Wakes {
  readonly #clock: Clock;
  readonly #options: WakesOptions;
  readonly #asked = new Map<string, Asked>();
  /** Until when an endpoint is not asked for, in monotonic ms. */
  readonly #failedUntilMs = new Map<string, number>();

  constructor(clock: Clock, options: WakesOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  /** Asks for one of them. Those that just failed are left out. */
  ask(endpointIds: readonly string[]): void {
    const wanted = this.#failedUntilMs.size === 0 ? endpointIds : endpointIds.filter((id) => this.failedForMs(id) === 0);
    if (wanted.length === 0) return;
    const key = wanted.join('\n');
    const nowMs = this.#clock.monotonicMs();
    const asked = this.#asked.get(key);
    if (asked !== undefined && nowMs - asked.atMs < this.#options.againMs) return;
    this.#asked.set(key, { endpointIds: wanted, atMs: nowMs });
    this.#options.tell(wanted);
  }

  /** They could not be woken, and will not be tried for `retryAfterMs`. */
  failed(endpointIds: readonly string[], retryAfterMs: number): void {
    const untilMs = this.#clock.monotonicMs() + retryAfterMs;
    for (const id of endpointIds) this.#failedUntilMs.set(id, untilMs);
    for (const [key, asked] of this.#asked) if (asked.endpointIds.some((id) => endpointIds.includes(id))) this.#asked.delete(key);
  }

  /** How long an endpoint is not asked for yet; 0: it may be. */
  failedForMs(endpointId: string): number {
    const untilMs = this.#failedUntilMs.get(endpointId);
    return untilMs === undefined ? 0 : Math.max(0, untilMs - this.#clock.monotonicMs());
  }

  /** All that could not be woken and may not be asked for yet. */
  *failures(): Generator<{ readonly endpointIds: readonly string[]; readonly retryAfterMs: number }> {
    for (const id of this.#failedUntilMs.keys()) {
      const retryAfterMs = this.failedForMs(id);
      if (retryAfterMs > 0) yield { endpointIds: [id], retryAfterMs };
    }
  }

  /** Forgets everything about endpoints that do not sleep any more, and what is over. */
  keepOnly(isAsleep: (endpointId: string) => boolean): void {
    for (const [key, { endpointIds }] of this.#asked) if (!endpointIds.every((id) => isAsleep(id))) this.#asked.delete(key);
    for (const id of this.#failedUntilMs.keys()) if (!isAsleep(id) || this.failedForMs(id) === 0) this.#failedUntilMs.delete(id);
  }
}

/** The ids of those that sleep. */
export function asleepAmong(endpoints: Iterable<Endpoint>): ReadonlySet<string> {
  const asleep = new Set<string>();
  for (const { state, id } of endpoints) if (state === 'asleep') asleep.add(id);
  return asleep;
}
