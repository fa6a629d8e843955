/**
 * Moving a running container to another host with its memory, its files and its identity, while its requests wait at the edge.
 *
 * LIFECYCLE (journaled in state/migrations.ts)
 *
 *   preparing   target container made, nothing touched at the source
 *   paused      edge frozen, source paused, image saved and copied, target restored and probed
 *   committed   ONE store batch flips placement, address and billing; from here on the target owns the container
 *   done        source removed
 *   rolled-back any failure before `committed`: target removed, source resumed, edge thawed to the old address
 *
 * INVARIANT: the source is paused, never killed, until the target has proved itself; at any instant exactly one incarnation is billable.
 * A daemon that died in the middle finishes or undoes at its next start (`recover`).
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { runCommand } from '#command';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { checkImageRoom, saveCheckpoint, stageImage } from '#isolation/checkpoint.ts';
import type { CgroupUsage } from '#isolation/cgroup.ts';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import {
  beginMigration,
  commitMigration,
  setMigrationAddress,
  setMigrationState,
  setMigrationTarget,
} from '#state/migrations.ts';
import type { MigrationRow } from '#state/migrations.ts';
import type { Sql } from '#state/sql.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';
import { refusalOf } from './migration-check.ts';
import { copyFiles } from './migration-copy.ts';
import { probeOnce } from './migration-probe.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import { limitMemory, recoverMigrations, removeCopy, removePaused, unpause } from './migration-recovery.ts';

export interface MigrationDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly fabric: NetworkFabric;
  readonly volumes: Volumes;
  /** Memory-backed folder for images; removed at the end of each migration. */
  readonly imageFolder: string;
}

export interface MigrationProgress {
  readonly phase: string;
  readonly detail: string;
  readonly elapsedMs: number;
}

export interface MigrationReport {
  readonly container: string;
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  /** From the moment requests were held to the moment they were released. */
  readonly heldMs: number;
  /** How long the program itself stood still. */
  readonly pausedMs: number;
  readonly imageBytes: number;
  /** Requests and streams that did not end by themselves in time and were cut. */
  readonly cut: number;
}

/** Requests are held no longer than this; a client's own time limit is rarely shorter. */
const HOLD_DEADLINE_MS = 30_000;
/** Requests in flight get this long to end by themselves before they are cut. */
const DRAIN_MS = 2_000;
const PROBE_LIMIT_MS = 10_000;

interface Move {
  readonly journal: MigrationRow;
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly source: Host;
  readonly target: Host;
  readonly sourceInspect: EngineInspect;
  readonly imageDir: string;
  readonly progress: (phase: string, detail: string) => void;
}

export class Migrations {
  readonly #deps: MigrationDeps;

  constructor(deps: MigrationDeps) {
    this.#deps = deps;
  }

  /** Moves a container. Errors: ECLUSE_MIGRATION_REFUSED (nothing was touched), ECLUSE_MIGRATION_FAILED (rolled back). */
  async migrate(id: string, targetName: string, onProgress: (progress: MigrationProgress) => void): Promise<MigrationReport> {
    const { clock, containers } = this.#deps;
    if (containers.locks.held(`migration ${id}`))
      throw refused(`container ${id.slice(0, 12)} is already being moved`, 'wait for the move under way');
    return await containers.locks.run(
      `migration ${id}`,
      async () =>
        await containers.locks.run(id, async () => {
          const startedMs = clock.monotonicMs();
          const progress = (phase: string, detail: string): void => {
            onProgress({ phase, detail, elapsedMs: Math.round(clock.monotonicMs() - startedMs) });
          };
          const move = await this.#check(id, targetName, progress);
          const outcome = await this.#runUnheard(move);
          return {
            container: id,
            from: move.source.name,
            to: move.target.name,
            totalMs: Math.round(clock.monotonicMs() - startedMs),
            ...outcome,
          };
        }),
    );
  }

