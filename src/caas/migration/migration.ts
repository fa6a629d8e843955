/**
 * Moving a running container to another host with its memory, its files and its identity, while its requests wait at the edge.
 *
 * LIFECYCLE (journaled in state/migrations.ts)
 *
 *   preparing   target container made, its files copied, its sandbox started up to the gate; the source runs and serves
 *   paused      edge frozen, source paused, image saved, files finished, target restored and probed
 *   committed   ONE store batch flips placement, address, volumes and billing; from here on the target owns the container
 *   done        source removed
 *   rolled-back any failure before `committed`: source resumed, edge thawed to the old address, target removed
 *
 * INVARIANT: the source is paused, never killed, until the target has proved itself; at any instant exactly one incarnation is billable.
 * What a step acquires is given back in reverse order by one stack, which the commit empties. A daemon that died in the middle finishes or
 * undoes at its next start (`recover`).
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { checkImageRoom } from '#isolation/checkpoint.ts';
import { WarmMemory } from '#isolation/warm-memory.ts';
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
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import { dropVolumes, placeVolumeWrites, prepareVolumes, sharedVolumeOf } from '#caas/volumes/volume-moves.ts';
import type { VolumeMove } from '#caas/volumes/volume-moves.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import { refusalOf } from './migration-check.ts';
import type { MoveCause } from './migration-check.ts';
import { probeOnce } from './migration-probe.ts';
import { recoverMigrations } from './migration-recovery.ts';
import { moveFailed, moveRefused } from './move-error.ts';
import { MoveSource, untilQuiet } from './move-source.ts';
import { MoveTarget } from './move-target.ts';
import { MoveTimes } from './move-times.ts';
import type { MigrationProgress, PhaseTime } from './move-times.ts';

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

export interface MigrationReport {
  readonly container: string;
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  /** From the moment requests were held to the moment they were released. */
  readonly heldMs: number;
  /** How long the program itself stood still. */
  readonly pausedMs: number;
  /** What the program had in memory when it was paused. */
  readonly memoryBytes: number;
  readonly imageBytes: number;
  /** Requests and streams that did not end by themselves in time and were cut. */
  readonly cut: number;
  readonly phases: readonly PhaseTime[];
}

/** Requests are held no longer than this; a client's own time limit is rarely shorter. */
const HOLD_DEADLINE_MS = 30_000;
/** Requests in flight get this long to end by themselves before they are cut. */
const DRAIN_MS = 2_000;
/** A health check that takes longer is waited for no more; the move is refused. */
const QUIET_LIMIT_MS = 10_000;

/** An image, and the memory that it is restored to. */
const WARM_FACTOR = 2;

/** What is known before anything is touched. */
interface Move {
  readonly journal: MigrationRow;
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly source: Host;
  readonly target: Host;
  readonly sourceInspect: EngineInspect;
  /** What it used when it was looked at. */
  readonly memoryBytes: number;
  readonly imageDir: string;
  readonly times: MoveTimes;
  readonly signal: AbortSignal;
  readonly cause: MoveCause;
}

type Outcome = Pick<MigrationReport, 'heldMs' | 'pausedMs' | 'memoryBytes' | 'imageBytes' | 'cut'>;

export class Migrations {
  readonly #deps: MigrationDeps;
  /** By container: what is under way. */
  readonly #underWay = new Map<string, AbortController>();

  constructor(deps: MigrationDeps) {
    this.#deps = deps;
  }

