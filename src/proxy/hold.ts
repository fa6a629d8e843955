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
import { HELD_PER_TENANT_MAX } from './limits.ts';

export type HoldOutcome =
  | { readonly kind: 'endpoint'; readonly endpoint: Endpoint }
  | { readonly kind: 'refused'; readonly error: ExchangeError };

export interface HoldRequest {
  readonly serviceId: string;
  readonly tenant: string;
  /** Endpoints that just failed this request; taken only where there is no other. */
  readonly avoid: ReadonlySet<string>;
  /** Called once, maybe before `acquire` returns. `held` tells whether the request had to wait. */
  readonly settle: (outcome: HoldOutcome, held: boolean) => void;
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

type Decision = HoldOutcome | { readonly kind: 'wait' };

export class HoldQueue {
  readonly #deps: HoldDeps;
  readonly #freezes = new Map<string, Freeze>();
  /** In order of arrival. */
  readonly #waiting = new Set<HoldRequest>();
  readonly #waitingOfTenant = new Map<string, number>();
  #turn = 0;

  constructor(deps: HoldDeps) {
    this.#deps = deps;
  }

  /** Requests that wait now. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Finds an endpoint for a request, now or after a hold. Returns what takes the request out of the queue. */
  acquire(request: HoldRequest): () => void {
    const decision = this.#decide(request);
    if (decision.kind !== 'wait') {
      request.settle(decision, false);
      return () => undefined;
    }
    const waiting = this.#waitingOfTenant.get(request.tenant) ?? 0;
    if (waiting >= HELD_PER_TENANT_MAX) {
      request.settle({ kind: 'refused', error: 'hold-full' }, false);
      return () => undefined;
    }
    this.#waiting.add(request);
    this.#waitingOfTenant.set(request.tenant, waiting + 1);
    return () => {
      this.#remove(request);
    };
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
      const decision = this.#decide(request);
      if (decision.kind === 'wait') continue;
      this.#remove(request);
      request.settle(decision, true);
    }
  }

  /** Refuses all that wait, for the end of the worker. */
  refuseAll(error: ExchangeError): void {
    for (const request of this.#waiting) {
      this.#remove(request);
      request.settle({ kind: 'refused', error }, true);
    }
  }

  #decide(request: HoldRequest): Decision {
    const all = this.#deps.serviceOf(request.serviceId)?.endpoints ?? [];
    if (all.length === 0) return { kind: 'refused', error: 'no-endpoint' };
    const open = this.#freezes.size === 0 ? all : all.filter((endpoint) => !this.#freezes.has(endpoint.id));
    if (open.length === 0) return this.#anyInTime(all) ? { kind: 'wait' } : { kind: 'refused', error: 'hold-expired' };
    const fresh = request.avoid.size === 0 ? open : open.filter((endpoint) => !request.avoid.has(endpoint.id));
    this.#turn += 1;
    const endpoint = pickEndpoint({ endpoints: fresh.length === 0 ? open : fresh }, this.#deps.inFlightOf, this.#turn);
    return endpoint === undefined ? { kind: 'refused', error: 'no-endpoint' } : { kind: 'endpoint', endpoint };
  }

  #anyInTime(endpoints: readonly Endpoint[]): boolean {
    // A timer can fire a fraction of a millisecond early; without the tolerance its round would find nothing overdue.
    const nowMs = this.#deps.clock.monotonicMs() + 2;
    return endpoints.some((endpoint) => (this.#freezes.get(endpoint.id)?.endMs ?? 0) > nowMs);
  }

  #remove(request: HoldRequest): void {
    if (!this.#waiting.delete(request)) return;
    const left = (this.#waitingOfTenant.get(request.tenant) ?? 1) - 1;
    if (left === 0) this.#waitingOfTenant.delete(request.tenant);
    else this.#waitingOfTenant.set(request.tenant, left);
  }
}
