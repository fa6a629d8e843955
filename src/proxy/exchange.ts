/**
 * One exchange after the other of one stream of a client: requests and what became of them.
 *
 * Knows phases, not bytes: route → admit → hold and pick → carry (again where that is safe) → finish. How bytes move is the port's affair.
 * LIFECYCLE: idle → begin → (held →) carried → … → idle. Every exchange that began ends once, in `finish`, which accounts for it and writes
 * the access log. PERF: no promises, no closures and no objects on this path; one `Exchange` serves a whole connection.
 */
import { armOf, findRoute, isKnownHost, soleRoute } from '#routing/match.ts';
import { normalPath } from '#routing/path-prefix.ts';
import { reasonOf } from '#errors';
import type { PreparedActions } from './actions/prepared.ts';
import type { Balance, CompiledRoute, Endpoint, RouteTable, Service } from '#routing/route-table.ts';
import type { TenantBudget } from './budget.ts';
import type { Upstream } from './connection/upstream.ts';
import type { DataPlane } from './data-plane.ts';
import type { EndpointPool, StreamTally, Visit, VisitList } from './endpoints.ts';
import { errorResponse, statusOf } from './error-response.ts';
import type { ExchangeError, OwnResponse } from './error-response.ts';
import type { Refusal, Verdict } from './actions/gates.ts';
import { hashKeyOf } from './hash-key.ts';
import { HeadFacts } from './head-facts.ts';
import type { HoldRequest } from './hold.ts';
import { ATTEMPTS_MAX, RETRY_AFTER_SECONDS } from './limits.ts';
import { settle } from './record.ts';
import type { ExchangeRecord } from './record.ts';
import { mayRetry } from './retry.ts';
import type { FailedAttempt } from './retry.ts';

/** The way of a request to an endpoint. */
export interface ExchangePassage {
  /** Sends the request to an endpoint of `pool`. */
  carry(pool: EndpointPool<Upstream>): void;
  /** Ends the attempt under way, visibly for the client if it has seen a part of the response. */
  cut(error: ExchangeError): void;
  /** Whether it is a stream without an end of its own. */
  readonly isStream: boolean;
  /** Ends such a stream in order, as soon as that is possible. `isLate`: even where a part of a message is lost. */
  endStream(tally: StreamTally, isLate: boolean): void;
  /** Takes the attempt under way back, where that is safe, and lets the request wait. */
  withdraw(): boolean;
}

/** Moves the bytes of an exchange. */
export interface ExchangePort {
  readonly record: ExchangeRecord;
  readonly passage: ExchangePassage;
  /** The path of the request, without its query. */
  requestPath(): string;
  /** What is kept in memory of a request that waits. */
  heldBytes(): number;
  /** Answers without an endpoint. The exchange is finished by the port when that is written. */
  respond(response: OwnResponse): void;
}

export class Exchange implements Visit, HoldRequest {
  readonly #plane: DataPlane;
  readonly #port: ExchangePort;
  readonly #facts: HeadFacts;
  visitOf: VisitList | undefined = undefined;
  visitAfter: Visit | undefined = undefined;
  visitBefore: Visit | undefined = undefined;
  readonly avoid = new Set<string>();
  serviceId = '';
  tenant = '';
  #route: CompiledRoute | undefined;
  /** Where the host of the last exchange was looked up, and its route if it has only one. */
  #routedIn: RouteTable | undefined;
  #routedHost = '';
  #sole: CompiledRoute | undefined;
  #soleService: Service | undefined;
  #pool: EndpointPool<Upstream> | undefined;
  #budget: TenantBudget | undefined;
  /** The tenant that the connection counts for; empty: none. */
  #connectionOf = '';
  #attempts = 0;
  /** Whether it counts as an upgraded stream. */
  #upgrade = false;
  /** -1: it does not wait. */
  heldSinceMs = -1;
  #heldBytes = 0;
  #active = false;
  /** Counts what was asked about before a request goes on: an answer that comes too late is for another one. */
  #asked = 0;

  constructor(plane: DataPlane, port: ExchangePort) {
    this.#plane = plane;
    this.#port = port;
    this.#facts = new HeadFacts(port.record);
  }

  get active(): boolean {
    return this.#active;
  }

  /** Opens the record of a request whose head came, or was refused. */
  open(): void {
    const { record } = this.#port;
    const { clock } = this.#plane;
    this.#active = true;
    record.startMs = clock.monotonicMs();
    record.startWallMs = record.startMs + this.#plane.wallOffsetMs;
    record.configVersion = this.#plane.version;
    this.#plane.exchangeBegins();
  }

