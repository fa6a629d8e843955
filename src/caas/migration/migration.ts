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
import { rm } from 'node:fs/promises';
import { reasonOf } from '#errors';
import { formatBytes } from '#units';
import {
  beginMigration,
  commitMigration,
  setMigrationAddress,
  setMigrationState,
  setMigrationTarget,
} from '#state/migrations.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { dropVolumes, placeVolumeWrites, prepareVolumes, sharedVolumeOf } from '#caas/volumes/volume-moves.ts';
import type { VolumeMove } from '#caas/volumes/volume-moves.ts';
import { probeOnce } from './migration-probe.ts';
import { recoverMigrations } from './migration-recovery.ts';
import { moveFailed, moveRefused } from './move-error.ts';
import { MoveSource, untilQuiet } from './move-source.ts';
import { MoveTarget } from './move-target.ts';
import { checkMove, QUIET_LIMIT_MS } from './move.ts';
import type { MigrationDeps, MigrationReport, Move } from './move.ts';
import { MoveTimes } from './move-times.ts';
import { Turns } from './turns.ts';
import type { ImageTransfer } from './image-transfer.ts';
import type { MigrationProgress } from './move-times.ts';

/** Requests are held no longer than this; a client's own time limit is rarely shorter. */
const HOLD_DEADLINE_MS = 30_000;
/** Requests in flight get this long to end by themselves before they are cut. */
const DRAIN_MS = 2_000;

/** An image, and the memory that it is restored to. */
const WARM_FACTOR = 2;
/** More takes seconds of a processor; what is beyond it is touched when it is needed. */
const WARM_BYTES_MAX = 4 * 1024 ** 3;

type Outcome = Omit<MigrationReport, 'container' | 'from' | 'to' | 'totalMs' | 'phases'>;

export class Migrations {
  readonly #deps: MigrationDeps;
  /** By container: what is under way. */
  readonly #underWay = new Map<string, AbortController>();
  readonly #turns: Turns;

  constructor(deps: MigrationDeps) {
    this.#deps = deps;
    this.#turns = new Turns(deps.atOnce);
  }

  /** Moves a container. Errors: ECLUSE_MIGRATION_REFUSED (nothing was touched), ECLUSE_MIGRATION_FAILED (rolled back). */
  async migrate(id: string, targetName: string, onProgress: (progress: MigrationProgress) => void): Promise<MigrationReport> {
    const { clock, containers } = this.#deps;
    if (this.#underWay.has(id))
      throw moveRefused(`container ${id.slice(0, 12)} is already being moved`, 'wait for the move under way, or cancel it');
    const cancel = new AbortController();
    this.#underWay.set(id, cancel);
    try {
      const times = new MoveTimes(clock, onProgress);
      const onWait = (): void => {
        times.phase('wait', 'for moves that are under way');
      };
      return await this.#turns.run(
        onWait,
        async () =>
          await containers.locks.run(id, async () => {
            const move = await checkMove(this.#deps, id, targetName, { times, signal: cancel.signal });
            const outcome = await this.#runUnheard(move);
            const { source, target } = move;
            const report = { container: id, from: source.name, to: target.name, totalMs: times.totalMs(), ...outcome };
            return { ...report, phases: times.phases() };
          }),
      );
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
    const transfer = await this.#preCopy(move, undo);
    await this.#deps.warm(Math.min(WARM_BYTES_MAX, WARM_FACTOR * move.memoryBytes));
    const isQuiet = await untilQuiet(clock, async () => await containers.inspect(row), QUIET_LIMIT_MS);
    if (!isQuiet) throw new Error('a command that was executed in the container does not end');
    return { copy, volumes, lanAddress, servesBefore, transfer };
  }

  async #preCopy(move: Move, undo: AsyncDisposableStack): Promise<ImageTransfer> {
    move.times.phase('pre-copy', 'memory, while it runs');
    const transfer = await this.#openTransfer(move);
    this.#deferLogged(undo, move, 'transfer', async () => {
      await transfer[Symbol.asyncDispose]();
    });
    await transfer.preCopy();
    return transfer;
  }

  async #openTransfer({ journal, row, source, imageDir, memoryBytes, signal, times }: Move): Promise<ImageTransfer> {
    return await this.#deps.transfers.open({
      migrationId: journal.id,
      fencingToken: row.incarnation,
      imageDir,
      cgroup: source.cgroupOf(row.tenant, row.id),
      runsc: source.runsc,
      memoryBytesMax: Math.max(memoryBytes, row.memoryBytes),
      signal,
      onProgress: ({ phase, round, sentBytes, etaMs }) => {
        const eta = etaMs === undefined ? '' : `, ${String(Math.ceil(etaMs / 1000))} s to go`;
        times.detail(`${phase} ${String(round)}: ${formatBytes(sentBytes)} sent${eta}`);
      },
    });
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
    const frozen = await activator.freeze([row.id], { deadlineMs: HOLD_DEADLINE_MS, drainMs: DRAIN_MS });
    signal.throwIfAborted();
    times.phase('pause', `on ${source.name}`);
    const pausedFromMs = clock.monotonicMs();
    this.#deferLogged(undo, move, 'resume', async () => {
      await from.goOn();
    });
    await from.pause();
    times.phase('checkpoint', 'memory into an image; the last of the files');
    const saving = from.save(imageDir);
    const [imageBytes, targetImageDir] = await Promise.all([
      saving,
      prepared.transfer.deliver(saving),
      prepared.copy.finishFiles(),
    ]);
    await prepared.copy.finishLog();
    signal.throwIfAborted();
    times.phase('restore', `on ${target.name}`);
    // Two that run must never be: the copy ends before the source goes on.
    this.#deferLogged(undo, move, 'copy', async () => {
      await prepared.copy.endNow();
    });
    const restored = await prepared.copy.restore(targetImageDir);
    times.phase('probe', prepared.servesBefore ? 'its port must answer' : 'it must run');
    const address = addressOf(restored);
    if (prepared.servesBefore) await prepared.copy.prove(move.spec, address);
    signal.throwIfAborted();
    times.phase('commit', `${source.name} to ${target.name}`);
    await this.#commit(move, prepared, restored);
    const pausedMs = Math.round(clock.monotonicMs() - pausedFromMs);
    times.phase('thaw', 'requests go on');
    await activator.thaw([row.id]);
    const heldMs = Math.round(clock.monotonicMs() - heldFromMs);
    await fabric.refresh(row.tenant);
    const { cut, closedWebSockets, endedEventStreams, replayed } = frozen;
    const { beforeFreeze: bytesPreCopied, afterFreeze: bytesAfterFreeze } = prepared.transfer.sent();
    const { memoryBytes } = move;
    return {
      heldMs,
      pausedMs,
      memoryBytes,
      imageBytes,
      bytesPreCopied,
      bytesAfterFreeze,
      cut,
      closedWebSockets,
      endedEventStreams,
      replayed,
    };
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

  async #finish(move: Move, { volumes, transfer }: Prepared): Promise<void> {
    const { clock, meter, sql } = this.#deps;
    move.times.phase('clean up', `the paused copy on ${move.source.name} goes`);
    await new MoveSource({ clock, meter }, move.source, move.row).remove();
    await transfer[Symbol.asyncDispose]();
    for (const image of [move.imageDir, `${move.imageDir}.received`]) await rm(image, { recursive: true, force: true });
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
  readonly transfer: ImageTransfer;
}

function addressOf(inspect: EngineInspect): string {
  const [network] = Object.values(inspect.NetworkSettings.Networks ?? {});
  return network?.IPAddress ?? '';
}
