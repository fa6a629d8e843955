/** What operators see and change, as the admin API asks for it. */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import type {
  DrainHostOrder,
  HostSettings,
  MigrateOrder,
  ContainerReading,
  ContainerView,
  NodeControl,
  NodeStatus,
  ContainerExplanation,
  ContainerFilter,
  FleetProgress,
  PlanOrder,
  ReloadReport,
  SnapshotView,
  TenantChange,
  TenantEnv,
  TenantRequest,
  TenantView,
  UpgradeBegun,
} from '#admin/node-control.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import { statusText } from '#caas/docker-api/container-views.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';
import type { Migrations } from '#caas/migration/migration.ts';
import type { SleepReport, Sleepers, WakeReport } from '#caas/sleep/sleepers.ts';
import type { CloneReport, Clones } from '#caas/snapshots/clones.ts';
import { findHost } from '#caas/rebalance/drain.ts';
import type { DrainReport } from '#caas/rebalance/drain.ts';
import type { RebalanceReport } from '#caas/rebalance/rebalancer.ts';
import type { RestoreReport, Restores } from '#caas/snapshots/restores.ts';
import type { SnapshotReport, Snapshots } from '#caas/snapshots/snapshots.ts';
import { wantedRoutes } from '#caas/routes.ts';
import type { MigrationReport } from '#caas/migration/move.ts';
import type { MigrationProgress } from '#caas/migration/move-times.ts';
import type { UsageGrouping, UsageTotal } from '#caas/usage.ts';
import { RETIRE_DRAIN_MS } from '#proxy/limits.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import { readChanges } from '#state/change-log.ts';
import type { Change } from '#state/change-log.ts';
import type { ContainerRow } from '#state/containers.ts';
import { listHosts } from '#state/hosts.ts';
import type { HostState } from '#state/hosts.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import type { NodeConfig } from '#config';
import type { CertificateControl } from '#admin/certificate-control.ts';
import type { LedgerControl, PriceControl } from '#admin/metering-control.ts';
import type { EdgeControl } from '#admin/edge-control.ts';
import { checkPrecondition } from '#admin/entity-tag.ts';
import type { Precondition } from '#admin/entity-tag.ts';
import type { NodeAcme } from './node-acme.ts';
import type { EdgeCertificates } from './node-certificates.ts';
import type { Edge } from './node-edge.ts';
import { EdgeSettingsControl } from './node-edge-settings.ts';
import type { Fleet } from './node-fleet.ts';
import { addressText, confirmHost, explanationOf, hostStatus, settingsOfHost, snapshotView } from './node-views.ts';
import { LedgerOperations } from './node-metering.ts';
import type { Books } from './node-metering.ts';
import { PriceOperations } from './node-prices.ts';
import type { NodeMetrics } from './node-metrics.ts';
import type { LiveConfig, Reloads } from './node-reload.ts';
import type { Tenants } from './node-tenants.ts';
import { checkSuccessor } from './node-succession.ts';
import type { UpgradeOrder } from './node-succession.ts';
import { packageVersion } from './version.ts';

export interface NodeParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly config: NodeConfig;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly tenants: Tenants;
  readonly containers: Containers;
  readonly migrations: Migrations;
  readonly sleepers: Sleepers;
  readonly clones: Clones;
  readonly fleet: Fleet;
  readonly snapshots: Snapshots;
  readonly restores: Restores;
  readonly meter: Meter;
  readonly books: Books;
  readonly pool: WorkerPool;
  readonly edge: Edge;
  readonly certificates: EdgeCertificates;
  /** Undefined: no certificates are asked for. */
  readonly acme: NodeAcme | undefined;
  readonly metrics: NodeMetrics | undefined;
  readonly startedMs: number;
  readonly generation: number;
  readonly live: LiveConfig;
  readonly reloads: Reloads;
  /** Carries an upgrade out, when this turn is over. */
  readonly order: (order: UpgradeOrder) => void;
}

/** A 12-digit prefix is what people copy from a table; shorter ones work while they are unique. */
const PREFIX = /^[0-9a-f]{1,64}$/;

const MOVE_REFUSALS: ReadonlySet<string> = new Set(['ECLUSE_MIGRATION_REFUSED', 'ECLUSE_PRECONDITION_FAILED']);

/** Of a UUID. Fewer digits are a slip more often than an id. */
const SNAPSHOT_PREFIX = /^[0-9a-f][0-9a-f-]{3,35}$/;

