/**
 * What an operator can see and change of a running node: implemented by the node, called by the admin API, and offered again on the
 * other side of the socket by the client. Everything but `onProgress` is plain data.
 */
import type { CertificateControl } from './certificate-control.ts';
import type { EdgeControl } from './edge-control.ts';
import type { LedgerControl, PriceControl } from './metering-control.ts';
import type { Precondition } from './entity-tag.ts';
import type { PlacementRecord } from '#caas/placement.ts';
import type { DrainReport } from '#caas/rebalance/drain.ts';
import type { RebalanceReport } from '#caas/rebalance/rebalancer.ts';
import type { CloneReport } from '#caas/snapshots/clones.ts';
import type { RestoreReport } from '#caas/snapshots/restores.ts';
import type { SnapshotReport } from '#caas/snapshots/snapshots.ts';
import type { SleepReport, WakeReport } from '#caas/sleep/sleepers.ts';
import type { MigrationReport } from '#caas/migration/move.ts';
import type { MigrationProgress } from '#caas/migration/move-times.ts';
import type { UsageGrouping, UsageTotal } from '#caas/usage.ts';
import type { Change } from '#state/change-log.ts';
import type { ContainerState } from '#state/containers.ts';
import type { HostState } from '#state/hosts.ts';
import type { Tenant, TenantQuota } from '#state/tenants.ts';

export interface HostView {
  readonly name: string;
  /** `managed`, or `unix:///path`. */
  readonly engine: string;
  readonly state: 'up' | 'down';
  /** Whether it is given containers. */
  readonly use: HostState;
  /** Undefined while the engine does not answer. */
  readonly engineVersion: string | undefined;
  readonly containers: number;
  readonly memoryBytes: number;
  readonly cpus: number;
}

/** What may be changed of a host. What its engine says is in `HostView`. */
export interface HostSettings {
  readonly name: string;
  /** `managed`, or `unix:///path`. */
  readonly engine: string;
  readonly use: HostState;
}

export interface UpgradeBegun {
  /** The one that goes. */
  readonly generation: number;
  readonly pid: number;
}

/** What became of a file that was read again. Keys by their paths. */
export interface ReloadReport {
  readonly file: string;
  readonly applied: readonly string[];
  /** They changed in the file, and take effect with an upgrade or a restart only. */
  readonly needsRestart: readonly string[];
  readonly unchanged: readonly string[];
  /** Processes of the workers that have what was applied. */
  readonly workers: readonly number[];
}

export interface NodeStatus {
  readonly version: string;
  readonly pid: number;
  readonly startedMs: number;
  readonly dataDir: string;
  /** Addresses as `HOST:PORT`; undefined: closed. */
  readonly listen: {
    readonly http: string | undefined;
    readonly https: string | undefined;
    readonly docker: string | undefined;
    readonly metrics: string | undefined;
  };
  readonly configVersion: number;
  /** `version`: the config version that the worker serves. */
  readonly workers: readonly { readonly pid: number; readonly version: number }[];
  /** Counts the primaries of this node, from 1. */
  readonly generation: number;
  /** Workers of earlier ones, which end when their connections have. */
  readonly retiring: readonly { readonly pid: number; readonly generation: number }[];
  readonly hosts: readonly HostView[];
}

export interface TenantView extends Tenant {
  /** How many it has. */
  readonly containers: number;
}

export interface TenantRequest {
  readonly name: string;
  /** Where its published ports are; absent: at the address of the Docker endpoint. */
  readonly address?: string;
  readonly quota?: Partial<TenantQuota>;
  readonly domains?: readonly string[];
}

/** What is absent stays as it is; `domains` replaces the whole list. */
export interface TenantChange {
  /** Empty: that of the Docker endpoint. */
  readonly address?: string;
  readonly quota?: Partial<TenantQuota>;
  readonly domains?: readonly string[];
  readonly state?: 'active' | 'suspended';
}

export interface TenantEnv {
  readonly dockerHost: string;
  /** A directory with ca.pem, cert.pem and key.pem. */
  readonly certPath: string;
}

export interface ContainerFilter {
  /** Also those that do not run. */
  readonly all: boolean;
  readonly tenant: string | undefined;
}

export interface ContainerView {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly image: string;
  readonly host: string;
  readonly state: ContainerState;
  /** As Docker says it: `Up 5 minutes`. */
  readonly status: string;
  readonly createdMs: number;
  readonly startedMs: number | undefined;
  readonly address: string;
  /** `https://…` addresses that lead to it. */
  readonly routes: readonly string[];
  readonly incarnation: number;
  readonly memoryLimitBytes: number;
}

/** Why a container is where it is. */
export interface ContainerExplanation {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  /** Where it is now: another host than the placement's where it was moved. */
  readonly host: string;
  /** Undefined for one that was made before decisions were kept. */
  readonly placement: PlacementRecord | undefined;
}

