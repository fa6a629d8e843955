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
 * What a step acquires is given back in reverse order by one stack, which the commit empties. From the freeze to the end neither engine may start its copy
 * by itself. What could not be given back or cleaned up (an engine was away, the disk was full) keeps its journal open and is tried again every second;
 * so is, at the next start, what a daemon left that died in the middle (`recover`).
 */
import { rm } from 'node:fs/promises';
import { reasonOf } from '#errors';
import { Turns } from '#lifecycle';
import { formatBytes } from '#units';
import {
  beginMigration,
  commitMigration,
  setMigrationAddress,
  setMigrationState,
  setMigrationTarget,
} from '#state/migrations.ts';
import { killSessions } from '#isolation/sandbox-sessions.ts';
import { findIncarnation } from '#state/ledger.ts';
import { incarnationBaseOf } from '#caas/incarnation-base.ts';
import type { StartedLife } from '#caas/engine/held-start.ts';
import { removeCopy } from '#caas/engine/engine-copy.ts';
import { withoutRestart } from '#caas/engine/restart-policy.ts';
import { dropForeignVolumes, placeVolumeWrites, prepareVolumes, sharedVolumeOf } from '#caas/volumes/volume-moves.ts';
import type { VolumeMove } from '#caas/volumes/volume-moves.ts';
import { bothDone } from './both-done.ts';
import { servingOf } from './migration-probe.ts';
import type { Found } from './migration-probe.ts';
import { MoveDebts } from './move-debts.ts';
import { moveFailed, moveReason, moveRefused } from './move-error.ts';
import { isHealthCheckOf, MoveSource, untilQuiet } from './move-source.ts';
import { SAVE_HOLD } from './save-beside.ts';
import { MoveTarget } from './move-target.ts';
import { checkMove, QUIET_LIMIT_MS } from './move.ts';
import type { MigrationDeps, MigrationReport, Move, MoveOrder } from './move.ts';
import { MoveTimes } from './move-times.ts';
import { backgroundOf } from './strategy.ts';
import type { ImageTransfer } from './image-transfer.ts';
import type { MigrationProgress } from './move-times.ts';

/** An image, and the memory that it is restored to. */
const WARM_FACTOR = 2;
/** More takes seconds of a processor; what is beyond it is touched when it is needed. */
const WARM_BYTES_MAX = 4 * 1024 ** 3;

/** What waited in a move is answered in about that time; cleaning up costs as much processor time as a start, and nobody waits for it. */
const SETTLE_MS = 500;

type Outcome = Omit<MigrationReport, 'container' | 'from' | 'to' | 'totalMs' | 'phases'>;

/** What is known when the target has the container. */
interface Crossing {
  readonly heldFromMs: number;
  readonly transfer: ImageTransfer;
  readonly copy: MoveTarget;
  readonly outcome: Omit<Outcome, 'heldMs'>;
}

export class Migrations implements AsyncDisposable {
  readonly #deps: MigrationDeps;
  /** By container: what is under way. */
  readonly #underWay = new Map<string, AbortController>();
  readonly #turns: Turns;
  readonly #debts: MoveDebts;
  #isEnding = false;

  constructor(deps: MigrationDeps) {
    this.#deps = deps;
    this.#turns = new Turns(deps.atOnce);
    this.#debts = new MoveDebts(deps);
  }

