/**
 * Snapshots that are kept: memory, files and volumes of a running container as they were at one moment, sealed on disk, for the day when its host is gone
 * (`restores.ts`).
 *
 * The container is paused only while its memory is written; its files were copied before, but for the last changes. All of it happens under the
 * container's lock: nothing else saves, moves or ends it meanwhile, and nothing pauses it twice.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { checkImageRoom } from '#isolation/checkpoint.ts';
import type { SnapshotVault } from '#isolation/snapshot-vault.ts';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import { beginSnapshot, findSnapshot, forgetSnapshot, keepSnapshot, listSnapshots, removeSnapshot } from '#state/snapshots.ts';
import type { SnapshotKind, SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import { findTenant } from '#state/tenants.ts';
import { findVolume } from '#state/volumes.ts';
import type { Containers } from '#caas/containers.ts';
import type { Host } from '#caas/host.ts';
import type { Images } from '#caas/images/images.ts';
import type { Meter } from '#caas/meter.ts';
import { copyLive, finishTree } from '#caas/migration/file-sync.ts';
import { keptServing, servingOf } from '#caas/migration/migration-probe.ts';
import { MoveSource, untilQuiet } from '#caas/migration/move-source.ts';
import { saveBeside, stepsAfterSave } from '#caas/migration/save-beside.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { ensureEngineVolume } from '#caas/volumes/volume-data.ts';
import { diskBytesOf, OWN_FILES, packTree, volumeArchive } from './file-archive.ts';
import type { SaveDebts } from './save-debts.ts';
import { roomRefusalOf, snapshotRefusalOf, surplusOf } from './snapshot-check.ts';
import { snapshotRowOf } from './snapshot-row.ts';
import { upperOf } from './upper-directory.ts';
import { volumeNamesOf } from './volume-order.ts';

export interface SnapshotsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly images: Images;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly vault: SnapshotVault;
  readonly debts: SaveDebts;
  /** Memory-backed, for images. */
  readonly imageFolder: string;
  /** On disk, for files on their way. */
  readonly stagingFolder: string;
}

export interface SnapshotReport {
  readonly snapshot: string;
  readonly container: string;
  readonly pausedMs: number;
  readonly totalMs: number;
  readonly imageBytes: number;
  /** On disk, sealed: memory and files. */
  readonly keptBytes: number;
  /** What is not in it, or what its restore would lack. */
  readonly notes: readonly string[];
}

/** A health check that takes longer is waited for no more; the snapshot is refused. */
const QUIET_LIMIT_MS = 10_000;

interface Tree {
  /** The name of its archive. */
  readonly archive: string;
  readonly from: string;
}

/** What is known before anything is touched. */
interface Subject {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly host: Host;
  readonly trees: readonly Tree[];
  readonly snapshot: SnapshotRow;
  readonly imageDir: string;
  readonly stagingDir: string;
  readonly notes: readonly string[];
}

type Made = Pick<SnapshotReport, 'pausedMs' | 'imageBytes' | 'keptBytes'>;

export class Snapshots {
  readonly #deps: SnapshotsDeps;

  constructor(deps: SnapshotsDeps) {
    this.#deps = deps;
  }