  /** Everything that can be known before something is touched. */
  async #check(id: string, targetName: string, progress: Move['progress']): Promise<Move> {
    const { containers, hosts, meter } = this.#deps;
    // A first interval after a restart of the node renews the incarnation; that must have happened before the row is read.
    await meter.flush(id);
    const row = await containers.find(id);
    const target = hosts.get(targetName);
    if (row === undefined) throw refused(`container ${id} does not exist`, 'see: ecluse ps');
    if (target === undefined)
      throw refused(`host ${targetName} does not exist`, `choose one of: ${[...hosts.keys()].join(', ')}`);
    const source = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    const sourceInspect = await containers.inspect(row);
    const refusal = refusalOf({
      row,
      spec,
      inspect: sourceInspect,
      source,
      target,
    });
    if (refusal !== undefined || sourceInspect === undefined) {
      throw refused(
        refusal?.why ?? `the engine of host ${source.name} lost the container`,
        refusal?.mend ?? 'remove it and create it again',
      );
    }
    const usage = await source.cgroups.usageOf(source.cgroupOf(row.tenant, row.id));
    await checkImageRoom(dirname(this.#deps.imageFolder), usage?.memoryBytes ?? row.memoryBytes);
    const journal: MigrationRow = {
      id: randomUUID(),
      container: row.id,
      sourceHost: source.name,
      targetHost: target.name,
      sourceEngineId: row.engineId,
      targetEngineId: undefined,
      state: 'preparing',
    };
    return { journal, row, spec, source, target, sourceInspect, imageDir: join(this.#deps.imageFolder, journal.id), progress };
  }

  /** To its tenant nothing happens to a container that moves: what engines say meanwhile is no news. */
  async #runUnheard(move: Move): Promise<Pick<MigrationReport, 'heldMs' | 'pausedMs' | 'imageBytes' | 'cut'>> {
    const { clock, containers } = this.#deps;
    containers.events.hush(move.row.id, clock.nowMs());
    try {
      return await this.#run(move);
    } finally {
      containers.events.loud(move.row.id, clock.nowMs());
    }
  }

  async #run(move: Move): Promise<Pick<MigrationReport, 'heldMs' | 'pausedMs' | 'imageBytes' | 'cut'>> {
    const { sql, clock, activator, volumes } = this.#deps;
    const { row, target, journal, progress } = move;
    if ((await beginMigration(sql, journal, clock.nowMs())).kind === 'conflict') {
      throw refused(`container ${row.name} is already being moved`, 'wait for the move under way');
    }
    const done = { target: '', frozen: false, paused: false };
    try {
      progress('prepare', `image and container on ${target.name}`);
      const lanAddress = await this.#takeAddress(move);
      done.target = await this.#deps.containers.makeEngineContainer(
        target,
        { ...row, lanAddress },
        {
          spec: move.spec,
          mounts: (await volumes.realize(row.tenant, target, move.spec.mounts)).engineMounts,
        },
      );
      await setMigrationTarget(sql, journal.id, done.target, clock.nowMs());
      const servesBefore = await probeOnce(move.spec, row.address);
      progress('freeze', 'new requests wait, those in flight end');
      const heldFromMs = clock.monotonicMs();
      done.frozen = true;
      const { cut } = await activator.freeze([row.id], { deadlineMs: HOLD_DEADLINE_MS, drainMs: DRAIN_MS });
      done.paused = true;
      const pausedFromMs = clock.monotonicMs();
      const imageBytes = await this.#freezeSource(move);
      await this.#startTarget(move, { engineId: done.target, servesBefore });
      const pausedMs = Math.round(clock.monotonicMs() - pausedFromMs);
      await Promise.all([this.#deps.fabric.refresh(row.tenant), activator.publish()]);
      await activator.thaw([row.id]);
      const heldMs = Math.round(clock.monotonicMs() - heldFromMs);
      await this.#finish(move);
      return { heldMs, pausedMs, imageBytes, cut };
    } catch (error) {
      if (await this.#isCommitted(move))
        throw failed(`the container runs on ${target.name}, but cleaning up failed: ${reasonOf(error)}`, error);
      await this.#rollBack(move, done);
      throw failed(`container ${row.name} stays on ${move.source.name}: ${reasonOf(error)}`, error);
    }
  }

  /** An address on the target, which its peers let in from now on; the old one is good until the commit. */
  async #takeAddress({ row, target, journal }: Move): Promise<string> {
    if (row.lanAddress === '') return '';
    const address = await this.#deps.containers.withFreeAddress(target, row.tenant, async (free) => {
      await setMigrationAddress(this.#deps.sql, journal.id, free);
      return free;
    });
    await this.#deps.fabric.refresh(row.tenant);
    return address;
  }

  async #isCommitted(move: Move): Promise<boolean> {
    const now = await this.#deps.containers.find(move.row.id);
    return now !== undefined && now.engineId !== move.row.engineId;
  }

  /** Pauses the source, stops its meter at that instant, saves and copies. Returns the image's size. */
  async #freezeSource(move: Move): Promise<number> {
    const { row, source, imageDir, progress } = move;
    progress('pause', `on ${source.name}`);
    await setMigrationState(this.#deps.sql, move.journal, 'paused', this.#deps.clock.nowMs());
    await source.client.call({ method: 'POST', path: ['containers', row.engineId, 'pause'] });
    const cgroup = source.cgroupOf(row.tenant, row.id);
    // What the save itself costs happens in the container's cgroup too; it is not the tenant's to pay.
    const usage: CgroupUsage | undefined = await source.cgroups.usageOf(cgroup);
    await this.#deps.meter.suspend(row.id, usage);
    progress('checkpoint', 'memory into an image');
    await saveCheckpoint(
      source.cgroups,
      { runtimeDir: source.runtimeDir, runscRoot: source.runscRoot, engineId: row.engineId, cgroup: `${cgroup}/${row.engineId}` },
      imageDir,
    );
    const sizes = await runCommand('du', ['-sb', imageDir]);
    return Number(sizes.split('\t')[0]);
  }

