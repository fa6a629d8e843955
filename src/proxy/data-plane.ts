/**
 * The state of one worker: the current snapshot of routes and certificates, and what is under way.
 *
 * A change is prepared beside and committed by swapping one reference. An exchange keeps the service that it matched, but picks
 * endpoints from the current table, because an address that was current at match can be gone after a hold.
 */
import { compileRoutes } from '#routing/compile.ts';
import type { Endpoint, RouteTable, Service } from '#routing/route-table.ts';
import { CertificateIndex } from '#tls/sni.ts';
import type { HostCertificate } from '#tls/certificate.ts';
import type { Clock } from '#clock';
import type { Log } from '#log';
import { AccessLog } from './access-log.ts';
import { HoldQueue } from './hold.ts';
import { InFlight } from './in-flight.ts';
import { Metrics } from './metrics.ts';
import type { EdgeConfig, FreezeOptions, FreezeResult } from './protocol.ts';
import { Traffic } from './traffic.ts';
import { UpstreamPool } from './upstream-pool.ts';

interface Snapshot {
  readonly table: RouteTable;
  readonly certificates: CertificateIndex;
}

export interface DataPlaneDeps {
  readonly log: Log;
  readonly clock: Clock;
}

export interface DataPlaneOptions {
  readonly accessLogFile: string;
}

const EMPTY_TABLE: RouteTable = {
  version: 0,
  services: new Map(),
  byExactHost: new Map(),
  byWildcardHost: new Map(),
  byAnyHost: [],
};

export class DataPlane implements AsyncDisposable {
  readonly log: Log;
  readonly clock: Clock;
  readonly inFlight = new InFlight();
  readonly upstreams = new UpstreamPool();
  readonly traffic = new Traffic();
  readonly holds: HoldQueue;
  readonly metrics: Metrics;
  readonly accessLog: AccessLog;
  /** Open connections of clients; kept by the listener. */
  downstreamConnections = 0;

  #snapshot: Snapshot = { table: EMPTY_TABLE, certificates: CertificateIndex.empty() };
  #prepared: Snapshot | undefined;
  #underWay = 0;
  #draining = false;

  constructor(deps: DataPlaneDeps, options: DataPlaneOptions) {
    this.log = deps.log;
    this.clock = deps.clock;
    this.holds = new HoldQueue({
      clock: deps.clock,
      serviceOf: (serviceId) => this.serviceOf(serviceId),
      inFlightOf: (endpointId) => this.inFlight.countOf(endpointId),
    });
    this.accessLog = new AccessLog(deps.log, options.accessLogFile);
    this.metrics = new Metrics({
      heldRequests: () => this.holds.size,
      downstreamConnections: () => this.downstreamConnections,
      configVersion: () => this.version,
      accessLogDropped: () => this.accessLog.droppedLines,
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

  get defaultCertificate(): HostCertificate | undefined {
    return this.#snapshot.certificates.defaultCertificate();
  }

  /** True once no new connections are wanted: responses then close theirs. */
  get draining(): boolean {
    return this.#draining;
  }

  serviceOf(serviceId: string): Service | undefined {
    return this.#snapshot.table.services.get(serviceId);
  }

  /** True where a service has an endpoint besides those. */
  hasOther(serviceId: string, avoid: ReadonlySet<string>): boolean {
    return this.serviceOf(serviceId)?.endpoints.some((endpoint) => !avoid.has(endpoint.id)) ?? false;
  }

  /** Compiles a change beside the current one. Returns why it cannot be served, or undefined. */
  prepare(edge: EdgeConfig): string | undefined {
    const compiled = compileRoutes(edge.config);
    if (compiled.kind === 'rejected') return compiled.reason;
    const certificates = this.#snapshot.certificates.prepare(edge.certificates);
    if (certificates.kind === 'refused') return certificates.reason;
    this.#prepared = { table: compiled.table, certificates: certificates.index };
    return undefined;
  }

  /** Serves what was prepared as `version`. False where that is something else. */
  commit(version: number): boolean {
    if (this.#prepared?.table.version !== version) return false;
    this.#snapshot = this.#prepared;
    this.#prepared = undefined;
    this.upstreams.keepOnly(endpointsOf(this.#snapshot.table));
    this.holds.release();
    return true;
  }

  abort(version: number): void {
    if (this.#prepared?.table.version === version) this.#prepared = undefined;
  }

  /** Holds new requests for `endpointIds` and returns when nothing is under way there and no idle connection is left. */
  async freeze(endpointIds: readonly string[], options: FreezeOptions): Promise<FreezeResult> {
    this.holds.freeze(endpointIds, options.deadlineMs);
    const result = await this.inFlight.emptied(this.clock, endpointIds, options.drainMs);
    this.upstreams.retire(new Set(endpointIds));
    return result;
  }

  thaw(endpointIds: readonly string[]): void {
    this.holds.thaw(endpointIds);
  }

  exchangeBegins(): void {
    this.#underWay += 1;
  }

  exchangeEnds(): void {
    this.#underWay -= 1;
  }

  /** Exchanges that have not ended. */
  get underWay(): number {
    return this.#underWay;
  }

  startDraining(): void {
    this.#draining = true;
  }

  /** Ends everything that is still under way: what waits is refused, what is at an endpoint is cut. */
  cutAll(): void {
    this.holds.refuseAll('cut-by-drain');
    this.inFlight.cutAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.upstreams[Symbol.dispose]();
    await this.accessLog[Symbol.asyncDispose]();
  }
}

function* endpointsOf(table: RouteTable): Generator<Endpoint> {
  for (const service of table.services.values()) yield* service.endpoints;
}
