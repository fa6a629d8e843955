/**
 * The state of one worker: the current snapshot of routes and certificates, and what is under way.
 *
 * A change is prepared beside and committed by swapping one reference. An exchange keeps the service that it matched, but picks
 * endpoints from the current table, because an address that was current at match can be gone after a hold.
 */
import { EMPTY_TABLE, compileRoutes, tableWith } from '#routing/compile.ts';
import type { CompileResult } from '#routing/compile.ts';
import type { Endpoint, RouteTable, Service } from '#routing/route-table.ts';
import { DEFAULT_CERTIFICATE } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import { IssuedCertificates } from '#tls/issued-certificates.ts';
import { faultOf } from '#tls/secure-contexts.ts';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { setLogLevel } from '#log';
import type { Log } from '#log';
import { Gates } from './actions/gates.ts';
import { ActionBook } from './actions/prepared.ts';
import { RateLimits } from './actions/rate-limits.ts';
import type { Spend } from './actions/rate-limits.ts';
import { AccessLogFile } from './access-log-file.ts';
import { Budgets } from './budget.ts';
import { createConnectionDeps } from './connection/deps.ts';
import { Challenges } from './challenges.ts';
import type { ClientConnection, ConnectionDeps } from './connection/deps.ts';
import { Mirrors } from './connection/mirrors.ts';
import { createHeadReading } from './connection/head-reader.ts';
import type { Upstream } from './connection/upstream.ts';
import { Counters } from './counters.ts';
import type { TlsMaterial } from './endpoint-security.ts';
import { Endpoints } from './endpoints.ts';
import { chunkLimitsOf, hasSameHeads } from './edge-limits.ts';
import type { EdgeLimits } from './edge-limits.ts';
import { HoldQueue } from './hold.ts';
import { WAKE_AGAIN_MS } from './limits.ts';
import { LoadSum } from './loads.ts';
import type { EndpointLoad } from './loads.ts';
import { Metrics } from './metrics.ts';
import { isSameEndpoint } from './ports/port-table.ts';
import { Ports } from './ports/ports.ts';
import type {
  ChangeableOptions,
  EdgeChange,
  EdgeConfig,
  FreezeOptions,
  FreezeResult,
  HealthChange,
  WorkerOptions,
} from './protocol.ts';
import { settle } from './record.ts';
import type { ExchangeRecord } from './record.ts';
import { trustedOf } from './trusted-proxies.ts';
import type { TrustedProxies } from './trusted-proxies.ts';
import { Traffic } from './traffic.ts';
import { Wakes, asleepAmong } from './wakes.ts';
import { onWireFault } from './wire/wire.ts';
import type { TrafficDelta } from './protocol.ts';

const NONE: ReadonlySet<string> = new Set();

interface Snapshot {
  readonly table: RouteTable;
  readonly certificates: CertificateIndex;
}

/** Who holds it sees what is put in a field later. */
type Replaceable<T> = { -readonly [K in keyof T]: T[K] };

export interface DataPlaneDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Requests wait for one of these endpoints, which sleep. */
  readonly onWake: (endpointIds: readonly string[]) => void;
  /** Rate-limited requests were let through. */
  readonly onSpent: (spends: readonly Spend[]) => void;
  /** Handshakes wait for certificates of these hosts, to be told by `issued.answered`. */
  readonly onCertificateWanted: (hosts: readonly string[]) => void;
}

/** Limits are this worker's. */
export interface DataPlaneOptions extends Omit<ChangeableOptions, 'logLevel'> {
  /** How many workers share what a service says for the node, this one among them. */
  readonly workers: number;
  readonly listen: WorkerOptions['listen'];
}

const HTTPS_PORT = 443;

