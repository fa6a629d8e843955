/**
 * The hold queue: requests wait here, in order for each service, while none of its endpoints takes them.
 *
 * States of an endpoint: open → frozen (requests wait) → overdue (the deadline passed: requests are refused) → open, by `thaw` alone. A
 * deadline does not thaw, because nobody knows whether the endpoint is there. An endpoint that sleeps is asked for (`Wakes`) and opens with a
 * table in which it is awake. Requests that wait for a sleeper, or for an endpoint that is full after a thaw, are refused after `HOLD_MS_MAX`.
 *
 * INVARIANT: a waiting request holds a service's id, not the service: it is resolved against the table that is current at its release, so
 * that it never goes to the address that was frozen. Every decision is synchronous, so a freeze never falls between a decision and its use.
 * INVARIANT: where somebody waits for a service, whoever comes waits behind.
 */
import { pickEndpoint } from '#routing/balance.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';
import type { Clock } from '#clock';
import type { ExchangeError } from './error-response.ts';
import { HOLD_MS_MAX, HOLD_TICK_MS, RELEASE_BATCH, RELEASE_FIRST, RELEASE_STEP_MS } from './limits.ts';
import type { Wakes } from './wakes.ts';

export interface HoldRequest {
  readonly serviceId: string;
  /** Endpoints that just failed this request; taken only where there is no other. */
  readonly avoid: ReadonlySet<string>;
  /** Since when it waits, in monotonic ms; negative: it does not. */
  readonly heldSinceMs: number;
  /** Called once for each `wait`, unless `leave` comes first. */
  settle(decision: Endpoint | ExchangeError): void;
}

export interface HoldDeps {
  readonly clock: Clock;
  /** The service in the table that is current now. */
  readonly serviceOf: (serviceId: string) => Service | undefined;
  readonly inFlightOf: (endpointId: string) => number;
  /** Requests that one endpoint takes at once. */
  readonly inFlightMax: () => number;
  readonly wakes: Pick<Wakes, 'ask' | 'failedForMs'>;
}

interface Freeze {
  readonly endMs: number;
  readonly timer: NodeJS.Timeout;
  /** The same object for all freezes of an endpoint up to its thaw. */
  readonly span: object;
}

export class HoldQueue implements Disposable {
  readonly #deps: HoldDeps;
  readonly #freezes = new Map<string, Freeze>();
  /** By service, in order of arrival. None of them is empty. */
  readonly #waiting = new Map<string, Set<HoldRequest>>();
  /** By service of which some went on and some wait: how many requests each of its endpoints may have under way before the next go on. */
  readonly #windows = new Map<string, number>();
  #tick: NodeJS.Timeout | undefined;
  #nextStep: NodeJS.Timeout | undefined;
  #size = 0;
  #turn = 0;
  #isPaced = false;

  constructor(deps: HoldDeps) {
    this.#deps = deps;
  }

  /** Requests that wait now. */
  get size(): number {
    return this.#size;
  }

  /** Whether somebody waits for a request at an endpoint to end: `release` is to be called when one does. */
  get isPaced(): boolean {
    return this.#isPaced;
  }

  /** Requests that wait now, by service. */
  *heldByService(): Generator<readonly [serviceId: string, held: number]> {
    for (const [serviceId, { size }] of this.#waiting) yield [serviceId, size];
  }

  /** The endpoint for a request, why it gets none, or that it has to wait. */
  decide(request: HoldRequest): Endpoint | ExchangeError | 'wait' {
    const all = this.#deps.serviceOf(request.serviceId)?.endpoints;
    if (all === undefined || all.length === 0) return 'no-endpoint';
    if (this.#size > 0 && this.#waiting.has(request.serviceId)) return 'wait';
    return this.#choose(all, request);
  }

  /** Parks a request that has to wait. */
  wait(request: HoldRequest): void {
    const { serviceId } = request;
    const waiting = this.#waiting.get(serviceId);
    if (waiting === undefined) this.#waiting.set(serviceId, new Set([request]));
    else waiting.add(request);
    this.#size += 1;
    this.#tick ??= setInterval(() => {
      this.release();
    }, HOLD_TICK_MS);
    if (waiting === undefined) this.#wake(serviceId);
  }