  /** Moves a container. Errors: ECLUSE_MIGRATION_REFUSED (nothing was touched), ECLUSE_MIGRATION_FAILED (rolled back). */
  async migrate(
    id: string,
    targetName: string,
    onProgress: (progress: MigrationProgress) => void,
    cause: MoveCause = 'order',
  ): Promise<MigrationReport> {
    const { clock, containers } = this.#deps;
    if (this.#underWay.has(id))
      throw moveRefused(`container ${id.slice(0, 12)} is already being moved`, 'wait for the move under way, or cancel it');
    const cancel = new AbortController();
    this.#underWay.set(id, cancel);
    try {
      return await containers.locks.run(id, async () => {
        const times = new MoveTimes(clock, onProgress);
        const move = await this.#check(id, targetName, { times, cause, signal: cancel.signal });
        const outcome = await this.#runUnheard(move);
        return {
          container: id,
          from: move.source.name,
          to: move.target.name,
          totalMs: times.totalMs(),
          ...outcome,
          phases: times.phases(),
        };
      });
    } finally {
      this.#underWay.delete(id);
    }
  }

  /** Calls a move off, if it was not committed. False: there is none under way. */
  cancel(id: string): boolean {
    const cancel = this.#underWay.get(id);
    cancel?.abort(new Error('it was called off'));
    return cancel !== undefined;
  }

  /** Everything that can be known before something is touched. */
  async #check(id: string, targetName: string, run: Pick<Move, 'times' | 'signal' | 'cause'>): Promise<Move> {
    const { containers, hosts, meter, sql } = this.#deps;
    // A first interval after a restart of the node renews the incarnation; that must have happened before the row is read.
    await meter.flush(id);
    const row = await containers.find(id);
    const target = hosts.get(targetName);
    if (row === undefined) throw moveRefused(`container ${id} does not exist`, 'see: ecluse ps');
    if (target === undefined)
      throw moveRefused(`host ${targetName} does not exist`, `choose one of: ${[...hosts.keys()].join(', ')}`);
    const source = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    const sourceInspect = await this.#inspectQuiet(row, spec);
    const refusal = refusalOf({
      cause: run.cause,
      row,
      spec,
      inspect: sourceInspect,
      source: { name: source.name, runsc: source.runsc },
      target: { name: target.name, runsc: target.runsc },
      sharedVolume: await sharedVolumeOf(sql, row.id, row.tenant, spec.mounts),
    });
    if (refusal !== undefined || sourceInspect === undefined) {
      throw moveRefused(
        refusal?.why ?? `the engine of host ${source.name} lost the container`,
        refusal?.mend ?? 'remove it and create it again',
      );
    }
    const usage = await source.cgroups.usageOf(source.cgroupOf(row.tenant, row.id));
    const memoryBytes = usage?.memoryBytes ?? row.memoryBytes;
    await checkImageRoom(this.#deps.imageFolder, memoryBytes);
    const journal: MigrationRow = {
      id: randomUUID(),
      container: row.id,
      sourceHost: source.name,
      targetHost: target.name,
      sourceEngineId: row.engineId,
      targetEngineId: undefined,
      state: 'preparing',
    };
    return {
      journal,
      row,
      spec,
      source,
      target,
      sourceInspect,
      memoryBytes,
      imageDir: join(this.#deps.imageFolder, journal.id),
      ...run,
    };
  }

  /** A command of a health check ends by itself; one of a tenant's session may not. */
  async #inspectQuiet(row: ContainerRow, spec: ContainerSpec): Promise<EngineInspect | undefined> {
    const inspect = async (): Promise<EngineInspect | undefined> => await this.#deps.containers.inspect(row);
    if (spec.config.Healthcheck !== null) await untilQuiet(this.#deps.clock, inspect, QUIET_LIMIT_MS);
    return await inspect();
  }

  /** To its tenant nothing happens to a container that moves: what engines say meanwhile is no news. */
  async #runUnheard(move: Move): Promise<Outcome> {
    const { clock, containers } = this.#deps;
    containers.events.hush(move.row.id, clock.nowMs());
    try {
      return await this.#run(move);
    } finally {
      containers.events.loud(move.row.id, clock.nowMs());
    }
  }

  async #run(move: Move): Promise<Outcome> {
    const { sql, clock } = this.#deps;
    const { row, source, target, journal, times } = move;
    if ((await beginMigration(sql, journal, clock.nowMs())).kind === 'conflict')
      throw moveRefused(`container ${row.name} is already being moved`, 'wait for the move under way');
    const undo = new AsyncDisposableStack();
    this.#deferLogged(undo, move, 'journal', async () => {
      await setMigrationState(sql, journal, 'rolled-back', clock.nowMs());
      await this.#deps.fabric.refresh(row.tenant);
    });
    try {
      const prepared = await this.#prepare(move, undo);
      const outcome = await this.#cross(move, prepared, undo);
      undo.move(); // There is nothing to undo any more.
      await this.#finish(move, prepared);
      return outcome;
    } catch (error) {
      if (await this.#isCommitted(move))
        throw moveFailed(`the container runs on ${target.name}, but cleaning up failed: ${reasonOf(error)}`, error);
      times.phase('roll back', `to ${source.name}`);
      await undo.disposeAsync();
      throw moveFailed(`container ${row.name} stays on ${source.name}: ${reasonOf(error)}`, error);
    }
  }

  /** Everything that can be done while the source runs and serves. */
  async #prepare(move: Move, undo: AsyncDisposableStack): Promise<Prepared> {
    const { sql, clock, containers } = this.#deps;
    const { row, spec, source, target, journal, times, signal } = move;
    times.phase('prepare', `image, container and files on ${target.name}`);
    const lanAddress = await this.#takeAddress(move);
    const volumes = await prepareVolumes(sql, {
      tenant: row.tenant,
      container: row.id,
      from: source,
      to: target,
      mounts: spec.mounts,
    });
    const engineId = await containers.makeEngineContainer(target, { ...row, lanAddress }, { spec, mounts: volumes.engineMounts });
    const copy = await MoveTarget.open(clock, { host: target, row, engineId, source: move.sourceInspect, volumes });
    this.#deferLogged(undo, move, 'target', async () => {
      await copy[Symbol.asyncDispose]();
    });
    await setMigrationTarget(sql, journal.id, engineId, clock.nowMs());
    signal.throwIfAborted();
    times.phase('copy', 'files and logs, while it runs');
    await copy.copyFirst();
    signal.throwIfAborted();
    times.phase('prestart', `the sandbox on ${target.name}`);
    await copy.prestart(signal);
    const servesBefore = await probeOnce(spec, row.address);
    await (
      await WarmMemory.take(this.#deps.imageFolder, `${journal.id}.warm`, WARM_FACTOR * move.memoryBytes)
    )[Symbol.asyncDispose]();
    const isQuiet = await untilQuiet(clock, async () => await containers.inspect(row), QUIET_LIMIT_MS);
    if (!isQuiet) throw new Error('a command that was executed in the container does not end');
    return { copy, volumes, lanAddress, servesBefore };
  }

  /** From the freeze to the thaw: what clients wait for. */
  async #cross(move: Move, prepared: Prepared, undo: AsyncDisposableStack): Promise<Outcome> {
    const { sql, clock, activator, meter, fabric } = this.#deps;
    const { row, source, target, journal, times, imageDir, signal } = move;
    const from = new MoveSource({ clock, meter }, source, row);
    this.#deferLogged(undo, move, 'limit', async () => {
      await rm(imageDir, { recursive: true, force: true });
      await from.limitAgain();
    });
    // Written down before it is true: a daemon that dies in between resumes what is not paused, which does nothing.
    await setMigrationState(sql, journal, 'paused', clock.nowMs());
    times.phase('freeze', 'new requests wait, those in flight end');
    const heldFromMs = clock.monotonicMs();
    this.#deferLogged(undo, move, 'thaw', async () => {
      await activator.thaw([row.id]);
    });
    const { cut } = await activator.freeze([row.id], { deadlineMs: HOLD_DEADLINE_MS, drainMs: DRAIN_MS });
    signal.throwIfAborted();
    times.phase('pause', `on ${source.name}`);
    const pausedFromMs = clock.monotonicMs();
    this.#deferLogged(undo, move, 'resume', async () => {
      await from.goOn();
    });
    await from.pause();
    times.phase('checkpoint', 'memory into an image; the last of the files');
    const [imageBytes] = await Promise.all([from.save(imageDir), prepared.copy.finishFiles()]);
    await prepared.copy.finishLog();
    signal.throwIfAborted();
    times.phase('restore', `on ${target.name}`);
    // Two that run must never be: the copy ends before the source goes on.
    this.#deferLogged(undo, move, 'copy', async () => {
      await prepared.copy.endNow();
    });
    const restored = await prepared.copy.restore(imageDir);
    times.phase('probe', prepared.servesBefore ? 'its port must answer' : 'it must run');
    const address = addressOf(restored);
    if (prepared.servesBefore) await prepared.copy.prove(move.spec, address);
    signal.throwIfAborted();
    times.phase('commit', `${source.name} to ${target.name}`);
    await this.#commit(move, prepared, restored);
    const pausedMs = Math.round(clock.monotonicMs() - pausedFromMs);
    times.phase('thaw', 'requests go on');
    await activator.publish();
    await activator.thaw([row.id]);
    const heldMs = Math.round(clock.monotonicMs() - heldFromMs);
    await fabric.refresh(row.tenant);
    return { heldMs, pausedMs, memoryBytes: imageBytes, imageBytes, cut };
  }

  async #commit(move: Move, { copy, volumes }: Prepared, restored: EngineInspect): Promise<void> {
    const { sql, meter } = this.#deps;
    const { row, target, journal, spec } = move;
    const incarnation = await meter.startingPoint({
      container: row.id,
      incarnation: row.incarnation + 1,
      tenant: row.tenant,
      host: target.name,
      name: row.name,
      cgroup: target.cgroupOf(row.tenant, row.id),
    });
    const address = addressOf(restored);
    const commit = async (): Promise<void> => {
      const shared = await sharedVolumeOf(sql, row.id, row.tenant, spec.mounts);
      if (shared !== undefined) throw new Error(`volume ${shared} was given to another container meanwhile`);
      const outcome = await commitMigration(sql, journal, {
        engineId: copy.engineId,
        address,
        lanAddress: address,
        carriedStart: restored.State.StartedAt,
        incarnation,
        nowMs: incarnation.openedMs,
        more: placeVolumeWrites(volumes.travels, target.name),
      });
      if (outcome.kind === 'conflict') throw new Error('the container changed in the store meanwhile');
    };
    await (volumes.travels.length === 0 ? commit() : this.#deps.volumes.exclusively(row.tenant, commit));
    copy.keep();
    meter.adopt(incarnation);
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

  async #finish(move: Move, { volumes }: Prepared): Promise<void> {
    const { clock, meter, sql } = this.#deps;
    move.times.phase('clean up', `the paused copy on ${move.source.name} goes`);
    await new MoveSource({ clock, meter }, move.source, move.row).remove();
    await rm(move.imageDir, { recursive: true, force: true });
    await dropVolumes(move.source, volumes.travels);
    await setMigrationState(sql, move.journal, 'done', clock.nowMs());
  }

  /** A step of the way back: one that fails is told, and the others are taken all the same. */
  #deferLogged(undo: AsyncDisposableStack, move: Move, step: string, work: () => Promise<void>): void {
    undo.defer(async () => {
      try {
        await work();
      } catch (error) {
        this.#deps.log.error({ container: move.row.id, step, reason: reasonOf(error) }, 'a step of a rollback failed');
      }
    });
  }

  /** Finishes or undoes what a daemon left in the middle. Called before anything serves. */
  async recover(): Promise<void> {
    await recoverMigrations(this.#deps);
  }
}

interface Prepared {
  readonly copy: MoveTarget;
  readonly volumes: VolumeMove;
  readonly lanAddress: string;
  readonly servesBefore: boolean;
}

function addressOf(inspect: EngineInspect): string {
  const [network] = Object.values(inspect.NetworkSettings.Networks ?? {});
  return network?.IPAddress ?? '';
}