/** A container's counters at one moment; two of them make a rate. */
export interface ContainerReading {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly host: string;
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly sampledMs: number;
}

/** A snapshot that is kept. */
export interface SnapshotView {
  readonly id: string;
  readonly tenant: string;
  /** The container's name when it was made. */
  readonly name: string;
  readonly container: string;
  /** Where the container was then. */
  readonly host: string;
  readonly kind: 'manual' | 'automatic';
  readonly createdMs: number;
  readonly imageBytes: number;
  /** On disk: memory and files, sealed. */
  readonly keptBytes: number;
  /** The runsc that wrote it, and can read it. */
  readonly runtime: string;
}

export interface UsageQuery {
  readonly tenant: string | undefined;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly by: UsageGrouping;
}

export interface PlanOrder {
  /** The plan alone; nothing is changed. */
  readonly dryRun: boolean;
}

export interface MigrateOrder {
  readonly to: string;
  /** Whether open exec sessions are ended for it; otherwise they keep the container where it is. */
  readonly endSessions: boolean;
  /** Tags of the container's placement. */
  readonly ifMatch?: Precondition;
}

/** `ifMatch`: tags of `HostSettings`. */
export interface DrainHostOrder extends PlanOrder, Pick<MigrateOrder, 'endSessions' | 'ifMatch'> {}

/** A line of what is being done. */
export interface FleetProgress {
  readonly text: string;
}

export interface NodeControl {
  readonly edge: EdgeControl;
  readonly certificates: CertificateControl;
  readonly ledger: LedgerControl;
  readonly prices: PriceControl;

  status(): Promise<NodeStatus>;
  /** Reads the configuration again, and changes what can change while the node runs. Errors: ECLUSE_CONFIG_INVALID and others; nothing was changed. */
  reload(): Promise<ReloadReport>;
  /** Puts the program that lies on the disk in the place of this one, when this call is answered. Errors: ECLUSE_UPGRADE_REFUSED, nothing was changed. */
  upgrade(order: { readonly drainMs?: number }): Promise<UpgradeBegun>;
  tenants(): Promise<readonly TenantView[]>;
  /** What may be changed of a tenant. */
  tenant(name: string): Promise<Tenant>;
  addTenant(request: TenantRequest): Promise<TenantView>;
  /** Errors: ECLUSE_PRECONDITION_FAILED where the tenant has none of the tags; nothing was changed. */
  setTenant(name: string, change: TenantChange, ifMatch?: Precondition): Promise<TenantView>;
  /** Errors: as above. */
  removeTenant(name: string, ifMatch?: Precondition): Promise<void>;
  tenantEnv(name: string): Promise<TenantEnv>;
  containers(filter: ContainerFilter): Promise<readonly ContainerView[]>;
  /** `container` as for `migrate`. */
  container(container: string): Promise<ContainerView>;
  explainContainer(container: string): Promise<ContainerExplanation>;
  readings(): Promise<readonly ContainerReading[]>;
  usage(query: UsageQuery): Promise<readonly UsageTotal[]>;
  /** `container`: an id, a prefix of one, NAME where it is the only one, or TENANT/NAME. */
  migrate(container: string, order: MigrateOrder, onProgress: (progress: MigrationProgress) => void): Promise<MigrationReport>;
  /** Calls a move off that was not committed. */
  cancelMigration(container: string): Promise<void>;
  /** Puts a container to sleep: its memory on disk, no process, woken by the next request. */
  suspend(container: string): Promise<SleepReport>;
  wake(container: string): Promise<WakeReport>;
  /** Makes warm copies of a running container. */
  clone(container: string, count: number): Promise<CloneReport>;
  host(name: string): Promise<HostSettings>;
  /** Takes a host out of use and moves what runs there away. */
  drainHost(host: string, order: DrainHostOrder, onProgress: (progress: FleetProgress) => void): Promise<DrainReport>;
  undrainHost(host: string, ifMatch?: Precondition): Promise<{ readonly host: string; readonly state: HostState }>;
  /** Plans the moves that are worth their cost, and makes them. */
  rebalance(order: PlanOrder, onProgress: (progress: FleetProgress) => void): Promise<RebalanceReport>;
  /** Keeps memory, files and volumes of a running container as they are now. */
  snapshot(container: string): Promise<SnapshotReport>;
  /** The oldest first. */
  snapshots(): Promise<readonly SnapshotView[]>;
  /** `snapshot`: its id, or the beginning of it. */
  findSnapshot(snapshot: string): Promise<SnapshotView>;
  removeSnapshot(snapshot: string, ifMatch?: Precondition): Promise<void>;
  /** `reference`: a snapshot, or a container for its newest one. `target` undefined: a host is chosen. */
  restore(reference: string, target: string | undefined): Promise<RestoreReport>;
  /** Changes after the cursor, oldest first. */
  changes(cursor: number, limit: number): Promise<readonly Change[]>;
}