  /**
   * Finds the route of the open exchange. Gives the error where there is none. `repeated`: its head is that of the exchange before.
   * PERF: a connection asks mostly for one host, and its table is mostly the one of a moment ago.
   */
  route(host: string, repeated: boolean): ExchangeError | undefined {
    const { record } = this.#port;
    const { table } = this.#plane;
    if (table !== this.#routedIn || host !== this.#routedHost) {
      this.#routedIn = table;
      this.#routedHost = host;
      this.#sole = soleRoute(table, host);
      this.#soleService = this.#sole === undefined ? undefined : table.services.get(this.#sole.route.serviceId);
      record.route = undefined;
    }
    record.host = host;
    const known = repeated ? record.route : undefined;
    let route = this.#sole ?? known?.whole ?? known ?? findRoute(table, host, normalPath(this.#port.requestPath()), this.#facts);
    if (route?.arms !== undefined) route = armOf(route.arms, Math.random());
    if (route === undefined) return isKnownHost(table, host) ? 'unknown-path' : 'unknown-host';
    this.#route = route;
    record.route = route;
    record.actions = this.#actionsOf(route);
    if (route === this.#sole) record.service = this.#soleService;
    else if (route !== known) record.service = table.services.get(route.route.serviceId);
    this.serviceId = route.route.serviceId;
    this.tenant = route.tenant;
    return undefined;
  }

  #actionsOf({ route }: CompiledRoute): PreparedActions | undefined {
    return route.actions === undefined ? undefined : this.#plane.actions.of(route, route.actions);
  }

  get matched(): CompiledRoute | undefined {
    return this.#route;
  }

  /** Counts the connection to the tenant that its exchange is routed to. Gives the error where that has too many. */
  admitConnection(): ExchangeError | undefined {
    if (this.tenant === this.#connectionOf) return undefined;
    this.leaveConnection();
    if (!this.#plane.budgets.of(this.tenant).tryEnter('connections')) return 'tenant-busy';
    this.#connectionOf = this.tenant;
    return undefined;
  }

  /** The connection is no tenant's any more. */
  leaveConnection(): void {
    if (this.#connectionOf !== '') this.#plane.budgets.of(this.#connectionOf).leave('connections');
    this.#connectionOf = '';
  }

  /** Admits the routed exchange and carries it to an endpoint, now or after a hold. `upgrade`: it may become a stream of its own. */
  start(upgrade: boolean): void {
    const budget = this.#plane.budgets.of(this.tenant);
    if (!budget.tryEnter('exchanges')) {
      this.refuse('tenant-busy');
      return;
    }
    this.#budget = budget;
    if (upgrade && !budget.tryEnter('upgradedStreams')) {
      this.refuse('tenant-busy');
      return;
    }
    this.#upgrade = upgrade;
    this.#attempts = 0;
    if (this.avoid.size > 0) this.avoid.clear();
    const { actions } = this.#port.record;
    if (actions?.isGated === true) this.#askGates(actions);
    else this.#place();
  }

  /** Answers what no route is asked about. */
  answer(response: OwnResponse): void {
    this.#port.record.status = response.status;
    this.#port.respond(response);
  }

  /** Answers with an error of our own. */
  refuse(error: ExchangeError, detail?: string, refusal: Refusal = {}): void {
    const { record } = this.#port;
    record.error = error;
    record.status = statusOf(error);
    if (error === 'hold-expired') this.#plane.counters.timedOut(error);
    const retryAfterSeconds = refusal.retryAfterSeconds ?? this.#retryAfterSeconds(error);
    this.#port.respond(errorResponse(error, { detail: detail ?? refusal.detail, retryAfterSeconds, fields: refusal.fields }));
  }

  #askGates(actions: PreparedActions): void {
    const verdict = this.#plane.gates.check(actions, {
      record: this.#port.record,
      requestField: (name) => this.#facts.requestField(name),
      requestMethod: () => this.#facts.requestMethod(),
    });
    if (!(verdict instanceof Promise)) {
      this.#passGates(verdict);
      return;
    }
    this.#asked += 1;
    void this.#passGatesLater(verdict, this.#asked);
  }