export class DataPlane implements AsyncDisposable {
  readonly log: Log;
  readonly clock: Clock;
  /** As they are now. Connections keep those of heads and chunks that they began with. */
  limits: EdgeLimits;
  /** Whose word about clients is believed, on connections that come now. */
  trusted: TrustedProxies;
  /** Whether plain HTTP is sent to HTTPS where a route says nothing of it. */
  redirects: boolean;
  /** Where HTTPS is. */
  readonly httpsPort: number;
  readonly counters = new Counters();
  readonly traffic = new Traffic(this.counters, () => this.clock.monotonicMs());
  readonly endpoints: Endpoints<Upstream> = new Endpoints<Upstream>(this.traffic);
  readonly budgets: Budgets;
  readonly wakes: Wakes;
  readonly holds: HoldQueue;
  readonly actions = new ActionBook();
  readonly rateLimits: RateLimits;
  readonly gates: Gates;
  readonly mirrors: Mirrors;
  readonly metrics: Metrics;
  readonly accessLog: AccessLogFile;
  readonly connectionDeps: Replaceable<ConnectionDeps>;
  /** Certificates of the internal CA. */
  readonly issued: IssuedCertificates;
  /** What CAs look for. */
  readonly challenges = new Challenges();
  /** What containers publish beside HTTP. */
  readonly ports: Ports;
  /** What is added to the monotonic clock to get the time of day; looked at each second. PERF: one clock to read for a request. */
  wallOffsetMs: number;
  /** Connections that speak HTTP. */
  readonly downstreams = new Set<ClientConnection>();
  /** Open connections of clients, handshakes included; kept by the listener. */
  downstreamConnections = 0;

  readonly #unhealthy = new Set<string>();
  #snapshot: Snapshot = { table: EMPTY_TABLE, certificates: CertificateIndex.of([]) };
  #prepared: Snapshot | undefined;
  #underWay = 0;
  #draining = false;
  readonly #proxyProtocol: boolean;
  #endedBeforeRelease = 0;

  constructor(deps: DataPlaneDeps, options: DataPlaneOptions) {
    const { log, clock } = deps;
    const { limits } = options;
    this.log = log;
    this.clock = clock;
    this.limits = limits;
    this.#proxyProtocol = options.trust.proxyProtocol;
    this.trusted = trustedOf(options.trust);
    this.redirects = options.redirect;
    this.httpsPort = options.listen.https?.port ?? HTTPS_PORT;
    this.wallOffsetMs = clock.nowMs() - clock.monotonicMs();
    this.budgets = new Budgets(limits.tenant);
    this.wakes = new Wakes(clock, { againMs: WAKE_AGAIN_MS, tell: deps.onWake });
    this.issued = new IssuedCertificates({ clock, ask: deps.onCertificateWanted });
    this.holds = new HoldQueue({
      clock,
      wakes: this.wakes,
      inFlightMax: () => this.limits.upstreamConnectionsMax,
      workers: options.workers,
      unhealthy: this.#unhealthy,
      serviceOf: (serviceId) => this.serviceOf(serviceId),
      inFlightOf: (endpointId) => this.endpoints.countOf(endpointId),
    });
    this.rateLimits = new RateLimits(clock, deps.onSpent);
    this.accessLog = new AccessLogFile(log, options.accessLogFile);
    this.connectionDeps = createConnectionDeps(this, materialOf(this));
    this.gates = new Gates({
      log,
      rateLimits: this.rateLimits,
      securities: this.connectionDeps.securities,
      endpointOf: (serviceId) => this.endpointFor(serviceId),
    });
    const { budgets, traffic, counters, endpoints, connectionDeps } = this;
    this.mirrors = new Mirrors({
      counters,
      endpoints,
      connectionDeps,
      serviceOf: (serviceId) => this.serviceOf(serviceId),
      endpointFor: (serviceId) => this.endpointFor(serviceId),
      ended: () => {
        this.visitEnded();
      },
    });
    this.ports = new Ports({
      log,
      clock,
      limits: () => this.limits,
      budgets,
      traffic,
      counters,
      wheel: this.connectionDeps.wheel,
      wakes: this.wakes,
    });
    onWireFault((error) => {
      log.error({ reason: reasonOf(error), stack: error instanceof Error ? error.stack : undefined }, 'exchange failed');
    });
    this.metrics = new Metrics({
      counters: this.counters,
      refusals: () => this.budgets.refusals(),
      heldRequests: () => this.holds.size,
      downstreamConnections: () => this.downstreamConnections,
      idleUpstreamConnections: () => this.endpoints.idleConnections,
      configVersion: () => this.version,
      accessLogDropped: () => this.accessLog.droppedLines,
      publishedStreams: () => this.ports.streamCount,
      publishedPorts: () => this.ports.listening,
      unboundPorts: () => this.ports.unbound,
    });
  }