  /** Takes one. Errors: ECLUSE_SNAPSHOT_REFUSED (nothing was touched), ECLUSE_SNAPSHOT_FAILED (the container goes on). */
  async take(id: string, kind: Exclude<SnapshotKind, 'sleep'>): Promise<SnapshotReport> {
    const { clock, containers, log, debts } = this.#deps;
    const startedMs = clock.monotonicMs();
    return await containers.locks.run(id, async () => {
      if (!(await debts.settle(id)))
        throw refused('what its last save left is not in order yet', 'see the log of the daemon, and try again in a moment');
      const subject = await this.#check(id, kind);
      const made = await this.#make(subject);
      await this.#dropSurplus(id, kind);
      const notes = [...subject.notes, ...(await this.#spreadImage(subject))];
      log.info({ tenant: subject.row.tenant, container: id, snapshot: subject.snapshot.id, kind, ...made }, 'a snapshot is kept');
      const totalMs = Math.round(clock.monotonicMs() - startedMs);
      return { snapshot: subject.snapshot.id, container: id, totalMs, ...made, notes };
    });
  }

  async #check(id: string, kind: SnapshotKind): Promise<Subject> {
    const { containers, clock, imageFolder, stagingFolder } = this.#deps;
    const row = await containers.find(id);
    if (row === undefined) throw refused(`container ${id.slice(0, 12)} does not exist`, 'see: ecluse ps');
    const host = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    if (row.snapshot === '' && spec.config.Healthcheck !== null)
      await untilQuiet(clock, async () => await containers.inspect(row), QUIET_LIMIT_MS);
    const inspect = row.snapshot === '' ? await containers.inspect(row) : undefined;
    const refusal = snapshotRefusalOf(row, spec, inspect, host.runsc.leaveRunning);
    if (refusal !== undefined) throw refused(refusal.why, refusal.mend);
    if (inspect === undefined) throw refused(`container ${row.name} is gone`, 'see: ecluse ps -a');
    const { trees, notes } = await this.#volumeTrees(row, spec, host);
    const serves = keptServing(await servingOf(spec, row.address));
    const snapshot = snapshotRowOf(row, host, { id: randomUUID(), kind, nowMs: clock.nowMs(), serves });
    const imageDir = join(imageFolder, snapshot.id);
    const own = { archive: OWN_FILES, from: upperOf(inspect) };
    const subject = { row, spec, host, snapshot, imageDir, notes, trees: [own, ...trees] };
    await this.#checkRoom(subject);
    return { ...subject, stagingDir: join(stagingFolder, snapshot.id) };
  }

  async #volumeTrees(row: ContainerRow, spec: ContainerSpec, host: Host): Promise<Pick<Subject, 'trees' | 'notes'>> {
    const trees: Tree[] = [];
    const notes: string[] = [];
    for (const [position, name] of volumeNamesOf(spec.mounts).entries()) {
      const volume = await findVolume(this.#deps.sql, row.tenant, name);
      if (volume === undefined) throw refused(`volume ${name} of container ${row.name} is not known any more`, 'see the log');
      if (Object.keys(volume.options ?? {}).length > 0) notes.push(`volume ${name} is in memory, and is not in the snapshot`);
      else trees.push({ archive: volumeArchive(position), from: await ensureEngineVolume(host, volume) });
    }
    return { trees, notes };
  }

  async #checkRoom({ row, host, trees, snapshot }: Pick<Subject, 'row' | 'host' | 'trees' | 'snapshot'>): Promise<void> {
    const { sql, imageFolder, stagingFolder } = this.#deps;
    const usage = host.cgroups.usageOf(host.cgroupOf(row.tenant, row.id));
    const memoryBytes = usage?.memoryBytes ?? row.memoryBytes;
    await checkImageRoom(imageFolder, memoryBytes);
    let treeBytes = 0;
    for (const { from } of trees) treeBytes += await diskBytesOf(from);
    const tenant = await findTenant(sql, row.tenant);
    const mine = (await listSnapshots(sql)).filter((one) => one.tenant === row.tenant && one.kind !== 'sleep');
    const going = new Set(
      surplusOf([...mine.filter((one) => one.container === row.id), snapshot], snapshot.kind).map(({ id }) => id),
    );
    const tenantBytes = mine.reduce((sum, one) => sum + (going.has(one.id) ? 0 : one.fileBytes), 0);
    const { bavail, bsize } = await statfs(dirname(stagingFolder));
    const question = { memoryBytes, treeBytes, freeBytes: bavail * bsize, tenantBytes };
    const refusal = roomRefusalOf({ ...question, tenantMemoryMax: tenant?.quota.memoryBytesMax ?? row.memoryBytes });
    if (refusal !== undefined) throw refused(refusal.why, refusal.mend);
  }

