/**
 * A container that is lost, with its host or otherwise, comes back from a snapshot: under its id, name and hosts, with the memory, the files and the
 * volumes of that moment.
 *
 * LIFECYCLE (journaled in state/restores.ts)
 *
 *   preparing   snapshot unsealed, engine container and volumes made on the target and filled, image staged, started, probed
 *   committed   ONE store batch flips placement, address, volumes and billing
 *   done        what was left of the old container is gone, or will be when its engine answers
 *   rolled-back any failure before `committed`: what was made is taken away; the old is as it was
 *
 * INVARIANT: nothing of the container runs when its restore begins, and nothing of the old one is touched before the commit.
 */
import { randomUUID } from 'node:crypto';
import { rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { checkImageRoom, stageImage } from '#isolation/checkpoint.ts';
import type { SnapshotVault } from '#isolation/snapshot-vault.ts';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import { setMigrationAddress, setMigrationTarget } from '#state/migrations.ts';
import { beginRestore, commitRestore, endRestore } from '#state/restores.ts';
import type { RestoreJournal } from '#state/restores.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import { lifeOf } from '#caas/container-life.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { cgroupPrefixOf } from '#caas/host.ts';
import type { Host } from '#caas/host.ts';
import { incarnationBaseOf } from '#caas/incarnation-base.ts';
import type { HostLoads } from '#caas/host-loads.ts';
import type { Meter } from '#caas/meter.ts';
import { LogCopy } from '#caas/migration/log-copy.ts';
import { untilServes } from '#caas/migration/migration-probe.ts';
import { removeCopy, removeNamed } from '#caas/engine/engine-copy.ts';
import { MoveTimes } from '#caas/migration/move-times.ts';
import type { PhaseTime } from '#caas/migration/move-times.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import { place } from '#caas/placement.ts';
import type { PublishedPorts } from '#caas/ports/published-ports.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { engineMountsOf, sharedVolumesOf } from '#caas/volumes/volume-moves.ts';
import { hostOfVolumes } from '#caas/volumes/volume-planning.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import { isArchive, OWN_FILES, unpackTree } from './file-archive.ts';
import type { LeftBehind } from './left-behind.ts';
import { restoreRefusalOf, targetRefusalOf } from './restore-check.ts';
import type { LastPlace } from './restore-check.ts';
import { dropVolumesOf, makeVolumes, planVolumes, replaceVolumeWrites } from './restore-volumes.ts';
import type { RestoredVolume } from './restore-volumes.ts';
import type { Snapshots } from './snapshots.ts';
import { upperOf } from './upper-directory.ts';

export interface RestoresDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly loads: HostLoads;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly fabric: NetworkFabric;
  readonly ports: PublishedPorts;
  readonly volumes: Volumes;
  readonly vault: SnapshotVault;
  readonly snapshots: Snapshots;
  readonly leftBehind: LeftBehind;
  readonly imageFolder: string;
  readonly stagingFolder: string;
}

export interface RestoreReport {
  readonly container: string;
  readonly snapshot: string;
  /** The moment that it goes on from. */
  readonly takenMs: number;
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  readonly imageBytes: number;
  /** Of the snapshot on disk: memory and files. */
  readonly keptBytes: number;
  readonly phases: readonly PhaseTime[];
  /** What is not of that moment. */
  readonly notes: readonly string[];
}

/** A restore of many gigabytes of memory. */
const START_PATIENCE_MS = 600_000;
const DISK_RESERVE_BYTES = 1024 ** 3;

/** What is known before anything is touched. */
interface Plan {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly snapshot: SnapshotRow;
  readonly target: Host;
  readonly last: LastPlace;
  readonly volumes: readonly RestoredVolume[];
  readonly journal: RestoreJournal;
  readonly imageDir: string;
  readonly stagingDir: string;
  readonly times: MoveTimes;
}

export class Restores {
  readonly #deps: RestoresDeps;

  constructor(deps: RestoresDeps) {
    this.#deps = deps;
  }

  /**
   * Restores a container, from its newest snapshot where none is named, on a host that is named or chosen. Errors: ECLUSE_RESTORE_REFUSED (nothing was
   * touched), ECLUSE_RESTORE_FAILED (everything is as it was).
   */
  async restore(id: string, snapshotId: string | undefined, targetName: string | undefined): Promise<RestoreReport> {
    const { containers, clock } = this.#deps;
    return await containers.locks.run(id, async () => {
      const plan = await this.#check(id, snapshotId, targetName);
      containers.events.hush(id, clock.nowMs());
      try {
        await this.#run(plan);
      } finally {
        containers.events.loud(id, clock.nowMs());
      }
      containers.events.publish(plan.row, 'start');
      const { snapshot, row, target, times, volumes } = plan;
      const kept = volumes.filter(({ fate }) => fate === 'keep');
      const { createdMs: takenMs, imageBytes, fileBytes: keptBytes } = snapshot;
      return {
        container: id,
        snapshot: snapshot.id,
        takenMs,
        from: row.host,
        to: target.name,
        totalMs: times.totalMs(),
        imageBytes,
        keptBytes,
        phases: times.phases(),
        notes: kept.map(({ row: volume }) => `volume ${volume.name} has other containers and stays as it is`),
      };
    });
  }