  get version(): number {
    return this.#snapshot.table.version;
  }

  get table(): RouteTable {
    return this.#snapshot.table;
  }

  get certificates(): CertificateIndex {
    return this.#snapshot.certificates;
  }

  /** For clients that name no host: Node asks for it ahead of time, not by SNI. */
  get defaultCertificate(): EdgeCertificate | undefined {
    return this.#snapshot.certificates.get(DEFAULT_CERTIFICATE);
  }

  /** True once no new connections are wanted: responses then close theirs. */
  get draining(): boolean {
    return this.#draining;
  }

  serviceOf(serviceId: string): Service | undefined {
    return this.#snapshot.table.services.get(serviceId);
  }

  /** An endpoint of a service that takes requests now, for one that is made here. */
  endpointFor(serviceId: string): Endpoint | undefined {
    const decision = this.holds.decide({
      serviceId,
      avoid: NONE,
      heldSinceMs: -1,
      hashKey: () => undefined,
      settle: () => undefined,
    });
    return typeof decision === 'string' ? undefined : decision;
  }

  /** Requests that one endpoint of a service gets at once from this worker. */
  inFlightMaxOf(serviceId: string): number {
    return this.holds.inFlightMaxOf(this.serviceOf(serviceId));
  }

  /** True where a service has an endpoint besides those that takes requests. */
  hasOther(serviceId: string, avoid: ReadonlySet<string>): boolean {
    const service = this.serviceOf(serviceId);
    return service !== undefined && this.holds.usableOf(service).some((endpoint) => !avoid.has(endpoint.id));
  }

  /**
   * Holds what comes from now on to other options: connections, requests and lines of the log. What is under way keeps the limits of its head and its
   * chunks, and the time-outs that already run. Returns why that cannot be, or undefined.
   */
  reconfigure({ limits, trust, redirect, accessLogFile, logLevel }: ChangeableOptions): string | undefined {
    if (trust.proxyProtocol !== this.#proxyProtocol) return 'whether there are PROXY headers cannot change while ports are open';
    const before = this.limits;
    this.limits = limits;
    this.trusted = trustedOf(trust);
    this.redirects = redirect;
    this.budgets.limitTo(limits.tenant);
    const deps = this.connectionDeps;
    deps.limits = limits;
    deps.chunkLimits = chunkLimitsOf(limits);
    // Only where it matters: each has a bound of its own on the memory of unfinished heads.
    if (!hasSameHeads(before, limits)) {
      deps.requestHeads = createHeadReading('request', limits);
      deps.responseHeads = createHeadReading('response', limits);
    }
    this.accessLog.moveTo(accessLogFile);
    setLogLevel(this.log, logLevel);
    this.holds.release(); // There may be room at an endpoint that was full.
    return undefined;
  }

  /** Compiles what a worker begins with. Returns why it cannot be served, or undefined. */
  prepareWhole({ config, certificates }: EdgeConfig): string | undefined {
    // Certificates were looked at when they were added. A hundred thousand more looks would take half a minute.
    return this.#prepare(compileRoutes(config), config.ports ?? [], certificates);
  }

  /** Compiles a change beside the current version. Returns why it cannot be served, or undefined. */
  prepare(change: EdgeChange): string | undefined {
    const { routes, ports, certificates, removedCertificates } = change;
    for (const certificate of certificates) {
      const fault = faultOf(certificate);
      if (fault !== undefined) return `certificate "${certificate.name}" cannot be used: ${fault}`;
    }
    return this.#prepare(tableWith(this.table, routes), ports, this.certificates.with(certificates, removedCertificates));
  }

  #prepare(compiled: CompileResult, ports: EdgeChange['ports'], certificates: CertificateIndex): string | undefined {
    if (compiled.kind === 'rejected') return compiled.reason;
    this.#prepared = { table: compiled.table, certificates };
    this.ports.prepare(compiled.table.version, ports);
    return undefined;
  }

