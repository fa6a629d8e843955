/** The container side of a node: everything of `caas/` that is wired together once, over the hosts and the store. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ContainerCreation } from '#caas/container-creation.ts';
import { Containers } from '#caas/containers.ts';
import { TenantSockets } from '#caas/docker-api/tenant-socket.ts';
import { DiskPlaces } from '#caas/disk-places.ts';
import { Events } from '#caas/events.ts';
import { HostLoads } from '#caas/host-loads.ts';
import { scopeOf } from '#caas/host.ts';
import type { Host } from '#caas/host.ts';
import { Images } from '#caas/images/images.ts';
import { Meter } from '#caas/meter.ts';
import { openTlsTransfers, sharedTransfers } from '#caas/migration/image-transfer.ts';
import type { ImageTransfers } from '#caas/migration/image-transfer.ts';
import { Migrations } from '#caas/migration/migration.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import { Networks } from '#caas/networks/networks.ts';
import { PublishedPorts } from '#caas/ports/published-ports.ts';
import type { Sleep } from '#caas/sleep/sleep.ts';
import { recoverSnapshots } from '#caas/sleep/sleep-recovery.ts';
import { Sleepers } from '#caas/sleep/sleepers.ts';
import { Clones } from '#caas/snapshots/clones.ts';
import { LeftBehind } from '#caas/snapshots/left-behind.ts';
import { Restores } from '#caas/snapshots/restores.ts';
import { SaveDebts } from '#caas/snapshots/save-debts.ts';
import { Snapshots } from '#caas/snapshots/snapshots.ts';
import { Volumes } from '#caas/volumes/volumes.ts';
import type { Clock } from '#clock';
import type { NodeConfig } from '#config';
import type { Cgroups } from '#isolation/cgroup.ts';
import { mountMemoryFolder } from '#isolation/memory-folder.ts';
import { SnapshotVault } from '#isolation/snapshot-vault.ts';
import type { Log } from '#log';
import type { Activator } from '#routing/activator.ts';
import type { Sql } from '#state/sql.ts';
import type { Authority } from '#tls/authority.ts';
import { openRegistry } from './node-registry.ts';

export interface ContainerPlaneDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly cgroups: Cgroups;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly fabric: NetworkFabric;
  readonly activator: Activator;
  readonly authority: Authority;
  /** Of hosts of containers, as it is now. */
  readonly domain: () => string;
}

export interface ContainerPlane {
  readonly events: Events;
  readonly images: Images;
  readonly meter: Meter;
  readonly networks: Networks;
  readonly ports: PublishedPorts;
  readonly volumes: Volumes;
  readonly sockets: TenantSockets;
  readonly containers: Containers;
  readonly creation: ContainerCreation;
  readonly migrations: Migrations;
  readonly places: DiskPlaces;
  readonly sleepers: Sleepers;
  readonly clones: Clones;
  readonly snapshots: Snapshots;
  readonly restores: Restores;
  /** Finishes or undoes what a daemon that died left of moves and snapshots. Before anything serves. */
  readonly recover: () => Promise<void>;
}

const MEMORY_BACKED = '/dev/shm';