  async #check(id: string, snapshotId: string | undefined, targetName: string | undefined): Promise<Plan> {
    const { containers, meter, snapshots, sql, clock, imageFolder, stagingFolder } = this.#deps;
    // As for a move: an incarnation is renewed before the row is read.
    await meter.flush(id);
    const row = await containers.find(id);
    if (row === undefined) throw refused(`container ${id.slice(0, 12)} does not exist`, 'see: ecluse ps -a');
    const kept = await snapshots.listOf(id);
    const snapshot = snapshotId === undefined ? kept.at(-1) : kept.find((one) => one.id === snapshotId);
    if (snapshot === undefined) throw refused(`container ${row.name} has no such snapshot`, 'see: ecluse snapshot ls');
    const spec = parseStoredSpec(row.spec);
    const answering = await this.#answering();
    const last = await this.#lastPlaceOf(row, answering);
    const refusal = restoreRefusalOf(row, last, await this.#livingOf(row));
    if (refusal !== undefined) throw refused(refusal.why, refusal.mend);
    const volumes = await planVolumes(sql, row, spec.mounts, async (host) => answering.some(({ name }) => name === host));
    const target = await this.#chooseTarget({ row, spec, volumes, answering }, targetName);
    const unreadable = targetRefusalOf(snapshot, { name: target.name, runscVersion: target.runsc.version });
    if (unreadable !== undefined) throw refused(unreadable.why, unreadable.mend);
    await this.#checkRoom(snapshot);
    const journal: RestoreJournal = {
      id: randomUUID(),
      container: row.id,
      sourceHost: row.host,
      targetHost: target.name,
      sourceEngineId: row.engineId,
      targetEngineId: undefined,
      state: 'preparing',
      snapshot: snapshot.id,
    };
    const places = { imageDir: join(imageFolder, journal.id), stagingDir: join(stagingFolder, journal.id) };
    const times = new MoveTimes(clock, () => undefined);
    return { row, spec, snapshot, target, last, volumes, journal, ...places, times };
  }

  async #answering(): Promise<readonly Host[]> {
    const hosts = [...this.#deps.hosts.values()];
    const alive = await Promise.all(hosts.map(async (host) => await host.client.isAlive()));
    return hosts.filter((_, index) => alive[index] === true);
  }