  /** Serves what was prepared as `version`. False where that is something else. */
  commit(version: number): boolean {
    if (this.#prepared?.table.version !== version) return false;
    this.#snapshot = this.#prepared;
    this.#prepared = undefined;
    const { endpoints } = this.#snapshot.table;
    const { securities } = this.connectionDeps;
    this.endpoints.keepOnly(
      (endpoint) =>
        (endpoint.tls === undefined || !securities.isStale(endpoint.tls)) &&
        endpoints.get(endpoint.id)?.some((one) => isSameEndpoint(one, endpoint)) === true,
    );
    this.ports.commit(version);
    const published = asleepAmong(this.ports.endpoints());
    const isAsleep = (id: string): boolean => endpoints.get(id)?.some(({ state }) => state === 'asleep') === true;
    this.wakes.keepOnly((id) => published.has(id) || isAsleep(id));
    for (const id of this.#unhealthy) if (endpoints.get(id) === undefined) this.#unhealthy.delete(id);
    this.holds.release();
    return true;
  }

  abort(version: number): void {
    this.ports.abort(version);
    if (this.#prepared?.table.version === version) this.#prepared = undefined;
  }

  /**
   * Holds new requests for `endpointIds` and returns when nothing is under way there and no connection is left but those of streams that are
   * carried. A thaw ends the wait.
   */
  async freeze(endpointIds: readonly string[], options: FreezeOptions): Promise<FreezeResult> {
    const lasts = this.holds.freeze(endpointIds, options.deadlineMs);
    // First: a connection whose request ends during the freeze is not kept either.
    this.endpoints.retire(new Set(endpointIds));
    const { drainMs, streams = 'close' } = options;
    const [requests, published] = await Promise.all([
      this.endpoints.emptied(this.clock, endpointIds, { drainMs, carriesStreams: streams === 'carry', lasts }),
      this.ports.freeze(endpointIds, options, lasts),
    ]);
    this.counters.streamsEnded(requests);
    return {
      ...requests,
      cut: requests.cut + published.cut,
      waitedMs: Math.max(requests.waitedMs, published.waitedMs),
    };
  }

  /** Holds what is new for `endpointIds`, without waiting for what is under way. */
  hold(endpointIds: readonly string[], deadlineMs: number): void {
    this.holds.freeze(endpointIds, deadlineMs);
    this.ports.hold(endpointIds, deadlineMs);
  }

  thaw(endpointIds: readonly string[]): void {
    this.holds.thaw(endpointIds);
    this.ports.thaw(endpointIds);
  }

  /** The endpoints could not be woken: who waits for them is told, and who comes in that time. */
  wakeFailed(endpointIds: readonly string[], retryAfterMs: number): void {
    this.wakes.failed(endpointIds, retryAfterMs);
    this.holds.release();
    this.ports.wakeFailed();
  }

  /** What health checks found: endpoints that get no requests from now on, and that get them again. */
  healthChanged({ unhealthy, healthy }: HealthChange): void {
    for (const id of unhealthy) this.#unhealthy.add(id);
    for (const id of healthy) this.#unhealthy.delete(id);
    this.holds.release();
  }

  /** All that gets no requests, whatever was said before. */
  healthAdopted(unhealthy: readonly string[]): void {
    this.#unhealthy.clear();
    this.healthChanged({ unhealthy, healthy: [] });
  }

  /** All that gets no requests for its health. */
  get unhealthy(): readonly string[] {
    return [...this.#unhealthy];
  }

  /** A request at an endpoint ended: lets on who waits for that, after the step at hand. */
  visitEnded(): void {
    if (!this.holds.isPaced) return;
    this.#endedBeforeRelease += 1;
    if (this.#endedBeforeRelease > 1) return;
    this.later(() => {
      const ended = this.#endedBeforeRelease;
      this.#endedBeforeRelease = 0;
      this.holds.ended(ended);
    });
  }

  exchangeBegins(): void {
    this.#underWay += 1;
  }

  /** Accounts for an exchange, counts it and writes its line. Once for each that began. */
  exchangeEnded(record: ExchangeRecord, tenant: string, nowMs: number): void {
    const totalMs = nowMs - record.startMs;
    const account = record.account ?? this.#accountWithoutEndpoint(tenant);
    settle(account, record);
    account.requests += 1;
    if (record.isStream) this.traffic.streamEnds(account);
    account.heldMs += Math.round(record.holdMs);
    if (record.holdMs > 0) this.counters.held(record.holdMs);
    this.counters.exchangeEnded(account.counters, record.status, totalMs);
    this.accessLog.write(record, totalMs);
    this.#underWay -= 1;
  }

  /** What moved since the last call, streams that are still open included. */
  collectTraffic(): TrafficDelta[] {
    this.wallOffsetMs = this.clock.nowMs() - this.clock.monotonicMs();
    for (const downstream of this.downstreams) downstream.settle();
    this.ports.settle();
    return this.traffic.collect();
  }

  /** All endpoints that have something under way, or that something moved at. */
  loads(moved: readonly TrafficDelta[]): EndpointLoad[] {
    const sum = new LoadSum();
    for (const { endpointId } of moved) if (endpointId !== undefined) sum.add(endpointId, 0, 0);
    for (const [id, inFlight] of this.endpoints.inFlight()) sum.add(id, inFlight, 0);
    for (const id of this.ports.endpointsInUse()) sum.add(id, 1, 0);
    for (const [serviceId, held] of this.holds.heldByService())
      for (const { id } of this.serviceOf(serviceId)?.endpoints ?? []) sum.add(id, 0, held);
    return sum.all();
  }

  /** Exchanges that have not ended. */
  get underWay(): number {
    return this.#underWay;
  }

  /** Runs something in a turn of its own, so that it does not meet a half-done step. */
  later(step: () => void): void {
    setImmediate(() => {
      try {
        step();
      } catch (error) {
        this.log.error({ reason: reasonOf(error) }, 'a step failed');
      }
    });
  }

  startDraining(): void {
    this.#draining = true;
  }

  closeIdleDownstreams(): void {
    for (const downstream of this.downstreams) downstream.closeIdle();
  }

  /** Ends everything that is still under way: what waits is refused, what is at an endpoint is cut. */
  cutAll(): void {
    this.holds.refuseAll('cut-by-drain');
    this.endpoints.cutAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.ports[Symbol.dispose]();
    this.gates[Symbol.dispose]();
    this.rateLimits[Symbol.dispose]();
    this.holds[Symbol.dispose]();
    this.issued[Symbol.dispose]();
    this.endpoints[Symbol.dispose]();
    this.connectionDeps.wheel[Symbol.dispose]();
    await this.accessLog[Symbol.asyncDispose]();
  }

  #accountWithoutEndpoint(tenant: string): ReturnType<Traffic['open']> {
    const account = this.traffic.open(tenant, undefined);
    this.traffic.close(account);
    return account;
  }
}

/** Of the snapshot of the moment. */
function materialOf(plane: DataPlane): TlsMaterial {
  return {
    caBundle: (name) => plane.table.caBundles.get(name),
    certificate: (name) => plane.certificates.get(name),
  };
}
