/**
 * Warm copies of a running container: each goes on from where the original was, with its memory and its files, under an id, a name and an address of its own.
 *
 * The original is paused once, for as long as its memory takes to be written; every copy is restored from that one image. What the program held as random
 * state is the same in all copies until it is seeded anew: gVisor gives fresh bytes to who asks its kernel (getrandom, /dev/urandom), but not to a
 * generator inside the program.
 */
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '#command';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { checkImageRoom, stageImage } from '#isolation/checkpoint.ts';
import { unstage } from '#isolation/held-restore.ts';
import type { Activator } from '#routing/activator.ts';
import { listContainersOf } from '#state/containers.ts';
import type { ContainerLife, ContainerRow } from '#state/containers.ts';
import { beginSnapshot, forgetSnapshot } from '#state/snapshots.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';
import type { ContainerCreation, ReservedCopy } from '#caas/container-creation.ts';
import { lifeOf } from '#caas/container-life.ts';
import type { Containers } from '#caas/containers.ts';
import { hasSandbox } from '#caas/engine/engine-copy.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';
import { copyLive, finishTree } from '#caas/migration/file-sync.ts';
import { keptServing, servingOf, untilServes } from '#caas/migration/migration-probe.ts';
import { MoveSource } from '#caas/migration/move-source.ts';
import { saveBeside, stepsAfterSave } from '#caas/migration/save-beside.ts';
import type { SavedBeside } from '#caas/migration/save-beside.ts';
import { wantedRoutes } from '#caas/routes.ts';
import { sleepRefusalOf } from '#caas/sleep/sleep-check.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { SaveDebts } from './save-debts.ts';
import { snapshotRowOf } from './snapshot-row.ts';
import { upperOf } from './upper-directory.ts';

export interface ClonesDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly creation: ContainerCreation;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly debts: SaveDebts;
  /** As it is now. */
  readonly domain: () => string;
  /** Memory-backed, for images. */
  readonly imageFolder: string;
  /** On disk, for files on their way. */
  readonly stagingFolder: string;
}

export interface CloneReport {
  readonly container: string;
  /** Names of the copies, in the order in which they were ready. */
  readonly clones: readonly string[];
  readonly pausedMs: number;
  readonly totalMs: number;
  readonly imageBytes: number;
}

/** One call makes no more; the tenant's quota limits how many there are. */
const COUNT_MAX = 100;
/** Engines start containers on as many processors as there are; more at once only wait for each other. */
const AT_ONCE = 3;
const COPY_TIMEOUT_MS = 600_000;
/** As long as an engine may take to start one on a machine that is busy with others. */
const START_PATIENCE_MS = 120_000;

interface Original {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly tenant: Tenant;
  /** Labels that its copies get beside its own. */
  readonly labels: Readonly<Record<string, string>>;
  readonly host: Host;
  readonly inspect: EngineInspect;
  readonly snapshot: SnapshotRow;
  readonly imageDir: string;
  readonly filesDir: string;
}

export class Clones {
  readonly #deps: ClonesDeps;

  constructor(deps: ClonesDeps) {
    this.#deps = deps;
  }