  /** Saves, seals and writes down. The container goes on in any case. */
  async #make(subject: Subject): Promise<Made> {
    const { clock, meter, sql, vault, debts } = this.#deps;
    const { row, host, snapshot, imageDir, stagingDir } = subject;
    const source = new MoveSource({ clock, meter }, host, row);
    const wayBack = stepsAfterSave(source, [imageDir, stagingDir]);
    const archives = join(stagingDir, 'archives');
    try {
      await mkdir(archives, { recursive: true, mode: 0o700 });
      const saved = await this.#save(subject, source);
      for (const { archive } of subject.trees) {
        await packTree(join(stagingDir, archive), join(archives, archive));
        await rm(join(stagingDir, archive), { recursive: true });
      }
      const keptBytes = await vault.seal(snapshot, imageDir, archives);
      const bytes = { imageBytes: saved.imageBytes, fileBytes: keptBytes };
      if ((await keepSnapshot(sql, snapshot, bytes, clock.nowMs())).kind === 'conflict')
        throw new Error('the snapshot was removed from the store meanwhile');
      await debts.take(row, wayBack);
      return { ...saved, keptBytes };
    } catch (error) {
      const undo = async (): Promise<void> => {
        await vault.remove(snapshot.id);
        await forgetSnapshot(sql, snapshot.id, clock.nowMs());
      };
      await debts.take(row, wayBack, undo);
      throw failed(`container ${row.name} goes on, and no snapshot was kept: ${reasonOf(error)}`, error);
    }
  }

  /** Memory, files and volumes of one moment. The container goes on right after it. */
  async #save(subject: Subject, source: MoveSource): Promise<Pick<Made, 'pausedMs' | 'imageBytes'>> {
    const { sql } = this.#deps;
    const { row, trees, snapshot, imageDir, stagingDir } = subject;
    const copies: { readonly from: string; readonly to: string; readonly sinceMs: number }[] = [];
    for (const { archive, from } of trees) {
      const tree = { from, to: join(stagingDir, archive) };
      await mkdir(tree.to, { mode: 0o700 });
      copies.push({ ...tree, sinceMs: (await copyLive(tree)).sinceMs });
    }
    await beginSnapshot(sql, snapshot);
    const finishFiles = async (): Promise<void> => {
      const ends = await Promise.allSettled(copies.map(async (tree) => await finishTree(tree, tree.sinceMs)));
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    };
    return await saveBeside(this.#deps, source, { row, imageDir, finishFiles });
  }

  /** A snapshot whose image is only where its container is could not be restored when that host is gone. */
  async #spreadImage({ spec, host }: Subject): Promise<readonly string[]> {
    const { hosts, images } = this.#deps;
    const others = [...hosts.values()].filter(({ name }) => name !== host.name);
    if (others.length === 0) return ['there is no other host that it could be restored on'];
    let reason = '';
    for (const other of others) {
      try {
        if (!(await other.client.isAlive())) continue;
        await images.ensureOn(other, spec.imageId);
        return [];
      } catch (error) {
        reason = `: ${reasonOf(error)}`;
      }
    }
    return [`its image is on host ${host.name} alone${reason}`];
  }

  async #dropSurplus(container: string, kind: SnapshotKind): Promise<void> {
    for (const snapshot of surplusOf(await this.listOf(container), kind)) await this.#drop(snapshot);
  }

  async #drop(snapshot: SnapshotRow): Promise<void> {
    await removeSnapshot(this.#deps.sql, snapshot, this.#deps.clock.nowMs());
    await this.#deps.vault.remove(snapshot.id);
  }

  /** All that are kept, the oldest first. */
  async list(): Promise<readonly SnapshotRow[]> {
    return (await listSnapshots(this.#deps.sql)).filter(({ kind, state }) => kind !== 'sleep' && state === 'kept');
  }

  /** Those of one container, the oldest first. */
  async listOf(container: string): Promise<readonly SnapshotRow[]> {
    return (await this.list()).filter((snapshot) => snapshot.container === container);
  }

  /** Errors: ECLUSE_SNAPSHOT_REFUSED. */
  async remove(id: string): Promise<void> {
    const known = await findSnapshot(this.#deps.sql, id);
    await this.#deps.containers.locks.run(known?.container ?? id, async () => {
      const snapshot = await findSnapshot(this.#deps.sql, id);
      if (snapshot === undefined) throw refused(`snapshot ${id} does not exist`, 'see: ecluse snapshot ls');
      if (snapshot.kind === 'sleep')
        throw refused(`container ${snapshot.name} sleeps in snapshot ${id}`, `wake it first: ecluse wake ${snapshot.name}`);
      await this.#drop(snapshot);
    });
  }

  /** Its container is removed: nothing is kept of it. The caller holds its lock. */
  async forgetOf(container: string): Promise<void> {
    for (const snapshot of await this.listOf(container)) await this.#drop(snapshot);
  }
}

function refused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_SNAPSHOT_REFUSED', source: 'usage', status: 409, message, mend });
}

function failed(message: string, cause: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_SNAPSHOT_FAILED',
    source: 'runtime',
    status: 502,
    message,
    mend: 'nothing was lost; see the log of the daemon',
    cause,
  });
}
