/**
 * The hold queue: requests whose service has only frozen endpoints wait here, in order, until one thaws or their time is over.
 *
 * States of an endpoint: open → frozen (requests wait) → overdue (the deadline passed: requests are refused) → open, by `thaw` alone. A
 * deadline does not thaw, because nobody knows whether the endpoint is there.
 *
 * INVARIANT: a waiting request holds a service's id, not the service: it is resolved against the table that is current at its release, so
 * that it never goes to the address that was frozen. Every decision is synchronous, so a freeze never falls between a decision and its use.
 */
import { pickEndpoint } from '#routing/balance.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';
import type { Clock } from '#clock';
import type { ExchangeError } from './error-response.ts';

export interface HoldRequest {
  readonly serviceId: string;
  /** Endpoints that just failed this request; taken only where there is no other. */
  readonly avoid: ReadonlySet<string>;
  /** Called once for each `wait`, unless `leave` comes first. */
  settle(decision: Endpoint | ExchangeError): void;
}

export interface HoldDeps {
  readonly clock: Clock;
  /** The service in the table that is current now. */
  readonly serviceOf: (serviceId: string) => Service | undefined;
  readonly inFlightOf: (endpointId: string) => number;
}

interface Freeze {
  readonly endMs: number;
  readonly timer: NodeJS.Timeout;
}

export class HoldQueue {
  readonly #deps: HoldDeps;
  readonly #freezes = new Map<string, Freeze>();
  /** In order of arrival. */
  readonly #waiting = new Set<HoldRequest>();
  #turn = 0;

  constructor(deps: HoldDeps) {
    this.#deps = deps;
  }

  /** Requests that wait now. */
  get size(): number {
    return this.#waiting.size;
  }

  /** The endpoint for a request, why it gets none, or that it has to wait. */
  decide(request: HoldRequest): Endpoint | ExchangeError | 'wait' {
    const all = this.#deps.serviceOf(request.serviceId)?.endpoints;
    if (all === undefined || all.length === 0) return 'no-endpoint';
    const [only] = all;
    if (all.length === 1 && only !== undefined && this.#freezes.size === 0) return only;
    const open = this.#freezes.size === 0 ? all : all.filter((endpoint) => !this.#freezes.has(endpoint.id));
    if (open.length === 0) return this.#anyInTime(all) ? 'wait' : 'hold-expired';
    const fresh = request.avoid.size === 0 ? open : open.filter((endpoint) => !request.avoid.has(endpoint.id));
    this.#turn += 1;
    return pickEndpoint({ endpoints: fresh.length === 0 ? open : fresh }, this.#deps.inFlightOf, this.#turn) ?? 'no-endpoint';
  }

  /** Parks a request that has to wait. */
  wait(request: HoldRequest): void {
    this.#waiting.add(request);
  }

  /** Takes a request out of the queue, if it is there. */
  leave(request: HoldRequest): void {
    this.#waiting.delete(request);
  }

  freeze(endpointIds: readonly string[], deadlineMs: number): void {
    const endMs = this.#deps.clock.monotonicMs() + deadlineMs;
    for (const id of endpointIds) {
      clearTimeout(this.#freezes.get(id)?.timer);
      const timer = setTimeout(() => {
        this.release();
      }, deadlineMs);
      this.#freezes.set(id, { endMs, timer });
    }
    this.release(); // A freeze anew can move a deadline.
  }

  thaw(endpointIds: readonly string[]): void {
    for (const id of endpointIds) {
      clearTimeout(this.#freezes.get(id)?.timer);
      this.#freezes.delete(id);
    }
    this.release();
  }

  /** Settles all that need not wait any longer, in order. To be called whenever the current table changes. */
  release(): void {
    for (const request of this.#waiting) {
      const decision = this.decide(request);
      if (decision === 'wait') continue;
      this.#waiting.delete(request);
      request.settle(decision);
    }
  }

  /** Refuses all that wait, for the end of the worker. */
  refuseAll(error: ExchangeError): void {
    for (const request of this.#waiting) {
      this.#waiting.delete(request);
      request.settle(error);
    }
  }

  #anyInTime(endpoints: readonly Endpoint[]): boolean {
    // A timer can fire a fraction of a millisecond early; without the tolerance its round would find nothing overdue.
    const nowMs = this.#deps.clock.monotonicMs() + 2;
    return endpoints.some((endpoint) => (this.#freezes.get(endpoint.id)?.endMs ?? 0) > nowMs);
  }
}