/** Builds the parts in the order in which they need each other. What must end with the node goes on `stack`. */
export async function openContainerPlane(
  deps: ContainerPlaneDeps,
  config: NodeConfig,
  stack: AsyncDisposableStack,
): Promise<ContainerPlane> {
  const { log, clock, sql, hosts, fabric, activator } = deps;
  const events = new Events(clock);
  const registry = stack.use(await openRegistry(deps, config.registries));
  const images = new Images({ log, clock, sql, hosts, events, registry });
  stack.use(images.collector.start());
  const imageFolder = join(MEMORY_BACKED, `ecluse-${scopeOf(config.dataDir)}`);
  const memory = stack.use(await mountMemoryFolder(imageFolder));
  const meter = await Meter.open(deps);
  stack.use(meter);
  const apply = async (tenant: string): Promise<void> => {
    await fabric.refresh(tenant);
  };
  const networks = new Networks({ clock, sql, events, apply });
  const ports = openPorts(deps, config);
  const sockets = new TenantSockets({ log }, join(config.dataDir, 'sockets'));
  stack.use(sockets);
  const volumes = new Volumes({ log, clock, sql, hosts, events, sockets });
  const shared = { log, clock, sql, hosts, meter, activator, fabric, volumes };
  const sleep = sleepOf(
    () => sleepers,
    () => snapshots,
  );
  const containers = new Containers({ ...shared, images, events, networks, ports, sleep });
  const loads = new HostLoads({ log, clock, sql, hosts, images, meter });
  const debts = stack.use(new SaveDebts({ log, clock, sql, locks: containers.locks }));
  const creation = new ContainerCreation({ ...shared, containers, images, networks, loads, debts, domain: deps.domain });
  const transfers = stack.use(await openTransfers(deps, config, imageFolder));
  const warm = async (bytes: number): Promise<AsyncDisposable> => await memory.warm(bytes);
  const atOnce = config.migration.concurrency;
  const migrations = new Migrations({ ...shared, containers, imageFolder, transfers, warm, atOnce });
  const vault = await SnapshotVault.open(join(config.dataDir, 'snapshots'));
  const places = new DiskPlaces({ sql, hosts, containers, sleepsLightly: (id) => sleepers.sleepsLightly(id) });
  const sleepers = new Sleepers({ ...shared, containers, places, vault, debts, imageFolder });
  stack.use(sleepers);
  const stagingFolder = join(config.dataDir, 'staging');
  await rm(stagingFolder, { recursive: true, force: true }); // Of copies that a crash interrupted.
  const clones = new Clones({ ...shared, containers, creation, debts, imageFolder, stagingFolder, domain: deps.domain });
  const snapshots = new Snapshots({ ...shared, containers, images, vault, debts, imageFolder, stagingFolder });
  const leftBehind = new LeftBehind({ log, clock });
  stack.use(leftBehind);
  const folders = { imageFolder, stagingFolder };
  const restores = new Restores({ ...shared, ...folders, containers, loads, ports, vault, snapshots, leftBehind });
  const recovery = { log, clock, sql, hosts, containers, vault };
  return {
    events,
    images,
    meter,
    networks,
    ports,
    volumes,
    sockets,
    containers,
    creation,
    migrations,
    places,
    sleepers,
    clones,
    snapshots,
    restores,
    recover: async () => {
      await migrations.recover();
      await recoverSnapshots(recovery);
    },
  };
}

/** Names in the certificates of the two ends; no tenant's certificate can carry the second, and the first is no host of a route. */
const TARGET_NAME = 'target.migration.ecluse.internal';
const SOURCE_NAME = 'migration@source';
const TRANSFER_CERTIFICATE_DAYS = 825;

async function openTransfers(
  { cgroups, authority }: ContainerPlaneDeps,
  { migration }: NodeConfig,
  imageFolder: string,
): Promise<ImageTransfers> {
  if (migration.transfer === 'shared') return sharedTransfers;
  const days = TRANSFER_CERTIFICATE_DAYS;
  const target = await authority.issueServer({ names: [TARGET_NAME], days });
  const source = await authority.issueClient({ commonName: SOURCE_NAME, days });
  return await openTlsTransfers(cgroups, {
    imageFolder,
    sourceTls: { caPem: authority.caPem, certPem: source.certPem, keyPem: source.keyPem, peerName: TARGET_NAME },
    targetTls: { caPem: authority.caPem, certPem: target.certPem, keyPem: target.keyPem, peerName: SOURCE_NAME },
    bandwidthBytesPerSecond: migration.bandwidth,
    migrationsMax: migration.concurrency,
  });
}

/** Containers and who saves them need each other: the second is asked when it is there. */
function sleepOf(sleepers: () => Sleepers, snapshots: () => Snapshots): Sleep {
  return {
    settle: async (id) => {
      await sleepers().settle(id);
    },
    wakeLocked: async (row) => {
      await sleepers().wakeLocked(row);
    },
    forget: async (row) => {
      await sleepers().forget(row);
    },
    forgetKept: async (id) => {
      await snapshots().forgetOf(id);
    },
  };
}

function openPorts({ log, clock, sql, activator }: ContainerPlaneDeps, { listen }: NodeConfig): PublishedPorts {
  const { http, https, docker, metrics } = listen;
  return new PublishedPorts({
    log,
    clock,
    sql,
    docker,
    reserved: [http, https, docker, metrics].filter((address) => address !== undefined),
    publish: async () => {
      await activator.publish();
    },
  });
}