  /** Makes `count` copies. Errors: ECLUSE_CLONE_REFUSED (nothing was touched), ECLUSE_CLONE_FAILED (copies that are ready stay). */
  async clone(id: string, count: number, labels: Readonly<Record<string, string>> = {}): Promise<CloneReport> {
    const { clock, sql, containers, creation, debts, meter } = this.#deps;
    if (!Number.isInteger(count) || count < 1 || count > COUNT_MAX)
      throw refused(`${String(count)} copies cannot be made at once`, `choose from 1 to ${String(COUNT_MAX)}`);
    const startedMs = clock.monotonicMs();
    const original = { ...(await this.#check(id)), labels };
    const { snapshot, imageDir, filesDir, row, host } = original;
    const source = new MoveSource({ clock, meter }, host, row);
    const waiting = [...(await this.#reserve(original, count))];
    try {
      const { pausedMs, imageBytes } = await containers.locks.run(id, async () => await this.#save(original, source));
      const clones = await this.#makeAll(original, waiting);
      return { container: row.id, clones, pausedMs, imageBytes, totalMs: Math.round(clock.monotonicMs() - startedMs) };
    } finally {
      for (const copy of waiting) await creation.giveUpCopy(copy);
      const wayBack = stepsAfterSave(source, [imageDir, filesDir]);
      await containers.locks.run(id, async () => {
        await debts.take(row, wayBack, async () => await forgetSnapshot(sql, snapshot.id, clock.nowMs()));
      });
    }
  }

  async #check(id: string): Promise<Omit<Original, 'labels'>> {
    const { containers, sql, clock, imageFolder, stagingFolder } = this.#deps;
    const row = await containers.find(id);
    if (row === undefined) throw refused(`container ${id.slice(0, 12)} does not exist`, 'see: ecluse ps');
    const tenant = (await listTenants(sql)).find(({ name }) => name === row.tenant);
    const host = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    const inspect = row.snapshot === '' ? await containers.inspect(row) : undefined;
    const refusal = sleepRefusalOf(row, spec, inspect, host.runsc.leaveRunning);
    if (refusal !== undefined) throw refused(refusal.why, refusal.mend);
    if (tenant === undefined || inspect === undefined) throw refused(`container ${row.name} is gone`, 'see: ecluse ps -a');
    const volume = spec.mounts.find((mount) => mount.kind === 'volume' && !mount.readOnly);
    if (volume?.kind === 'volume') {
      throw refused(
        `container ${row.name} writes to the volume ${volume.name}, and copies that share its memory would overwrite each other's data there`,
        'clone a container without volumes, or with read-only ones',
      );
    }
    const usage = host.cgroups.usageOf(host.cgroupOf(row.tenant, row.id));
    await checkImageRoom(imageFolder, usage?.memoryBytes ?? row.memoryBytes);
    const serves = keptServing(await servingOf(spec, row.address));
    const snapshot = snapshotRowOf(row, host, { id: randomUUID(), kind: 'copy', nowMs: clock.nowMs(), serves });
    const imageDir = join(imageFolder, snapshot.id);
    return { row, spec, tenant, host, inspect, snapshot, imageDir, filesDir: join(stagingFolder, snapshot.id) };
  }

  /** Memory and files of one moment. The original goes on right after it. */
  async #save({ row, inspect, snapshot, imageDir, filesDir }: Original, source: MoveSource): Promise<SavedBeside> {
    const { sql, debts } = this.#deps;
    if (!(await debts.settle(row.id)))
      throw refused('what its last save left is not in order yet', 'see the log of the daemon, and try again in a moment');
    const tree = { from: upperOf(inspect), to: filesDir };
    await mkdir(filesDir, { recursive: true, mode: 0o700 });
    const { sinceMs } = await copyLive(tree);
    await beginSnapshot(sql, snapshot);
    const finishFiles = async (): Promise<void> => await finishTree(tree, sinceMs);
    try {
      return await saveBeside(this.#deps, source, { row, imageDir, finishFiles });
    } catch (error) {
      throw failed(`container ${row.name} goes on, and no copy was made: ${reasonOf(error)}`, error);
    }
  }

  /** Takes from `waiting` what it makes. What is left there when it fails is nothing yet. */
  async #makeAll(original: Original, waiting: ReservedCopy[]): Promise<readonly string[]> {
    const { row } = original;
    const count = waiting.length;
    const ready: string[] = [];
    const failures: unknown[] = [];
    const work = async (): Promise<void> => {
      while (failures.length === 0) {
        const copy = waiting.shift();
        if (copy === undefined) return;
        try {
          await this.#make(original, copy);
          ready.push(copy.row.name);
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (failures.length === 0) return ready;
    throw failed(
      `${String(ready.length)} of ${String(count)} copies of ${row.name} are ready${ready.length === 0 ? '' : ` (${ready.join(', ')})`}: ${reasonOf(failures[0])}`,
      failures[0],
    );
  }

  async #reserve(original: Original, count: number): Promise<readonly ReservedCopy[]> {
    const { row, tenant } = original;
    try {
      const names = await this.#freeNames(original, count);
      return await this.#deps.creation.reserveCopies(row, { tenant, names, spec: this.#specOf(original) });
    } catch (error) {
      throw refused(
        `container ${row.name} cannot have ${String(count)} copies: ${reasonOf(error)}`,
        'ask for fewer, or remove others',
      );
    }
  }

  async #freeNames({ row }: Original, count: number): Promise<readonly string[]> {
    const taken = new Set((await listContainersOf(this.#deps.sql, row.tenant)).map(({ name }) => name));
    const names: string[] = [];
    for (let number = 2; names.length < count; number += 1) {
      const name = `${row.name}-${String(number)}`;
      if (!taken.has(name)) names.push(name);
    }
    return names;
  }

  async #make(original: Original, copy: ReservedCopy): Promise<void> {
    const { containers, creation } = this.#deps;
    const { id, tenant } = copy.row;
    await creation.makeCopy(copy, async (made) => await this.#revive(original, copy.spec, made));
    await containers.announceLife(tenant);
    await containers.sync(id); // It may have ended before anybody knew of it.
  }

  /** Lets a copy go on from the image. Nobody is sent to it before it serves: routes and names come with its state. */
  async #revive(
    { filesDir, imageDir, tenant, snapshot }: Original,
    spec: ContainerSpec,
    made: ContainerRow,
  ): Promise<ContainerLife> {
    const { containers, clock } = this.#deps;
    const host = containers.hostOf(made);
    const created = await this.#inspect(made);
    await runCommand('rsync', ['-aHAXS', '--numeric-ids', `${filesDir}/`, `${upperOf(created)}/`], {
      timeoutMs: COPY_TIMEOUT_MS,
    });
    const giveBack = await containers.takeForStart(tenant, made);
    const place = { runtimeDir: host.runtimeDir, engineId: made.engineId };
    try {
      await stageImage(place, imageDir);
      await host.client.call({ method: 'POST', path: ['containers', made.engineId, 'start'], patienceMs: START_PATIENCE_MS });
      const life = lifeOf(await this.#inspect(made), made);
      if (life.state !== 'running') throw new Error('the restored copy does not run');
      const check = async (): Promise<void> => {
        if (!(await hasSandbox(host, made))) throw new Error('the restored copy ended');
      };
      // Where the original did not answer there is nothing to wait for.
      if (!(await untilServes(clock, { spec, address: life.address, before: snapshot.serves, check })))
        throw new Error('the restored copy does not answer on its port');
      return life;
    } catch (error) {
      await giveBack();
      await unstage(place);
      throw error;
    }
  }

  async #inspect(made: ContainerRow): Promise<EngineInspect> {
    const inspect = await this.#deps.containers.inspectEngine(made);
    if (inspect === undefined) throw new Error('its engine lost it');
    return inspect;
  }

  /** Copies stand behind the original's hosts: what it has by its name is written down for them. */
  #specOf({ row, spec, tenant, labels: added }: Original): ContainerSpec {
    const labels = spec.config.Labels ?? {};
    const wanted = wantedRoutes(row.name, spec, tenant, this.#deps.domain());
    const hosts = wanted.kind === 'routes' ? [...new Set(wanted.routes.map(({ host }) => host))] : [];
    const Labels = {
      ...labels,
      'ecluse.clone.of': row.name,
      ...added,
      ...(hosts.length === 0 ? {} : { 'ecluse.http.host': hosts.join(',') }),
    };
    return { ...spec, config: { ...spec.config, Labels } };
  }
}

function refused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_CLONE_REFUSED', source: 'usage', status: 409, message, mend });
}

function failed(message: string, cause: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CLONE_FAILED',
    source: 'runtime',
    status: 502,
    message,
    mend: 'see the log of the daemon',
    cause,
  });
}