  /** Copies files and logs, restores, probes, and commits. */
  async #startTarget(move: Move, at: { readonly engineId: string; readonly servesBefore: boolean }): Promise<void> {
    const { row, source, target, progress, imageDir } = move;
    progress('copy', 'files and logs');
    const created = await this.#deps.containers.inspect({ ...row, host: target.name, engineId: at.engineId });
    if (created === undefined) throw new Error(`host ${target.name} lost the container that was made for the move`);
    await copyFiles(move.sourceInspect, created);
    await stageImage(target.runtimeDir, at.engineId, imageDir);
    progress('restore', `on ${target.name}`);
    await target.client.call({ method: 'POST', path: ['containers', at.engineId, 'start'] });
    progress('probe', at.servesBefore ? 'its port must answer' : 'it must run');
    const inspect = await this.#deps.containers.inspect({ ...row, host: target.name, engineId: at.engineId });
    const [network] = Object.values(inspect?.NetworkSettings.Networks ?? {});
    const address = network?.IPAddress ?? '';
    if (inspect?.State.Running !== true)
      throw new Error(`the restored container does not run: ${inspect?.State.Error ?? 'no reason given'}`);
    if (at.servesBefore) {
      const answers = await waitFor(this.#deps.clock, async () => ((await probeOnce(move.spec, address)) ? true : undefined), {
        limitMs: PROBE_LIMIT_MS,
        stepMs: 20,
      });
      if (answers === undefined)
        throw new Error(`the restored container does not answer on its port within ${String(PROBE_LIMIT_MS)} ms`);
    }
    progress('commit', `${source.name} to ${target.name}`);
    const incarnation = await this.#deps.meter.startingPoint({
      container: row.id,
      incarnation: row.incarnation + 1,
      tenant: row.tenant,
      host: target.name,
      name: row.name,
      cgroup: target.cgroupOf(row.tenant, row.id),
    });
    const outcome = await commitMigration(this.#deps.sql, move.journal, {
      engineId: at.engineId,
      address,
      lanAddress: address,
      carriedStart: inspect.State.StartedAt,
      incarnation,
      nowMs: incarnation.openedMs,
    });
    if (outcome.kind === 'conflict') throw new Error('the container changed in the store meanwhile');
    this.#deps.meter.adopt(incarnation);
  }

  async #finish(move: Move): Promise<void> {
    move.progress('clean up', `the paused copy on ${move.source.name} goes`);
    await removePaused(this.#deps.clock, move.source, move.row);
    await forgetFinalCounters(move.source.runtimeDir, move.row.engineId);
    await rm(move.imageDir, { recursive: true, force: true });
    await setMigrationState(this.#deps.sql, move.journal, 'done', this.#deps.clock.nowMs());
  }

  async #rollBack(
    move: Move,
    done: { readonly target: string; readonly frozen: boolean; readonly paused: boolean },
  ): Promise<void> {
    const { row, source, target, journal } = move;
    move.progress('roll back', `to ${source.name}`);
    const attempt = async (what: string, undo: () => Promise<unknown>): Promise<void> => {
      try {
        await undo();
      } catch (error) {
        this.#deps.log.error({ container: row.id, step: what, reason: reasonOf(error) }, 'a step of a rollback failed');
      }
    };
    // The source first: it is what people wait for.
    if (done.paused) {
      await attempt('resume', async () => await unpause(source, row.engineId));
      await attempt('meter', async () => {
        await this.#deps.meter.resume(row.id, row.incarnation);
      });
    }
    if (done.frozen) {
      await attempt('thaw', async () => {
        await this.#deps.activator.thaw([row.id]);
      });
    }
    if (done.target !== '') {
      await attempt('target', async () => {
        await removeCopy(target, { tenant: row.tenant, id: row.id, engineId: done.target });
      });
    }
    await attempt('image', async () => {
      await rm(move.imageDir, { recursive: true, force: true });
    });
    if (done.paused) {
      await attempt('limit', async () => {
        await limitMemory(this.#deps.clock, source, row);
      });
    }
    await attempt('journal', async () => {
      await setMigrationState(this.#deps.sql, journal, 'rolled-back', this.#deps.clock.nowMs());
      await this.#deps.fabric.refresh(row.tenant);
    });
  }

  /** Finishes or undoes what a daemon left in the middle. Called before anything serves. */
  async recover(): Promise<void> {
    await recoverMigrations(this.#deps);
  }
}

function refused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_MIGRATION_REFUSED', source: 'usage', status: 409, message, mend });
}

function failed(message: string, cause: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_MIGRATION_FAILED',
    source: 'runtime',
    status: 502,
    message: `the migration failed; ${message}`,
    mend: 'nothing was lost; see the log of the daemon',
    cause,
  });
}
