/**
 * The hold queue: requests wait here, in order for each service, while none of its endpoints takes them: frozen, asleep, or, where an operator
 * lets requests wait for that, full.
 *
 * States of an endpoint: open → frozen (requests wait) → overdue (the deadline passed: requests are refused) → open, by `thaw` alone. A
 * deadline does not thaw, because nobody knows whether the endpoint is there. An endpoint that sleeps is asked for (`Wakes`) and opens with a
 * table in which it is awake. Requests that wait for a sleeper, or for an endpoint that is full, are refused after `HOLD_MS_MAX`, or what their
 * service says. One that was just started and does not listen yet is closed for a moment at a time. One that health checks found unhealthy is as good as not there; where all are, nobody waits, and who waits is refused.
 *
 * INVARIANT: a waiting request holds a service's id, not the service: it is resolved against the table that is current at its release, so
 * that it never goes to the address that was frozen. Every decision is synchronous, so a freeze never falls between a decision and its use.
 * INVARIANT: where somebody waits for a service, whoever comes waits behind.
 */
import { weightOf } from '#routing/balance.ts';
import type { Balance, Endpoint, Service, ServicePolicy } from '#routing/route-table.ts';
import type { Clock } from '#clock';
import { Balancer } from './balancer.ts';
import { shareOf } from './budget.ts';
import type { ExchangeError } from './error-response.ts';
import { HOLD_MS_MAX, HOLD_TICK_MS, LISTEN_STEP_MS, RELEASE_BATCH, RELEASE_FIRST, RELEASE_STEP_MS } from './limits.ts';
import type { Wakes } from './wakes.ts';

export interface HoldRequest {
  readonly serviceId: string;
  /** Endpoints that just failed this request; taken only where there is no other. */
  readonly avoid: ReadonlySet<string>;
  /** Since when it waits, in monotonic ms; negative: it does not. */
  readonly heldSinceMs: number;
  /** The hash of what its service tells requests apart by; undefined: it has nothing of the kind. */
  hashKey(balance: Balance): number | undefined;
  /** Called once for each `wait`, unless `leave` comes first. */
  settle(decision: Endpoint | ExchangeError): void;
}

export interface HoldDeps {
  readonly clock: Clock;
  /** The service in the table that is current now. */
  readonly serviceOf: (serviceId: string) => Service | undefined;
  readonly inFlightOf: (endpointId: string) => number;
  /** Requests that one endpoint takes at once from this worker, where its service says nothing. */
  readonly inFlightMax: () => number;
  /** How many workers share what a service says for the node. */
  readonly workers: number;
  readonly wakes: Pick<Wakes, 'ask' | 'failedForMs'>;
  /** Endpoints that health checks found to be not well. */
  readonly unhealthy: ReadonlySet<string>;
}

const NONE: ReadonlySet<string> = new Set();
/** The window of a service whose requests wait because it is full: one goes on for each that ends, and nobody starts slowly. */
const UNPACED = Number.POSITIVE_INFINITY;

interface Freeze {
  readonly endMs: number;
  readonly timer: NodeJS.Timeout;
  /** The same object for all freezes of an endpoint up to its thaw. */
  readonly span: object;
}

export class HoldQueue implements Disposable {
  readonly #deps: HoldDeps;
  readonly #freezes = new Map<string, Freeze>();
  /** By endpoint that refused a connection as it started: until it is tried again. */
  readonly #starting = new Map<string, NodeJS.Timeout>();
  /** By service, in order of arrival. None of them is empty. */
  readonly #waiting = new Map<string, Set<HoldRequest>>();
  /** By service of which some went on and some wait: how many requests each of its endpoints may have under way before the next go on. */
  readonly #windows = new Map<string, number>();
  #tick: NodeJS.Timeout | undefined;
  #nextStep: NodeJS.Timeout | undefined;
  readonly #balancer: Balancer;
  #size = 0;
  #isPaced = false;

  constructor(deps: HoldDeps) {
    this.#deps = deps;
    this.#balancer = new Balancer(deps.inFlightOf);
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
    const service = this.#deps.serviceOf(request.serviceId);
    if (service === undefined || service.endpoints.length === 0) return 'no-endpoint';
    const waiting = this.#size > 0 ? this.#waiting.get(request.serviceId) : undefined;
    if (waiting === undefined) return this.#choose(service, request);
    return service.policy === undefined || this.#mayWait(service, waiting.size) ? 'wait' : 'endpoint-busy';
  }