export class NodeOperations implements NodeControl {
  readonly edge: EdgeControl;
  readonly certificates: CertificateControl;
  readonly ledger: LedgerControl;
  readonly prices: PriceControl;
  readonly #parts: NodeParts;

  constructor(parts: NodeParts) {
    this.#parts = parts;
    const { clock, sql, edge, certificates, pool, log } = parts;
    this.certificates = certificates;
    this.ledger = new LedgerOperations({ clock, sql, ...parts.books.keys });
    const { books } = parts;
    const flush = async (): Promise<void> => {
      await this.#flush();
    };
    const changed = (): void => {
      books.pricesChanged();
    };
    this.prices = new PriceOperations({ clock, sql, keeper: books.keeper, flush, changed });
    this.edge = new EdgeSettingsControl({
      log,
      clock,
      sql,
      edge,
      certificates,
      workers: () => pool.status(),
      table: () => pool.table,
      health: () => pool.health(),
    });
  }

  async status(): Promise<NodeStatus> {
    const rows = await this.#parts.containers.list();
    const uses = new Map((await listHosts(this.#parts.sql)).map(({ name, state }) => [name, state]));
    return {
      version: packageVersion(),
      pid: process.pid,
      startedMs: this.#parts.startedMs,
      dataDir: this.#parts.config.dataDir,
      listen: {
        http: addressText(this.#parts.pool.listening.http),
        https: addressText(this.#parts.pool.listening.https),
        docker: addressText(this.#parts.config.listen.docker),
        metrics: addressText(this.#parts.config.listen.metrics),
      },
      configVersion: this.#parts.pool.version,
      workers: this.#parts.pool.status().map(({ pid, version }) => ({ pid, version })),
      generation: this.#parts.generation,
      retiring: this.#parts.pool.retiring(),
      hosts: await Promise.all(
        [...this.#parts.hosts.values()].map(async (host) => await hostStatus(host, rows, uses.get(host.name) ?? 'active')),
      ),
    };
  }

  async reload(): Promise<ReloadReport> {
    return await this.#parts.reloads.reload();
  }

  async upgrade({ drainMs = RETIRE_DRAIN_MS }: { readonly drainMs?: number }): Promise<UpgradeBegun> {
    await checkSuccessor();
    this.#parts.order({ drainMs });
    return { generation: this.#parts.generation, pid: process.pid };
  }

  async tenants(): Promise<readonly TenantView[]> {
    return await Promise.all((await this.#parts.tenants.list()).map(async (tenant) => await this.#tenantView(tenant)));
  }

  async addTenant(request: TenantRequest): Promise<TenantView> {
    return await this.#tenantView(
      await this.#parts.tenants.add({
        name: request.name,
        quota: request.quota ?? {},
        domains: request.domains ?? [],
        address: request.address ?? '',
      }),
    );
  }

  async tenant(name: string): Promise<Tenant> {
    return await this.#parts.tenants.get(name);
  }

  async setTenant(name: string, change: TenantChange, ifMatch?: Precondition): Promise<TenantView> {
    const tenant = await this.#parts.tenants.set(name, {
      ifMatch,
      quota: change.quota ?? {},
      domains: change.domains,
      state: change.state,
      address: change.address,
    });
    await this.#parts.edge.publish(); // Its routes may have come or gone.
    return await this.#tenantView(tenant);
  }

  async removeTenant(name: string, ifMatch?: Precondition): Promise<void> {
    await this.#parts.tenants.remove(name, ifMatch);
  }

  async tenantEnv(name: string): Promise<TenantEnv> {
    const certPath = await this.#parts.tenants.certificateFolder(name);
    const docker = this.#parts.config.listen.docker;
    if (docker === undefined) throw controlError(409, 'this node has no Docker endpoint', 'set listen.docker');
    const { address } = await this.#parts.tenants.get(name);
    const shared = docker.host === '0.0.0.0' || docker.host === '::' ? 'localhost' : docker.host;
    const host = address === '' ? shared : address; // Clients look for published ports at the host of DOCKER_HOST.
    return { dockerHost: `tcp://${host}:${String(docker.port)}`, certPath };
  }

  async containers(filter: ContainerFilter): Promise<readonly ContainerView[]> {
    const byName = await this.#tenantsByName();
    const rows = (await this.#parts.containers.list()).filter(
      (row) =>
        row.state !== 'creating' &&
        (filter.tenant === undefined || row.tenant === filter.tenant) &&
        (filter.all || ['running', 'paused', 'restarting'].includes(row.state)),
    );
    return rows.map((row) => this.#containerView(row, byName));
  }

  async container(reference: string): Promise<ContainerView> {
    return this.#containerView(await this.#find(reference), await this.#tenantsByName());
  }

  async explainContainer(reference: string): Promise<ContainerExplanation> {
    return explanationOf(await this.#find(reference));
  }

  async readings(): Promise<readonly ContainerReading[]> {
    const rows = new Map((await this.#parts.containers.list()).map((row) => [row.id, row]));
    return this.#parts.meter.readings().flatMap(({ container, ...counters }) => {
      const row = rows.get(container);
      if (row === undefined || row.state === 'exited') return [];
      return [{ id: row.id, tenant: row.tenant, name: row.name, host: row.host, ...counters }];
    });
  }

  async usage(query: {
    readonly tenant: string | undefined;
    readonly sinceMs: number;
    readonly untilMs: number;
    readonly by: UsageGrouping;
  }): Promise<readonly UsageTotal[]> {
    await this.#flush();
    return await this.#parts.books.keeper.usage(query);
  }

  async migrate(
    reference: string,
    { to, endSessions, ifMatch }: MigrateOrder,
    onProgress: (progress: MigrationProgress) => void,
  ): Promise<MigrationReport> {
    const row = await this.#find(reference);
    try {
      const report = await this.#parts.migrations.migrate(row.id, to, onProgress, {
        cause: 'order',
        endSessions,
        confirm: (now) => {
          checkPrecondition(ifMatch, explanationOf(now), `the placement of container ${now.name}`);
        },
      });
      this.#parts.metrics?.countMigration('done');
      return { ...report, container: `${row.tenant}/${row.name}` };
    } catch (error) {
      const isRefusal = error instanceof EcluseError && MOVE_REFUSALS.has(error.code);
      this.#parts.metrics?.countMigration(isRefusal ? 'refused' : 'failed');
      throw error;
    }
  }

  async cancelMigration(reference: string): Promise<void> {
    const row = await this.#find(reference);
    if (!this.#parts.migrations.cancel(row.id))
      throw controlError(409, `container ${row.name} is not being moved`, 'see what is under way with: ecluse events');
  }

  async suspend(reference: string): Promise<SleepReport> {
    const row = await this.#find(reference);
    return { ...(await this.#parts.sleepers.suspend(row.id)), container: `${row.tenant}/${row.name}` };
  }

  async wake(reference: string): Promise<WakeReport> {
    const row = await this.#find(reference);
    return { ...(await this.#parts.sleepers.wake(row.id)), container: `${row.tenant}/${row.name}` };
  }

  async clone(reference: string, count: number): Promise<CloneReport> {
    const row = await this.#find(reference);
    return { ...(await this.#parts.clones.clone(row.id, count)), container: `${row.tenant}/${row.name}` };
  }

  async host(name: string): Promise<HostSettings> {
    return settingsOfHost(await findHost(this.#parts.sql, name));
  }

  async drainHost(
    name: string,
    { dryRun, endSessions, ifMatch }: DrainHostOrder,
    onProgress: (progress: FleetProgress) => void,
  ): Promise<DrainReport> {
    const say = (text: string): void => {
      onProgress({ text });
    };
    return await this.#parts.fleet.drain(name, { dryRun, endSessions, say, confirm: confirmHost(ifMatch) });
  }

  async undrainHost(name: string, ifMatch?: Precondition): Promise<{ readonly host: string; readonly state: HostState }> {
    return await this.#parts.fleet.undrain(name, confirmHost(ifMatch));
  }

  async rebalance({ dryRun }: PlanOrder, onProgress: (progress: FleetProgress) => void): Promise<RebalanceReport> {
    const say = (text: string): void => {
      onProgress({ text });
    };
    return await this.#parts.fleet.rebalance({ dryRun, say });
  }

  async snapshot(reference: string): Promise<SnapshotReport> {
    const row = await this.#find(reference);
    return { ...(await this.#parts.snapshots.take(row.id, 'copy')), container: `${row.tenant}/${row.name}` };
  }

  async snapshots(): Promise<readonly SnapshotView[]> {
    return (await this.#parts.snapshots.list()).map(snapshotView);
  }

  async findSnapshot(reference: string): Promise<SnapshotView> {
    const snapshot = await this.#findSnapshot(reference);
    if (snapshot === undefined) throw controlError(404, `no snapshot is called ${reference}`, 'see: ecluse snapshot ls');
    return snapshotView(snapshot);
  }

  async removeSnapshot(reference: string, ifMatch?: Precondition): Promise<void> {
    const snapshot = await this.findSnapshot(reference);
    // It is what it was when it was made: between this line and the next it can be gone, never another.
    checkPrecondition(ifMatch, snapshot, `snapshot ${snapshot.id}`);
    await this.#parts.snapshots.remove(snapshot.id);
  }

  /** A container's name comes before a snapshot's id, which comes before a container's. */
  async restore(reference: string, target: string | undefined): Promise<RestoreReport> {
    const isName = (await this.#parts.containers.list()).some(({ name }) => name === reference);
    const snapshot = isName ? undefined : await this.#findSnapshot(reference);
    const row = await this.#find(snapshot?.container ?? reference);
    const report = await this.#parts.restores.restore(row.id, snapshot?.id, target);
    return { ...report, container: `${row.tenant}/${row.name}` };
  }

  async changes(cursor: number, limit: number): Promise<readonly Change[]> {
    return await readChanges(this.#parts.sql, cursor, limit);
  }

  /** What is being counted goes into the ledger first, so that an answer is of this moment. */
  async #flush(): Promise<void> {
    const { meter } = this.#parts;
    await Promise.all(meter.readings().map(async ({ container }) => await meter.flush(container)));
  }

  async #tenantView(tenant: Tenant): Promise<TenantView> {
    return { ...tenant, containers: (await this.#parts.containers.listOf(tenant.name)).length };
  }

  async #tenantsByName(): Promise<ReadonlyMap<string, Tenant>> {
    return new Map((await this.#parts.tenants.list()).map((tenant) => [tenant.name, tenant]));
  }

  #containerView(row: ContainerRow, byName: ReadonlyMap<string, Tenant>): ContainerView {
    return {
      id: row.id,
      tenant: row.tenant,
      name: row.name,
      image: parseStoredSpec(row.spec).config.Image,
      host: row.host,
      state: row.state,
      status: statusText(row, undefined, this.#parts.clock.nowMs()).replace(
        /\(Paused\)$/,
        row.snapshot === '' ? '(Paused)' : '(asleep)',
      ),
      createdMs: row.createdMs,
      startedMs: row.startedMs,
      address: row.address,
      routes: this.#urlsOf(row, byName),
      incarnation: row.incarnation,
      memoryLimitBytes: row.memoryBytes,
    };
  }

  /** Id, id prefix, TENANT/NAME, or a NAME that only one tenant uses. */
  async #find(reference: string): Promise<ContainerRow> {
    const rows = (await this.#parts.containers.list()).filter((row) => row.state !== 'creating');
    const [tenant, name] = reference.includes('/') ? reference.split('/', 2) : [undefined, reference];
    const named = rows.filter((row) => row.name === name && (tenant === undefined || row.tenant === tenant));
    const found = named.length > 0 || !PREFIX.test(reference) ? named : rows.filter((row) => row.id.startsWith(reference));
    const [first, second] = found;
    if (first === undefined) throw controlError(404, `no container is called ${reference}`, 'see: ecluse ps -a');
    if (second !== undefined)
      throw controlError(
        409,
        `${reference} is the name of several containers`,
        `say which: ${found.map((row) => `${row.tenant}/${row.name}`).join(' or ')}`,
      );
    return first;
  }

  /** By its id, or the beginning of it. */
  async #findSnapshot(reference: string): Promise<SnapshotRow | undefined> {
    if (!SNAPSHOT_PREFIX.test(reference)) return undefined;
    const [first, second] = (await this.#parts.snapshots.list()).filter(({ id }) => id.startsWith(reference));
    if (second !== undefined)
      throw controlError(409, `several snapshots begin with ${reference}`, 'write more of the id; see: ecluse snapshot ls');
    return first;
  }

  #urlsOf(row: ContainerRow, byName: ReadonlyMap<string, Tenant>): readonly string[] {
    const tenant = byName.get(row.tenant);
    const https = this.#parts.config.listen.https;
    if (tenant === undefined || https === undefined) return [];
    const wanted = wantedRoutes(row.name, parseStoredSpec(row.spec), tenant, this.#parts.live.config.domain);
    const port = https.port === 443 ? '' : `:${String(this.#parts.pool.listening.https?.port ?? https.port)}`;
    return wanted.kind === 'refused' ? [] : wanted.routes.map((route) => `https://${route.host}${port}${route.path}`);
  }
}

function controlError(status: number, message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_CONTROL_REFUSED', source: 'usage', status, message, mend });
}