  async #passGatesLater(verdict: Promise<Verdict>, asked: number): Promise<void> {
    const late = await verdict.catch((error: unknown): Verdict => {
      this.#plane.log.error({ reason: reasonOf(error) }, 'whether a request may pass could not be found out');
      return { kind: 'refuse', error: 'auth-unavailable', refusal: {} };
    });
    this.#plane.later(() => {
      // The client may have left meanwhile, and its connection may be used for another request.
      if (this.#active && this.#asked === asked) this.#passGates(late);
    });
  }

  #passGates(verdict: Verdict): void {
    const { record } = this.#port;
    switch (verdict.kind) {
      case 'go':
        record.passed = verdict.passed;
        this.#place();
        return;
      case 'respond':
        this.answer(verdict.response);
        return;
      case 'refuse':
        this.refuse(verdict.error, undefined, verdict.refusal);
    }
  }

  /** Whether no endpoint had the request before. */
  get isFirstAttempt(): boolean {
    return this.#attempts === 1;
  }

  /** What a client is told to wait that is refused for `error`. */
  #retryAfterSeconds(error: ExchangeError): number {
    if (error !== 'wake-failed' && error !== 'unhealthy') return RETRY_AFTER_SECONDS;
    return Math.max(RETRY_AFTER_SECONDS, Math.ceil(this.#plane.holds.retryAfterMs(this.serviceId) / 1000));
  }

  hashKey(balance: Balance): number | undefined {
    return hashKeyOf(balance, this.#port.record);
  }

  /** The hold queue has decided. */
  settle(decision: Endpoint | ExchangeError): void {
    if (this.heldSinceMs >= 0) this.#holdEnded();
    if (typeof decision === 'string') {
      this.refuse(decision);
      return;
    }
    const { endpoints, limits } = this.#plane;
    const pool = endpoints.poolOf(this.tenant, decision);
    const { size } = pool.load.visits;
    // Where a service allows less, its endpoint was chosen by that; where it allows more, it is asked for.
    if (size >= limits.upstreamConnectionsMax && size >= this.#plane.inFlightMaxOf(this.serviceId)) {
      this.refuse('endpoint-busy');
      return;
    }
    // In the same turn in which it is picked, so that a freeze sees it.
    endpoints.enter(pool, this);
    this.#pool = pool;
    const { record } = this.#port;
    record.endpoint = pool.endpoint;
    record.account = pool.account;
    this.#attempts += 1;
    this.#port.passage.carry(pool);
  }

  /** An attempt failed before anything of a response reached the client: again, or answer. */
  attemptFailed(attempt: FailedAttempt): void {
    const pool = this.#pool;
    const { record } = this.#port;
    if (record.account !== undefined) settle(record.account, record);
    this.#leave();
    if (this.#attempts >= ATTEMPTS_MAX || !mayRetry(attempt) || pool === undefined) {
      this.refuse(attempt.error);
      return;
    }
    const { endpoint } = pool;
    if (attempt.connected) this.#plane.endpoints.retire(new Set([endpoint.id])); // One idle connection was dead; its siblings are as old.
    else {
      this.avoid.add(endpoint.id);
      if (!this.#plane.hasOther(this.serviceId, this.avoid)) {
        this.refuse(attempt.error);
        return;
      }
    }
    this.#plane.counters.retried();
    this.#place();
  }

  /** The client is gone, or will be: ends a hold. What is under way at an endpoint is the port's to end. */
  abandon(error: ExchangeError): void {
    const { record } = this.#port;
    record.error = error;
    if (record.status === 0) record.status = statusOf(error);
    if (this.heldSinceMs < 0) return;
    this.#plane.holds.leave(this);
    this.#holdEnded();
  }

  get isStream(): boolean {
    return this.#port.passage.isStream;
  }

  endStream(tally: StreamTally, isLate: boolean): void {
    this.#port.passage.endStream(tally, isLate);
  }

  /** For freezes: goes to its endpoint again after the thaw. False: it must not. */
  replay(): boolean {
    if (!this.#port.passage.withdraw()) return false;
    const { record } = this.#port;
    if (record.account !== undefined) settle(record.account, record);
    this.#leave();
    this.#plane.counters.replayed();
    this.#place();
    return true;
  }

  /** For freezes and drains: ends the exchange at its endpoint. */
  cut(): void {
    this.#port.passage.cut(this.#plane.draining ? 'cut-by-drain' : 'cut-by-freeze');
  }

  /** Ends the exchange, whatever became of it. Once. */
  finish(nowMs: number = this.#plane.clock.monotonicMs()): void {
    if (!this.#active) return;
    this.#active = false;
    this.#asked += 1;
    this.#plane.exchangeEnded(this.#port.record, this.tenant, nowMs);
    this.#leave();
    this.#budget?.leave('exchanges');
    if (this.#upgrade) this.#budget?.leave('upgradedStreams');
    this.#upgrade = false;
    this.#budget = undefined;
    this.#route = undefined;
    this.tenant = '';
  }

  #place(): void {
    const decision = this.#plane.holds.decide(this);
    if (decision !== 'wait') {
      this.settle(decision);
      return;
    }
    if (!this.#tryHold()) {
      this.refuse('hold-full');
      return;
    }
    this.heldSinceMs = this.#plane.clock.monotonicMs();
    this.#plane.holds.wait(this);
  }

  #tryHold(): boolean {
    const bytes = this.#port.heldBytes();
    if (this.#budget?.tryEnter('heldRequests') !== true) return false;
    if (!this.#budget.tryEnter('heldBytes', bytes)) {
      this.#budget.leave('heldRequests');
      return false;
    }
    this.#heldBytes = bytes;
    return true;
  }

  #holdEnded(): void {
    this.#port.record.holdMs += this.#plane.clock.monotonicMs() - this.heldSinceMs;
    this.heldSinceMs = -1;
    this.#budget?.leave('heldRequests');
    this.#budget?.leave('heldBytes', this.#heldBytes);
  }

  #leave(): void {
    if (this.#pool === undefined) return;
    this.#plane.endpoints.leave(this.#pool, this);
    this.#pool = undefined;
    this.#plane.visitEnded();
  }
}