  /** Endpoints that take requests as far as operators wish and health checks found. */
  usableOf({ endpoints, policy }: Service): readonly Endpoint[] {
    if (policy === undefined) return endpoints;
    const sick = policy.health === undefined ? NONE : this.#deps.unhealthy;
    return thoseOf(endpoints, (endpoint) => weightOf(endpoint) > 0 && !sick.has(endpoint.id));
  }

  /** Requests that one endpoint of a service takes at once from this worker. */
  inFlightMaxOf(service: Service | undefined): number {
    const connections = service?.policy?.limits?.connections;
    return connections === undefined ? this.#deps.inFlightMax() : shareOf(connections, this.#deps.workers);
  }

  /** Parks a request that has to wait. */
  wait(request: HoldRequest): void {
    const { serviceId } = request;
    const waiting = this.#waiting.get(serviceId);
    if (waiting === undefined) {
      this.#waiting.set(serviceId, new Set([request]));
      if (this.#isFull(serviceId)) this.#windows.set(serviceId, UNPACED);
    } else waiting.add(request);
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

  /** Its program does not listen yet: who wants it waits, and after a moment the first of them tries. */
  notListening(endpointId: string): void {
    if (this.#starting.has(endpointId)) return;
    const timer = setTimeout(() => {
      this.#starting.delete(endpointId);
      this.release();
    }, LISTEN_STEP_MS);
    this.#starting.set(endpointId, timer);
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

  /** When a service of sleepers that could not be woken may be asked for again, or one that is unhealthy will have been checked again. */
  retryAfterMs(serviceId: string): number {
    const service = this.#deps.serviceOf(serviceId);
    if (service?.policy?.health !== undefined) return service.policy.health.intervalMs;
    const all = service?.endpoints ?? [];
    const waits = all.map(({ id }) => this.#deps.wakes.failedForMs(id)).filter((ms) => ms > 0);
    return waits.length === 0 ? 0 : Math.min(...waits);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#tick);
    clearTimeout(this.#nextStep);
    for (const { timer } of this.#freezes.values()) clearTimeout(timer);
    this.#freezes.clear();
    for (const timer of this.#starting.values()) clearTimeout(timer);
    this.#starting.clear();
  }

  #releaseService(serviceId: string, waiting: ReadonlySet<HoldRequest>): void {
    const window = this.#windows.get(serviceId) ?? RELEASE_FIRST;
    for (const request of waiting) {
      const service = this.#deps.serviceOf(serviceId);
      let decision = service === undefined || service.endpoints.length === 0 ? 'no-endpoint' : this.#choose(service, request);
      if (typeof decision !== 'string') {
        // What came together after a thaw goes on as fast as the endpoint takes it.
        const inFlight = this.#deps.inFlightOf(decision.id);
        const inFlightMax = this.inFlightMaxOf(service);
        if (inFlight >= Math.min(window, inFlightMax)) {
          this.#isPaced = true;
          if (inFlight < inFlightMax) this.#widenLater(serviceId, window);
          decision = this.#isExpired(request, service) ? 'hold-expired' : 'wait';
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

  #choose(service: Service, request: HoldRequest): Endpoint | ExchangeError | 'wait' {
    const { endpoints, policy } = service;
    if (policy !== undefined) return this.#chooseBy(policy, service, request);
    const [only] = endpoints;
    if (endpoints.length === 1 && only !== undefined && this.#isOpen(only)) return only;
    const open = this.#openOf(endpoints);
    if (open.length === 0) return this.#whileClosed(service, request);
    return this.#balancer.least(freshOf(open, request)) ?? 'no-endpoint';
  }

  /** The same for a service that operators want something of. */
  #chooseBy(policy: ServicePolicy, service: Service, request: HoldRequest): Endpoint | ExchangeError | 'wait' {
    const usable = this.usableOf(service);
    // No request of ours that ends brings one back: none is held.
    if (usable.length === 0) return service.endpoints.some((endpoint) => weightOf(endpoint) > 0) ? 'unhealthy' : 'no-endpoint';
    const open = this.#openOf(usable);
    if (open.length === 0) {
      // Where nothing is said, a freeze lasts as long as its deadline.
      const isLate = policy.limits?.holdMs !== undefined && this.#isExpired(request, service);
      return isLate ? 'hold-expired' : this.#whileClosed(service, request);
    }
    const free = policy.limits === undefined ? open : this.#freeOf(open, service);
    if (free.length === 0) return this.#whileFull(service, request);
    const key = request.hashKey(policy.balance);
    return this.#balancer.choose(service, policy, freshOf(free, request), key) ?? 'no-endpoint';
  }

  #whileFull(service: Service, request: HoldRequest): ExchangeError | 'wait' {
    if (request.heldSinceMs < 0 && !this.#mayWait(service, 0)) return 'endpoint-busy';
    if (this.#isExpired(request, service)) return 'hold-expired';
    this.#isPaced = true;
    return 'wait';
  }

  /** Whether a request may wait behind so many others: as many as may are those for whom there is no room, not those who are let on in a moment. */
  #mayWait(service: Service, before: number): boolean {
    const limits = service.policy?.limits;
    if (limits === undefined) return true;
    const open = this.#openOf(this.usableOf(service));
    if (open.length === 0) return true; // Frozen or asleep: the tenant's budget bounds who waits.
    const inFlightMax = this.inFlightMaxOf(service);
    const room = open.reduce((sum, { id }) => sum + Math.max(0, inFlightMax - this.#deps.inFlightOf(id)), 0);
    return before < room + shareOf(limits.pending ?? 0, this.#deps.workers);
  }

  /** Whether it is for requests to end that somebody waits who has to. */
  #isFull(serviceId: string): boolean {
    const service = this.#deps.serviceOf(serviceId);
    return service?.policy?.limits !== undefined && this.#openOf(this.usableOf(service)).length > 0;
  }

  #freeOf(open: readonly Endpoint[], service: Service): readonly Endpoint[] {
    const inFlightMax = this.inFlightMaxOf(service);
    return thoseOf(open, ({ id }) => this.#deps.inFlightOf(id) < inFlightMax);
  }

  #isOpen(endpoint: Endpoint): boolean {
    if (endpoint.state !== undefined || (this.#freezes.size > 0 && this.#freezes.has(endpoint.id))) return false;
    return this.#starting.size === 0 || !this.#starting.has(endpoint.id);
  }

  #anyStarting(endpoints: readonly Endpoint[]): boolean {
    return this.#starting.size > 0 && endpoints.some(({ id }) => this.#starting.has(id));
  }

  #openOf(all: readonly Endpoint[]): readonly Endpoint[] {
    return thoseOf(all, (endpoint) => this.#isOpen(endpoint));
  }

  #whileClosed(service: Service, request: HoldRequest): ExchangeError | 'wait' {
    const all = this.usableOf(service);
    if (this.#anyInTime(all) || this.#anyStarting(all)) return 'wait';
    const asleep = this.#asleepOf(all);
    if (asleep.length === 0) return 'hold-expired';
    if (asleep.every((id) => this.#deps.wakes.failedForMs(id) > 0)) return 'wake-failed';
    return this.#isExpired(request, service) ? 'hold-expired' : 'wait';
  }

  /** Asks for the sleepers of a service that somebody waits for, where nothing else will take the request. */
  #wake(serviceId: string): void {
    const service = this.#deps.serviceOf(serviceId);
    const all = service === undefined ? [] : this.usableOf(service);
    if (this.#anyInTime(all) || this.#anyStarting(all) || all.some((endpoint) => this.#isOpen(endpoint))) return;
    const asleep = this.#asleepOf(all);
    if (asleep.length > 0) this.#deps.wakes.ask(asleep);
  }

  /** Those that only sleep: one that is frozen as well is being put to sleep or woken. */
  #asleepOf(all: readonly Endpoint[]): readonly string[] {
    return all.filter(({ state, id }) => state === 'asleep' && !this.#freezes.has(id)).map(({ id }) => id);
  }

  #isExpired({ heldSinceMs }: HoldRequest, service: Service | undefined): boolean {
    const holdMs = service?.policy?.limits?.holdMs ?? HOLD_MS_MAX;
    return heldSinceMs >= 0 && this.#deps.clock.monotonicMs() - heldSinceMs >= holdMs;
  }

  #anyInTime(endpoints: readonly Endpoint[]): boolean {
    if (this.#freezes.size === 0) return false;
    // A timer can fire a fraction of a millisecond early; without the tolerance its round would find nothing overdue.
    const nowMs = this.#deps.clock.monotonicMs() + 2;
    return endpoints.some((endpoint) => (this.#freezes.get(endpoint.id)?.endMs ?? 0) > nowMs);
  }
}

/** Those that are taken by `test`; `all` itself, where it is all of them. */
function thoseOf(all: readonly Endpoint[], test: (endpoint: Endpoint) => boolean): readonly Endpoint[] {
  return all.every(test) ? all : all.filter(test);
}

/** Without those that just failed the request, where there are others. */
function freshOf(open: readonly Endpoint[], { avoid }: HoldRequest): readonly Endpoint[] {
  if (avoid.size === 0) return open;
  const fresh = open.filter((endpoint) => !avoid.has(endpoint.id));
  return fresh.length === 0 ? open : fresh;
}
