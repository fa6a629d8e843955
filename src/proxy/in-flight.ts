/** What is under way at each endpoint: counted for balancing and limits, waited for and cut when an endpoint freezes. */
import type { Clock } from '#clock';
import type { FreezeResult } from './protocol.ts';

/** One exchange at one endpoint, upgraded streams included. */
export interface Visit {
  readonly endpointId: string;
  /** Ends the exchange now. */
  readonly cut: () => void;
}

interface Waiter {
  readonly endpointIds: readonly string[];
  readonly idle: () => void;
}

export class InFlight {
  readonly #visits = new Map<string, Set<Visit>>();
  readonly #waiters = new Set<Waiter>();

  enter(visit: Visit): void {
    const visits = this.#visits.get(visit.endpointId);
    if (visits === undefined) this.#visits.set(visit.endpointId, new Set([visit]));
    else visits.add(visit);
  }

  leave(visit: Visit): void {
    const visits = this.#visits.get(visit.endpointId);
    visits?.delete(visit);
    if (visits?.size !== 0) return;
    this.#visits.delete(visit.endpointId);
    for (const waiter of this.#waiters) {
      if (this.#countOfAll(waiter.endpointIds) === 0) waiter.idle();
    }
  }

  countOf(endpointId: string): number {
    return this.#visits.get(endpointId)?.size ?? 0;
  }

  /** Waits until nothing is under way at `endpointIds`, cutting what is left after `drainMs`. */
  async emptied(clock: Clock, endpointIds: readonly string[], drainMs: number): Promise<FreezeResult> {
    const startMs = clock.monotonicMs();
    const idle = await this.#idleWithin(endpointIds, drainMs);
    const left = idle ? [] : endpointIds.flatMap((id) => [...(this.#visits.get(id) ?? [])]);
    for (const visit of left) visit.cut();
    return { cut: left.length, waitedMs: Math.round(clock.monotonicMs() - startMs) };
  }

  cutAll(): void {
    for (const visits of this.#visits.values()) {
      for (const visit of visits) visit.cut();
    }
  }

  async #idleWithin(endpointIds: readonly string[], limitMs: number): Promise<boolean> {
    if (this.#countOfAll(endpointIds) === 0) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter: Waiter = {
      endpointIds,
      idle: () => {
        resolve(true);
      },
    };
    this.#waiters.add(waiter);
    const timer = setTimeout(() => {
      resolve(false);
    }, limitMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiters.delete(waiter);
    }
  }

  #countOfAll(endpointIds: readonly string[]): number {
    return endpointIds.reduce((sum, id) => sum + this.countOf(id), 0);
  }
}
