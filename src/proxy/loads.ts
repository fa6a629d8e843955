/**
 * What is under way at endpoints, over all workers, as the primary knows it.
 *
 * A worker tells all that is not idle about each second, and each message takes the place of its last one: what a worker that died had is gone
 * with it, and a lost message does no harm.
 */
import type { EndpointUse } from '#routing/activator.ts';
import type { Clock } from '#clock';

/** One endpoint in one worker. One that is named with zeros was used since the last message. */
export interface EndpointLoad {
  readonly endpointId: string;
  readonly inFlight: number;
  readonly held: number;
}

export class Loads<W extends object> {
  readonly #clock: Clock;
  readonly #byWorker = new Map<W, ReadonlyMap<string, EndpointLoad>>();
  /** When an endpoint was named last, in monotonic ms. */
  readonly #usedMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  told(worker: W, loads: readonly EndpointLoad[]): void {
    const nowMs = this.#clock.monotonicMs();
    this.#byWorker.set(worker, new Map(loads.map((load) => [load.endpointId, load])));
    for (const { endpointId } of loads) this.#usedMs.set(endpointId, nowMs);
  }

  /** A worker is gone. */
  forget(worker: W): void {
    this.#byWorker.delete(worker);
  }

  of(endpointId: string): EndpointUse {
    let inFlight = 0;
    let held = 0;
    for (const loads of this.#byWorker.values()) {
      const load = loads.get(endpointId);
      inFlight += load?.inFlight ?? 0;
      held += load?.held ?? 0;
    }
    const usedMs = this.#usedMs.get(endpointId);
    const quietMs = usedMs === undefined ? undefined : Math.round(this.#clock.monotonicMs() - usedMs);
    return { inFlight, held, quietMs: inFlight + held > 0 ? 0 : quietMs };
  }

  /** Forgets endpoints that are not there any more. */
  keepOnly(isThere: (endpointId: string) => boolean): void {
    for (const id of this.#usedMs.keys()) if (!isThere(id)) this.#usedMs.delete(id);
  }
}

/** Adds up what one worker has, endpoint by endpoint. */
export class LoadSum {
  readonly #loads = new Map<string, { endpointId: string; inFlight: number; held: number }>();

  /** Names an endpoint, with what it has more. */
  add(endpointId: string, inFlight: number, held: number): void {
    const load = this.#loads.get(endpointId);
    if (load === undefined) this.#loads.set(endpointId, { endpointId, inFlight, held });
    else {
      load.inFlight += inFlight;
      load.held += held;
    }
  }

  all(): EndpointLoad[] {
    return [...this.#loads.values()];
  }
}