  /** Takes a request out of the queue, if it is there. */
  leave(request: HoldRequest): void {
    const waiting = this.#waiting.get(request.serviceId);
    if (waiting?.delete(request) !== true) return;
    if (waiting.size === 0) {
      this.#waiting.delete(request.serviceId);
      this.#windows.delete(request.serviceId);
    }
    this.#size -= 1;
    if (this.#size > 0) return;
    clearInterval(this.#tick);
    this.#tick = undefined;
    this.#isPaced = false;
  }

  /** Tells whether this freeze of an endpoint still lasts. */
  freeze(endpointIds: readonly string[], deadlineMs: number): (endpointId: string) => boolean {
    const endMs = this.#deps.clock.monotonicMs() + deadlineMs;
    const spans = new Map<string, object>();
    for (const id of endpointIds) {
      const before = this.#freezes.get(id);
      clearTimeout(before?.timer);
      const timer = setTimeout(() => {
        this.release();
      }, deadlineMs);
      const span = before?.span ?? {};
      this.#freezes.set(id, { endMs, timer, span });
      spans.set(id, span);
    }
    this.release(); // A freeze anew can move a deadline.
    return (id) => {
      const span = spans.get(id);
      return span !== undefined && this.#freezes.get(id)?.span === span;
    };
  }

  /** Endpoints whose requests wait until a thaw. */
  get frozen(): readonly string[] {
    return [...this.#freezes.keys()];
  }

  thaw(endpointIds: readonly string[]): void {
    for (const id of endpointIds) {
      clearTimeout(this.#freezes.get(id)?.timer);
      this.#freezes.delete(id);
    }
    this.#windows.clear();
    this.release();
  }

  /** Settles all that need not wait any longer, in order. To be called whenever the current table changes. */
  release(): void {
    this.#isPaced = false;
    for (const [serviceId, waiting] of this.#waiting) this.#releaseService(serviceId, waiting);
  }

  /** As many requests ended at endpoints that others wait for. */
  ended(requests: number): void {
    for (const [serviceId, window] of this.#windows) this.#windows.set(serviceId, window + requests);
    this.release();
  }

  /** Refuses all that wait, for the end of the worker. */
  refuseAll(error: ExchangeError): void {
    for (const waiting of this.#waiting.values()) {
      for (const request of waiting) {
        this.leave(request);
        request.settle(error);
      }
    }
  }

  /** When a service of sleepers that could not be woken may be asked for again. */
  retryAfterMs(serviceId: string): number {
    const all = this.#deps.serviceOf(serviceId)?.endpoints ?? [];
    const waits = all.map(({ id }) => this.#deps.wakes.failedForMs(id)).filter((ms) => ms > 0);
    return waits.length === 0 ? 0 : Math.min(...waits);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#tick);
    clearTimeout(this.#nextStep);
    for (const { timer } of this.#freezes.values()) clearTimeout(timer);
    this.#freezes.clear();
  }

  #releaseService(serviceId: string, waiting: ReadonlySet<HoldRequest>): void {
    const window = this.#windows.get(serviceId) ?? RELEASE_FIRST;
    for (const request of waiting) {
      const all = this.#deps.serviceOf(serviceId)?.endpoints ?? [];
      let decision = all.length === 0 ? 'no-endpoint' : this.#choose(all, request);
      if (typeof decision !== 'string') {
        // What came together after a thaw goes on as fast as the endpoint takes it.
        const inFlight = this.#deps.inFlightOf(decision.id);
        const inFlightMax = this.#deps.inFlightMax();
        if (inFlight >= Math.min(window, inFlightMax)) {
          this.#isPaced = true;
          if (inFlight < inFlightMax) this.#widenLater(serviceId, window);
          decision = this.#isExpired(request) ? 'hold-expired' : 'wait';
        }
      }
      if (decision === 'wait') {
        this.#wake(serviceId);
        return; // Who came later waits as well.
      }
      this.leave(request);
      request.settle(decision);
    }
  }

  #widenLater(serviceId: string, window: number): void {
    this.#windows.set(serviceId, window);
    this.#nextStep ??= setTimeout(() => {
      this.#nextStep = undefined;
      for (const [id, now] of this.#windows) this.#windows.set(id, Math.min(2 * now, now + RELEASE_BATCH));
      this.release();
    }, RELEASE_STEP_MS);
  }

  #choose(all: readonly Endpoint[], request: HoldRequest): Endpoint | ExchangeError | 'wait' {
    const [only] = all;
    if (all.length === 1 && only !== undefined && this.#isOpen(only)) return only;
    const open = this.#openOf(all);
    if (open.length === 0) return this.#whileClosed(all, request);
    const fresh = request.avoid.size === 0 ? open : open.filter((endpoint) => !request.avoid.has(endpoint.id));
    this.#turn += 1;
    return pickEndpoint({ endpoints: fresh.length === 0 ? open : fresh }, this.#deps.inFlightOf, this.#turn) ?? 'no-endpoint';
  }

  #isOpen(endpoint: Endpoint): boolean {
    return endpoint.state === undefined && (this.#freezes.size === 0 || !this.#freezes.has(endpoint.id));
  }

  #openOf(all: readonly Endpoint[]): readonly Endpoint[] {
    for (const endpoint of all) if (!this.#isOpen(endpoint)) return all.filter((each) => this.#isOpen(each));
    return all;
  }

  #whileClosed(all: readonly Endpoint[], request: HoldRequest): ExchangeError | 'wait' {
    if (this.#anyInTime(all)) return 'wait';
    const asleep = this.#asleepOf(all);
    if (asleep.length === 0) return 'hold-expired';
    if (asleep.every((id) => this.#deps.wakes.failedForMs(id) > 0)) return 'wake-failed';
    return this.#isExpired(request) ? 'hold-expired' : 'wait';
  }

  /** Asks for the sleepers of a service that somebody waits for, where nothing else will take the request. */
  #wake(serviceId: string): void {
    const all = this.#deps.serviceOf(serviceId)?.endpoints ?? [];
    if (this.#anyInTime(all) || all.some((endpoint) => this.#isOpen(endpoint))) return;
    const asleep = this.#asleepOf(all);
    if (asleep.length > 0) this.#deps.wakes.ask(asleep);
  }

  /** Those that only sleep: one that is frozen as well is being put to sleep or woken. */
  #asleepOf(all: readonly Endpoint[]): readonly string[] {
    return all.filter(({ state, id }) => state === 'asleep' && !this.#freezes.has(id)).map(({ id }) => id);
  }

  #isExpired({ heldSinceMs }: HoldRequest): boolean {
    return heldSinceMs >= 0 && this.#deps.clock.monotonicMs() - heldSinceMs >= HOLD_MS_MAX;
  }

  #anyInTime(endpoints: readonly Endpoint[]): boolean {
    if (this.#freezes.size === 0) return false;
    // A timer can fire a fraction of a millisecond early; without the tolerance its round would find nothing overdue.
    const nowMs = this.#deps.clock.monotonicMs() + 2;
    return endpoints.some((endpoint) => (this.#freezes.get(endpoint.id)?.endMs ?? 0) > nowMs);
  }
}