  /** Moves a container. Errors: ECLUSE_MIGRATION_REFUSED (nothing was touched), ECLUSE_MIGRATION_FAILED (rolled back). */
  async migrate(
    id: string,
    targetName: string,
    onProgress: (progress: MigrationProgress) => void,
    { cause, endSessions, confirm }: MoveOrder = { cause: 'order', endSessions: false },
  ): Promise<MigrationReport> {
    const { clock, containers } = this.#deps;
    if (this.#underWay.has(id))
      throw moveRefused(`container ${id.slice(0, 12)} is already being moved`, 'wait for the move under way, or cancel it');
    if (this.#isEnding) throw moveRefused('the node is being stopped', 'start it again');
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
            if (!(await this.#debts.settle(id)))
              throw moveRefused(
                'what its last move left is not in order yet',
                'see the log of the daemon, and try again in a moment',
              );
            const move = await checkMove(this.#deps, id, targetName, {
              times,
              cause,
              endSessions,
              confirm,
              signal: cancel.signal,
            });
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
    const { row, source, journal, times } = move;
    if ((await beginMigration(sql, journal, clock.nowMs())).kind === 'conflict')
      throw moveRefused(`container ${row.name} is already being moved`, 'wait for the move under way');
    const undo = new AsyncDisposableStack();
    this.#deferLogged(undo, move, 'journal', async () => {
      // Where a step before this one failed, the journal tells to take them all again.
      if (!this.#debts.isOwed(row.id)) await setMigrationState(sql, journal, 'rolled-back', clock.nowMs());
      await this.#deps.fabric.refresh(row.tenant);
    });
    let crossing: Crossing;
    try {
      const prepared = await this.#prepare(move, undo);
      crossing = await this.#cross(move, prepared, undo);
    } catch (error) {
      times.phase('roll back', `to ${source.name}`);
      this.#deps.log.warn({ container: row.id, to: move.target.name, reason: reasonOf(error) }, 'a move goes back');
      await undo.disposeAsync();
      throw moveFailed(`container ${row.name} stays on ${source.name}: ${moveReason(error)}`, error);
    }
    undo.move(); // There is nothing to undo any more.
    return await this.#finish(move, crossing);
  }

  /** Everything that can be done while the source runs and serves. */
  async #prepare(move: Move, undo: AsyncDisposableStack): Promise<Prepared> {
    const { sql, clock, containers } = this.#deps;
    const { row, spec, source, target, journal, times, signal } = move;
    times.phase('prepare', `image, container and files on ${target.name}`);
    const lanAddress = await this.#takeAddress(move);
    this.#deferLogged(undo, move, 'rest', async () => {
      // By its name: there may be one that we never learned the id of.
      await removeCopy(target, { tenant: row.tenant, id: row.id, engineId: containers.engineNameOf(target, row.id) });
      await dropForeignVolumes(sql, target, row.tenant, spec.mounts);
    });
    const volumes = await prepareVolumes(sql, {
      tenant: row.tenant,
      container: row.id,
      from: source,
      to: target,
      mounts: spec.mounts,
    });
    const engineId = await containers.makeEngineContainer(
      target,
      { ...row, lanAddress },
      {
        spec: withoutRestart(spec),
        mounts: volumes.engineMounts,
      },
    );
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
    const ahead = {
      imageDir: this.#deps.transfers.targetDirOf(move.imageDir),
      inBackground: backgroundOf(target, move.memoryBytes).yes,
    };
    await copy.prestart(ahead, signal);
    const before = await servingOf(spec, row.address);
    const transfer = await this.#preCopy(move, undo);
    times.phase('warm', 'memory for the image, in time that nobody wants');
    const warmth = await this.#deps.warm(Math.min(WARM_BYTES_MAX, WARM_FACTOR * move.memoryBytes));
    this.#deferLogged(undo, move, 'warmth', async () => {
      await warmth[Symbol.asyncDispose]();
    });
    if (move.endSessions) {
      times.phase('sessions', 'of exec end');
      await killSessions(source.runsc, { runscRoot: source.runscRoot, engineId: row.engineId }, isHealthCheckOf(spec));
    }
    const isQuiet = await untilQuiet(clock, async () => await containers.inspect(row), QUIET_LIMIT_MS);
    if (!isQuiet) throw new Error('a command that was executed in the container does not end');
    await copy.finishStart();
    return { copy, volumes, before, transfer, warmth };
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

  /** From the freeze to the commit: what clients wait for. */
  async #cross(move: Move, prepared: Prepared, undo: AsyncDisposableStack): Promise<Crossing> {
    const { sql, clock, activator, meter } = this.#deps;
    const { row, source, target, journal, times, imageDir, signal } = move;
    const from = new MoveSource({ clock, meter }, source, row);
    this.#deferLogged(undo, move, 'policy', async () => {
      await from.allowRestart();
    });
    this.#deferLogged(undo, move, 'limit', async () => {
      await rm(imageDir, { recursive: true, force: true });
      await from.limitAgain();
    });
    // Written down before it is true: a daemon that dies in between resumes what is not paused, which does nothing.
    await setMigrationState(sql, journal, 'paused', clock.nowMs());
    await from.forbidRestart();
    await using save = await from.prepareSave(imageDir);
    times.phase('freeze', 'new requests wait, those in flight end');
    const heldFromMs = clock.monotonicMs();
    this.#deferLogged(undo, move, 'thaw', async () => {
      await activator.thaw([row.id]);
    });
    const frozen = await activator.freeze([row.id], SAVE_HOLD);
    await prepared.warmth[Symbol.asyncDispose]();
    signal.throwIfAborted();
    times.phase('pause', `on ${source.name}`);
    const pausedFromMs = clock.monotonicMs();
    this.#deferLogged(undo, move, 'resume', async () => {
      await from.goOn();
    });
    const { paused, saved } = from.pauseAndSave(save);
    const finished = paused.then(async () => {
      times.phase('checkpoint', 'memory into an image; the last of the files');
      return await prepared.copy.finishFiles();
    });
    const [[imageBytes, targetImageDir]] = await bothDone(bothDone(saved, prepared.transfer.deliver(saved)), finished);
    await prepared.copy.finishLog();
    signal.throwIfAborted();
    times.phase('restore', `on ${target.name}`);
    // Two that run must never be: the copy ends before the source goes on.
    this.#deferLogged(undo, move, 'copy', async () => {
      await prepared.copy.endNow();
    });
    const restored = await prepared.copy.restore(targetImageDir);
    times.phase('probe', prepared.before === 'nothing' ? 'it must run' : 'its port must answer');
    if (prepared.before !== 'nothing')
      await prepared.copy.prove(move.spec, restored.address, { before: prepared.before, signal });
    signal.throwIfAborted();
    times.phase('commit', `${source.name} to ${target.name}`);
    await this.#commit(move, prepared, restored);
    const pausedMs = Math.round(clock.monotonicMs() - pausedFromMs);
    const { cut, closedWebSockets, endedEventStreams, replayed } = frozen;
    const { beforeFreeze: bytesPreCopied, afterFreeze: bytesAfterFreeze } = prepared.transfer.sent();
    const sizes = { memoryBytes: move.memoryBytes, imageBytes, bytesPreCopied, bytesAfterFreeze };
    const { transfer, copy } = prepared;
    return { heldFromMs, transfer, copy, outcome: { pausedMs, ...sizes, cut, closedWebSockets, endedEventStreams, replayed } };
  }

  async #commit(move: Move, { copy, volumes }: Prepared, { address, carriedStart }: StartedLife): Promise<void> {
    const { sql, meter } = this.#deps;
    const { row, target, journal, spec } = move;
    const begun = await meter.startingPoint(incarnationBaseOf({ ...row, incarnation: row.incarnation + 1 }, target));
    // Of each moment one side is billed, and none of no side.
    const left = await findIncarnation(sql, row.id, row.incarnation);
    const incarnation = { ...begun, meteredToMs: left?.meteredToMs ?? begun.meteredToMs };
    const commit = async (): Promise<void> => {
      const shared = await sharedVolumeOf(sql, row.id, row.tenant, spec.mounts);
      if (shared !== undefined) throw new Error(`volume ${shared} was given to another container meanwhile`);
      await copy.mustLive();
      const outcome = await commitMigration(sql, journal, {
        engineId: copy.engineId,
        address,
        lanAddress: address,
        carriedStart,
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

  /** The target has the container. Nothing that fails from here on changes that; it is put right later. */
  async #finish(move: Move, { heldFromMs, transfer, copy, outcome }: Crossing): Promise<Outcome> {
    const { clock, activator, fabric } = this.#deps;
    const { row, source, times } = move;
    times.phase('thaw', 'requests go on');
    await this.#attempt(move, 'thaw', async () => {
      await activator.thaw([row.id]);
    });
    const heldMs = Math.round(clock.monotonicMs() - heldFromMs);
    times.phase('settle', 'what waited is answered first');
    await clock.sleep(SETTLE_MS);
    await this.#attempt(move, 'rules', async () => {
      await fabric.refresh(row.tenant);
    });
    times.phase('clean up', `the paused copy on ${source.name} goes`);
    await this.#attempt(move, 'transfer', async () => {
      await transfer[Symbol.asyncDispose]();
    });
    await this.#attempt(move, 'target', async () => {
      await copy[Symbol.asyncDispose]();
    });
    this.#debts.owe(row.id);
    await this.#attempt(move, 'clean up', async () => {
      await this.#debts.settle(row.id);
    });
    return { ...outcome, heldMs };
  }

  /** A part of the move that does not undo it where it fails. */
  async #attempt({ row }: Move, step: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#debts.owe(row.id);
      this.#deps.log.error(
        { container: row.id, step, reason: reasonOf(error) },
        'a step of a migration failed, and is tried again',
      );
    }
  }

  /** A step of the way back: one that fails is told, and the others are taken all the same. */
  #deferLogged(undo: AsyncDisposableStack, move: Move, step: string, work: () => Promise<void>): void {
    undo.defer(async () => {
      await this.#attempt(move, `roll back: ${step}`, work);
    });
  }

  /** Finishes or undoes what a daemon left in the middle, and from then on what is owed. Called before anything serves. */
  async recover(): Promise<void> {
    await this.#debts.start();
  }

  /** Calls off what is under way and waits for its way back. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    for (const cancel of this.#underWay.values()) cancel.abort(new Error('the node is being stopped'));
    await Promise.all(
      [...this.#underWay.keys()].map(async (id) => await this.#deps.containers.locks.run(id, async () => undefined)),
    );
    await this.#debts[Symbol.asyncDispose]();
  }
}

interface Prepared {
  readonly copy: MoveTarget;
  readonly volumes: VolumeMove;
  /** What it did at its port. */
  readonly before: Found;
  readonly transfer: ImageTransfer;
  readonly warmth: AsyncDisposable;
}