  async #lastPlaceOf(row: ContainerRow, answering: readonly Host[]): Promise<LastPlace> {
    const { hosts, containers } = this.#deps;
    if (!hosts.has(row.host)) return { kind: 'unknown-host' };
    if (!answering.some(({ name }) => name === row.host)) return { kind: 'silent' };
    // An engine that is asked about a container that it is starting answers when that start ends: a sleep is refused without it.
    return { kind: 'answers', inspect: row.snapshot === '' ? await containers.inspectEngine(row) : undefined };
  }

  /** Processes of the container, on a host of this machine that may be none of the node's any more. */
  async #livingOf(row: ContainerRow): Promise<readonly number[]> {
    const [any] = this.#deps.hosts.values();
    if (any === undefined || row.engineId === '') return [];
    const prefix = cgroupPrefixOf({ name: row.host, network: any.network });
    return await any.cgroups.processesIn(`${prefix}/${row.tenant}/${row.id}`);
  }

  async #chooseTarget(
    { row, spec, volumes, answering }: Pick<Plan, 'row' | 'spec' | 'volumes'> & { readonly answering: readonly Host[] },
    name: string | undefined,
  ): Promise<Host> {
    const { containers, loads, clock } = this.#deps;
    const kept = volumes.filter(({ fate }) => fate === 'keep').map(({ row: volume }) => ({ ...volume, users: 1 }));
    const where = hostOfVolumes(kept);
    if (where.kind === 'apart') {
      throw refused(
        `volumes ${where.one} and ${where.other} are on different hosts, with other containers`,
        'remove the containers that use one of them',
      );
    }
    if (name === undefined) {
      const facts = await loads.facts(await containers.list(), { tenant: row.tenant, spec }, answering);
      const result = place(facts, { memoryBytes: row.memoryBytes, volumeHost: where.hostName }, clock.nowMs());
      if (result.kind === 'placed') return containers.hostNamed(result.record.host);
      throw refused(
        `no host can take container ${row.name}: ${result.reasons.join('; ')}`,
        'make room, or name a host with --to',
      );
    }
    const target = answering.find((host) => host.name === name);
    const known = [...this.#deps.hosts.keys()];
    if (target === undefined)
      throw refused(
        `host ${name} ${known.includes(name) ? 'does not answer' : 'does not exist'}`,
        `choose one of: ${known.join(', ')}`,
      );
    if (where.hostName !== undefined && where.hostName !== name)
      throw refused(
        `a volume of container ${row.name} is on host ${where.hostName}, with other containers`,
        `use --to ${where.hostName}`,
      );
    return target;
  }

  async #checkRoom({ imageBytes, fileBytes }: SnapshotRow): Promise<void> {
    await checkImageRoom(this.#deps.imageFolder, imageBytes);
    const { bavail, bsize } = await statfs(dirname(this.#deps.stagingFolder));
    // As archives, and where they belong.
    const neededBytes = 2 * Math.max(0, fileBytes - imageBytes) + DISK_RESERVE_BYTES;
    if (bavail * bsize < neededBytes)
      throw refused(
        `the data directory has ${String(bavail * bsize)} bytes free, and the restore needs ${String(neededBytes)}`,
        'free space there, or remove snapshots: ecluse snapshot rm',
      );
  }

  async #run(plan: Plan): Promise<void> {
    const { clock, sql, log, fabric } = this.#deps;
    const { row, journal, imageDir, stagingDir } = plan;
    await using scratch = new AsyncDisposableStack();
    for (const folder of [imageDir, stagingDir]) scratch.defer(async () => await rm(folder, { recursive: true, force: true }));
    const undo = new AsyncDisposableStack();
    const deferLogged = (step: string, work: () => Promise<unknown>): void => {
      undo.defer(async () => {
        await work().catch((error: unknown) => {
          log.error({ container: row.id, step, reason: reasonOf(error) }, 'a step back from a restore failed');
        });
      });
    };
    try {
      await this.#unseal(plan);
      if ((await beginRestore(sql, journal, clock.nowMs())).kind === 'conflict')
        throw refused(`container ${row.name} is being moved`, 'wait for that');
      deferLogged('journal', async () => {
        await endRestore(sql, journal, 'rolled-back', clock.nowMs());
        await fabric.refresh(row.tenant);
      });
      await this.#commit(plan, await this.#revive(plan, deferLogged));
    } catch (error) {
      await undo.disposeAsync();
      if (
        error instanceof EcluseError &&
        (error.code === 'ECLUSE_RESTORE_REFUSED' || error.code === 'ECLUSE_SNAPSHOT_UNREADABLE')
      )
        throw error;
      throw failed(`container ${row.name} is as it was: ${reasonOf(error)}`, error);
    }
    undo.move(); // There is nothing to undo any more.
    await this.#finish(plan);
  }

  async #unseal({ snapshot, imageDir, stagingDir, times, volumes }: Plan): Promise<void> {
    const { vault } = this.#deps;
    times.phase('unseal', 'memory and files of the snapshot');
    const wanted = new Set([OWN_FILES, ...volumes.map(({ archive }) => archive)]);
    await vault.unseal(snapshot, imageDir, (name) => !isArchive(name));
    await vault.unseal(snapshot, stagingDir, (name) => wanted.has(name));
  }

  /** Makes it on the target and lets it run there, beside nothing. */
  async #revive(plan: Plan, defer: (step: string, work: () => Promise<unknown>) => void): Promise<Revived> {
    const { sql, clock, containers, ports, meter } = this.#deps;
    const { row, spec, target, journal, volumes, imageDir, times } = plan;
    times.phase('prepare', `container and volumes on ${target.name}`);
    const lanAddress = await this.#takeAddress(plan);
    // On its own host the work of a restore happens in its own cgroup, and is not the tenant's to pay.
    defer('meter', async () => await meter.resume(row.id, row.incarnation));
    await meter.suspend(row.id, undefined);
    defer('volumes', async () => await dropVolumesOf(target, volumes, 'next'));
    const directories = await makeVolumes(target, volumes);
    const name = `${containers.engineNameOf(target, row.id)}-r${String(row.incarnation + 1)}`;
    await removeNamed(target, name); // What an earlier attempt left.
    const mounts = engineMountsOf(
      target,
      spec.mounts,
      volumes.map(({ next }) => next),
    );
    const engineId = await containers.makeEngineContainer(target, { ...row, lanAddress }, { spec, mounts, name });
    defer('container', async () => await removeCopy(target, { tenant: row.tenant, id: row.id, engineId }));
    await setMigrationTarget(sql, journal.id, engineId, clock.nowMs());
    const there: ContainerRow = { ...row, host: target.name, engineId };
    await this.#fill(plan, await this.#inspect(there), directories);
    times.phase('restore', `on ${target.name}`);
    if (spec.networking.mode !== 'none' && (await ports.take(row, spec)) === 'taken')
      defer('ports', async () => await ports.release(row.id));
    await stageImage({ runtimeDir: target.runtimeDir, engineId }, imageDir);
    await target.client.call({ method: 'POST', path: ['containers', engineId, 'start'], patienceMs: START_PATIENCE_MS });
    const inspect = await this.#inspect(there);
    if (!inspect.State.Running) throw new Error(`the restored container does not run: ${inspect.State.Error}`);
    const { address } = lifeOf(inspect, there);
    times.phase('probe', plan.snapshot.serves === 'nothing' ? 'it must run' : 'its port must answer');
    const check = async (): Promise<void> => {
      if (!(await this.#inspect(there)).State.Running) throw new Error('the restored container ended');
    };
    if (!(await untilServes(clock, { spec, address, before: plan.snapshot.serves, check })))
      throw new Error('the restored container does not answer on its port');
    return { engineId, address, lanAddress, carriedStart: inspect.State.StartedAt };
  }

  async #inspect(row: ContainerRow): Promise<EngineInspect> {
    const inspect = await this.#deps.containers.inspectEngine(row);
    if (inspect === undefined) throw new Error(`host ${row.host} lost the container that was made there`);
    return inspect;
  }

  /** Its files, volumes and log, before it starts. */
  async #fill(plan: Plan, created: EngineInspect, directories: ReadonlyMap<string, string>): Promise<void> {
    const { times, stagingDir, last } = plan;
    times.phase('files', 'as they were, volumes too');
    await unpackTree(join(stagingDir, OWN_FILES), upperOf(created));
    for (const [archive, directory] of directories) await unpackTree(join(stagingDir, archive), directory);
    if (last.kind === 'answers' && last.inspect !== undefined) await LogCopy.of(last.inspect, created)?.first();
  }

  /** An address on the target, which its peers let in from now on. */
  async #takeAddress({ row, target, journal }: Plan): Promise<string> {
    if (row.lanAddress === '') return '';
    const address = await this.#deps.containers.withFreeAddress(target, row.tenant, async (free) => {
      await setMigrationAddress(this.#deps.sql, journal.id, free);
      return free;
    });
    await this.#deps.fabric.refresh(row.tenant);
    return address;
  }

  async #commit({ row, spec, target, journal, volumes, times }: Plan, revived: Revived): Promise<void> {
    const { sql, meter } = this.#deps;
    times.phase('commit', `on ${target.name}`);
    const incarnation = await meter.startingPoint(incarnationBaseOf({ ...row, incarnation: row.incarnation + 1 }, target));
    await this.#deps.volumes.exclusively(row.tenant, async () => {
      const shared = await sharedVolumesOf(sql, row.id, row.tenant, spec.mounts);
      const taken = volumes.find(({ row: { name }, isShared }) => !isShared && shared.has(name));
      if (taken !== undefined) throw new Error(`volume ${taken.row.name} was given to another container meanwhile`);
      const more = replaceVolumeWrites(volumes, target.name, this.#deps.clock.nowMs());
      const outcome = await commitRestore(sql, journal, { ...revived, incarnation, nowMs: incarnation.openedMs, more });
      if (outcome.kind === 'conflict') throw new Error('the container changed in the store meanwhile');
    });
    meter.adopt(incarnation);
  }

  /** It is back. What is left of before goes, at once or when its engine answers. */
  async #finish({ row, journal, volumes, times }: Plan): Promise<void> {
    const { activator, fabric, leftBehind, hosts, sql, clock, log } = this.#deps;
    times.phase('announce', 'routes and names lead to it');
    const steps: readonly (() => Promise<unknown>)[] = [
      async () => await fabric.refresh(row.tenant),
      async () => await activator.publish(),
      async () => {
        const host = hosts.get(row.host);
        const copy = { tenant: row.tenant, id: row.id, engineId: row.engineId };
        if (host !== undefined) await leftBehind.remove({ host, copy, volumes });
      },
      async () => await endRestore(sql, journal, 'done', clock.nowMs()),
    ];
    for (const step of steps) {
      await step().catch((error: unknown) => {
        log.error({ container: row.id, reason: reasonOf(error) }, 'a container is restored, and something is left to do');
      });
    }
  }
}

interface Revived {
  readonly engineId: string;
  readonly address: string;
  readonly lanAddress: string;
  readonly carriedStart: string;
}

function refused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_RESTORE_REFUSED', source: 'usage', status: 409, message, mend });
}

function failed(message: string, cause: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_RESTORE_FAILED',
    source: 'runtime',
    status: 502,
    message,
    mend: 'nothing was lost; see the log of the daemon',
    cause,
  });
}
