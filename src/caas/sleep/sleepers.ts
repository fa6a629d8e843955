/**
 * Containers that sleep: their memory in a sealed snapshot, their files where they were, no process but, while they sleep lightly, a sandbox that
 * waits at the gate of its start.
 *
 * LIFECYCLE   awake ──suspend──▶ asleep, light ◀──▶ asleep, deep ──wake──▶ awake
 *
 * Light: the engine has started the container up to the gate, so that a wake is a restore and nothing more; its engine can be asked nothing about it
 * meanwhile (moby holds the container's lock during a start). Whoever must ask calls `settle` first, which makes the sleep deep. A daemon that dies
 * leaves deep sleepers: the gates end with it.
 *
 * INVARIANTS: the snapshot is sealed before its container ends, and removed after it proved itself awake. What changes a container holds its lock
 * (`Containers.locks`). A container wakes once, however many ask.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { checkImageRoom } from '#isolation/checkpoint.ts';
import { NotRestored, unstage } from '#isolation/held-restore.ts';
import type { SnapshotVault } from '#isolation/snapshot-vault.ts';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import {
  beginSnapshot,
  beginWake,
  fallAsleep,
  findSnapshot,
  forgetSnapshot,
  giveUpSleep,
  sleepOn,
  wakeUp,
} from '#state/snapshots.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import type { DiskPlaces } from '#caas/disk-places.ts';
import { endHeld, hasSandbox } from '#caas/engine/engine-copy.ts';
import { beginStart, endStart, finishStart, reachedGate } from '#caas/engine/held-start.ts';
import type { HeldStart, StartedLife } from '#caas/engine/held-start.ts';
import { allowRestart, restartAsAllowed } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';
import { bothDone } from '#caas/migration/both-done.ts';
import { keptServing, servingOf, untilServes } from '#caas/migration/migration-probe.ts';
import { MoveSource, untilQuiet } from '#caas/migration/move-source.ts';
import { SAVE_HOLD } from '#caas/migration/save-beside.ts';
import type { SaveDebts } from '#caas/snapshots/save-debts.ts';
import { snapshotRowOf } from '#caas/snapshots/snapshot-row.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { sleepRefusalOf } from './sleep-check.ts';
import { lifeOfRun } from './sleep-recovery.ts';
import { afterFailedWake } from './wake-backoff.ts';
import type { FailedWakes } from './wake-backoff.ts';

export interface SleepersDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly places: DiskPlaces;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly vault: SnapshotVault;
  readonly debts: SaveDebts;
  /** Memory-backed. */
  readonly imageFolder: string;
}

export interface SleepReport {
  readonly container: string;
  readonly imageBytes: number;
  readonly totalMs: number;
}

export interface WakeReport {
  readonly container: string;
  readonly totalMs: number;
}

const QUIET_LIMIT_MS = 10_000;
/** A sandbox that waits costs some 60 MB; beyond this many the longest asleep sleep deeply. */
const LIGHT_MAX = 64;

export class Sleepers implements AsyncDisposable {
  readonly #deps: SleepersDeps;
  /** By container, the longest asleep first. */
  readonly #light = new Map<string, HeldStart>();
  readonly #waking = new Map<string, Promise<WakeReport>>();
  readonly #failed = new Map<string, FailedWakes>();

  constructor(deps: SleepersDeps) {
    this.#deps = deps;
  }

  /** Puts a container to sleep. Errors: ECLUSE_SLEEP_REFUSED (nothing was touched), ECLUSE_SLEEP_FAILED (it goes on). */
  async suspend(id: string): Promise<SleepReport> {
    const { clock, containers } = this.#deps;
    const startedMs = clock.monotonicMs();
    return await containers.locks.run(id, async () => {
      if (!(await this.#deps.debts.settle(id)))
        throw refused('what its last save left is not in order yet', 'see the log of the daemon, and try again in a moment');
      const { row, spec, host } = await this.#checkAwake(id);
      containers.events.hush(id, clock.nowMs());
      try {
        const { imageBytes, snapshotId } = await this.#fallAsleep(row, spec, host);
        await this.#lighten(row, host, snapshotId);
        return { container: id, imageBytes, totalMs: Math.round(clock.monotonicMs() - startedMs) };
      } finally {
        containers.events.loud(id, clock.nowMs());
      }
    });
  }

  async #checkAwake(id: string): Promise<{ readonly row: ContainerRow; readonly spec: ContainerSpec; readonly host: Host }> {
    const { clock, containers, meter, imageFolder } = this.#deps;
    await meter.flush(id);
    const row = await containers.find(id);
    if (row === undefined) throw refused(`container ${id.slice(0, 12)} does not exist`, 'see: ecluse ps');
    const host = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    if (row.snapshot === '' && spec.config.Healthcheck !== null)
      await untilQuiet(clock, async () => await containers.inspect(row), QUIET_LIMIT_MS);
    const inspect = row.snapshot === '' ? await containers.inspect(row) : undefined;
    const refusal = sleepRefusalOf(row, spec, inspect, host.runsc.leaveRunning);
    if (refusal !== undefined) throw refused(refusal.why, refusal.mend);
    if (inspect !== undefined) this.#deps.places.note(row, inspect);
    const usage = host.cgroups.usageOf(host.cgroupOf(row.tenant, row.id));
    await checkImageRoom(imageFolder, usage?.memoryBytes ?? row.memoryBytes);
    return { row, spec, host };
  }

  async #fallAsleep(
    row: ContainerRow,
    spec: ContainerSpec,
    host: Host,
  ): Promise<{ readonly imageBytes: number; readonly snapshotId: string }> {
    const { log, sql, clock, meter, vault, activator, imageFolder, containers } = this.#deps;
    const snapshot = snapshotRowOf(row, host, {
      id: randomUUID(),
      kind: 'sleep',
      nowMs: clock.nowMs(),
      serves: keptServing(await servingOf(spec, row.address)),
    });
    const imageDir = join(imageFolder, snapshot.id);
    const source = new MoveSource({ clock, meter }, host, row);
    await beginSnapshot(sql, snapshot);
    let imageBytes: number;
    try {
      await source.forbidRestart();
      await using save = await source.prepareSave(imageDir);
      await activator.freeze([row.id], SAVE_HOLD);
      imageBytes = await source.pauseAndSave(save).saved;
      const fileBytes = await vault.seal(snapshot, imageDir);
      const outcome = await fallAsleep(sql, snapshot, { engineId: row.engineId, imageBytes, fileBytes }, clock.nowMs());
      if (outcome.kind === 'conflict') throw new Error('the container changed in the store meanwhile');
    } catch (error) {
      await this.#undo(row, source, snapshot, imageDir);
      throw new EcluseError({
        code: 'ECLUSE_SLEEP_FAILED',
        source: 'runtime',
        status: 502,
        message: `container ${row.name} goes on: ${reasonOf(error)}`,
        mend: 'nothing was lost; see the log of the daemon',
        cause: error,
      });
    }
    // It sleeps: what fails from here on does not change that.
    await this.#takeSteps(row.id, [
      async () => {
        await rm(imageDir, { recursive: true, force: true });
      },
      async () => {
        await source.end();
      },
      // What the save cost is not the tenant's to pay; what it costs from here on, asleep, is.
      async () => {
        await meter.resume(row.id, row.incarnation);
      },
      async () => {
        await containers.announceLife(row.tenant);
      },
      async () => {
        await activator.thaw([row.id]);
      },
    ]);
    log.info({ tenant: row.tenant, container: row.id, imageBytes }, 'a container fell asleep');
    return { imageBytes, snapshotId: snapshot.id };
  }

  async #undo(row: ContainerRow, source: MoveSource, snapshot: SnapshotRow, imageDir: string): Promise<void> {
    const { sql, vault, activator } = this.#deps;
    const steps = [
      async () => {
        await source.goOn();
      },
      async () => {
        await activator.thaw([row.id]);
      },
      async () => {
        await rm(imageDir, { recursive: true, force: true });
        await source.limitAgain();
      },
      async () => {
        await vault.remove(snapshot.id);
      },
      async () => {
        await source.allowRestart();
      },
    ];
    await this.#deps.debts.take(row, steps, async () => await forgetSnapshot(sql, snapshot.id, this.#deps.clock.nowMs()));
  }

  /** Takes each step, whatever becomes of the others. */
  async #takeSteps(container: string, steps: readonly (() => Promise<unknown>)[]): Promise<void> {
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        this.#deps.log.error({ container, reason: reasonOf(error) }, 'a step of a sleep failed');
      }
    }
  }

  /** Lets the engine start a sleeping container up to its gate, so that it wakes fast. Where that fails it sleeps deeply, which is no fault. */
  async #lighten(row: ContainerRow, host: Host, snapshotId: string): Promise<void> {
    try {
      const start = await beginStart(host, row, { imageDir: join(this.#deps.imageFolder, snapshotId), holdsEngine: true });
      if (!(await reachedGate(this.#deps.clock, start))) {
        await endStart(host, row, start);
        return;
      }
      this.#light.set(row.id, start);
    } catch (error) {
      this.#deps.log.warn({ container: row.id, reason: reasonOf(error) }, 'a sleeping container wakes slower than it could');
    }
    for (const [id] of this.#light) {
      if (this.#light.size <= LIGHT_MAX) break;
      await this.settle(id);
    }
  }

  /** The start that waits at its gate; undefined: the container sleeps deeply. */
  async #takeLight(row: ContainerRow, host: Host): Promise<HeldStart | undefined> {
    const light = this.#light.get(row.id);
    this.#light.delete(row.id);
    if (light?.isOver !== true) return light;
    await endStart(host, row, light);
    return undefined;
  }

  /** Whether its engine holds its start, and does not answer about it. */
  sleepsLightly(id: string): boolean {
    return this.#light.has(id);
  }

  /** Makes a light sleep deep: its engine answers for the container again. Nothing where it is awake or sleeps deeply. */
  async settle(id: string): Promise<void> {
    const light = this.#light.get(id);
    if (light === undefined) return;
    this.#light.delete(id);
    await light.held[Symbol.asyncDispose]();
    await light.ended;
  }

  /** Wakes a container; at once where it is awake. However many ask, it wakes once. Errors: ECLUSE_WAKE_FAILED (it sleeps on). */
  async wake(id: string): Promise<WakeReport> {
    const underWay = this.#waking.get(id);
    if (underWay !== undefined) return await underWay;
    const waking = this.#deps.containers.locks.run(id, async () => await this.#wakeLocked(id));
    this.#waking.set(id, waking);
    try {
      return await waking;
    } finally {
      this.#waking.delete(id);
    }
  }

  /** For the edge: requests wait for one of these. Answers with a published table, or with how long not to ask. */
  wanted(endpointIds: readonly string[]): void {
    const [id] = endpointIds;
    if (id === undefined) return;
    const waitMs = (this.#failed.get(id)?.retryMs ?? 0) - this.#deps.clock.monotonicMs();
    const answer = waitMs > 0 ? this.#deps.activator.wakeFailed(endpointIds, waitMs) : this.#wakeFor(id, endpointIds);
    answer.catch((error: unknown) => {
      this.#deps.log.error({ container: id, reason: reasonOf(error) }, 'the edge did not hear of a wake that failed');
    });
  }

  async #wakeFor(id: string, endpointIds: readonly string[]): Promise<void> {
    try {
      await this.wake(id);
    } catch (error) {
      this.#deps.log.warn({ container: id, reason: reasonOf(error) }, 'a container did not wake');
      const waitMs = (this.#failed.get(id)?.retryMs ?? 0) - this.#deps.clock.monotonicMs();
      await this.#deps.activator.wakeFailed(endpointIds, Math.max(1_000, waitMs));
    }
  }

  /** As `wake`, for who holds the container's lock. */
  async wakeLocked(row: ContainerRow): Promise<void> {
    await this.#wakeLocked(row.id);
  }

  async #wakeLocked(id: string): Promise<WakeReport> {
    const { clock, containers, sql } = this.#deps;
    const startedMs = clock.monotonicMs();
    await this.#deps.debts.settle(id); // It may run, and the store does not know yet.
    const row = await containers.find(id);
    if (row === undefined) throw refused(`container ${id.slice(0, 12)} does not exist`, 'see: ecluse ps -a');
    if (row.snapshot === '') return { container: id, totalMs: 0 };
    const snapshot = await findSnapshot(sql, row.snapshot);
    if (snapshot === undefined) throw new Error(`the snapshot of container ${row.name} is not known`);
    containers.events.hush(id, clock.nowMs());
    try {
      const life = (await this.#lifeOfRun(row, snapshot)) ?? (await this.#restore(row, snapshot));
      await this.#takeOver(row, snapshot, life);
      this.#failed.delete(id);
      return { container: id, totalMs: Math.round(clock.monotonicMs() - startedMs) };
    } finally {
      containers.events.loud(id, clock.nowMs());
    }
  }

  /** A wake whose end the store was never told, in this daemon or an earlier one: it runs, or has run. */
  async #lifeOfRun(row: ContainerRow, snapshot: SnapshotRow): Promise<StartedLife | undefined> {
    if (snapshot.state !== 'waking') return undefined;
    return await lifeOfRun(this.#deps.clock, this.#deps.containers.hostOf(row), row);
  }

  /**
   * Its engine starts it, and then it is let run: not before the engine and the store have said all that they have to, because from then on its files
   * go on, and memory that is older than they are would be no way back. Errors: ECLUSE_WAKE_FAILED, and it has not run.
   */
  async #restore(row: ContainerRow, snapshot: SnapshotRow): Promise<StartedLife> {
    const { clock, containers, sql, vault, imageFolder } = this.#deps;
    const host = containers.hostOf(row);
    const imageDir = join(imageFolder, snapshot.id);
    let start: HeldStart | undefined;
    let isReleased = false;
    try {
      start = (await this.#takeLight(row, host)) ?? (await beginStart(host, row, { imageDir, holdsEngine: false }));
      const said = bothDone(finishStart(host, row, start), beginWake(sql, snapshot.id));
      const [[life, begun]] = await bothDone(said, vault.unseal(snapshot, imageDir));
      if (begun.kind === 'conflict') throw new Error('the snapshot changed in the store meanwhile');
      isReleased = true;
      await start.held.restore(clock, imageDir);
      return life;
    } catch (error) {
      await start?.held[Symbol.asyncDispose]();
      // Without an outcome it may have run, or still come to run: it stays as it is, and the next wake asks again (`lifeOfRun`).
      if (!isReleased || error instanceof NotRestored) await this.#sleepOn(row, snapshot, imageDir);
      const failed = afterFailedWake(this.#failed.get(row.id), clock.monotonicMs());
      this.#failed.set(row.id, failed);
      throw new EcluseError({
        code: 'ECLUSE_WAKE_FAILED',
        source: 'runtime',
        status: 502,
        message: `container ${row.name} did not wake: ${reasonOf(error)}`,
        mend: `it sleeps on, and is tried again in ${String(failed.backOffMs / 1000)} s at the earliest; its tenant can start it anew: docker restart`,
        cause: error,
      });
    }
  }

  /** It runs, and will not sleep on whatever fails from here on: what cannot be said now is owed. Errors: ECLUSE_WAKE_UNSAID. */
  async #takeOver(row: ContainerRow, snapshot: SnapshotRow, life: StartedLife): Promise<void> {
    const { clock, containers, sql, vault, activator, imageFolder, debts, log } = this.#deps;
    const host = containers.hostOf(row);
    const spec = parseStoredSpec(row.spec);
    const check = async (): Promise<void> => {
      if (!(await hasSandbox(host, row))) throw new Error('it ended');
    };
    const { address } = life;
    if (!(await untilServes(clock, { spec, address, before: snapshot.serves, check }).catch(() => false)))
      log.warn({ container: row.id }, 'a container is awake, and does not answer on its port yet');
    await debts.take(row, [
      async () => {
        await wakeUp(sql, snapshot, life, clock.nowMs()); // A conflict: it was said before.
      },
      async () => {
        await activator.publish();
      },
      // What nobody waits for.
      async () => {
        if (await this.#sleepsStill(row)) throw new Error('the store does not know that the container is awake');
        await unstage({ runtimeDir: host.runtimeDir, engineId: row.engineId });
        await rm(join(imageFolder, snapshot.id), { recursive: true, force: true });
        await vault.remove(snapshot.id);
      },
      async () => {
        await restartAsAllowed(host, row);
        await containers.syncLocked(row.id); // Its end was no news while it slept.
      },
      async () => {
        await containers.announceLife(row.tenant);
      },
    ]);
    if (!(await this.#sleepsStill(row))) return;
    throw new EcluseError({
      code: 'ECLUSE_WAKE_UNSAID',
      source: 'runtime',
      status: 503,
      message: `container ${row.name} runs, and the store could not be told`,
      mend: 'nothing was lost; it is tried again every second, and requests are let in then. See the log of the daemon: a full disk is the usual reason',
    });
  }

  async #sleepsStill(row: ContainerRow): Promise<boolean> {
    return (await this.#deps.containers.find(row.id))?.snapshot === row.snapshot;
  }

  /** Nothing of a wake that failed may run. */
  async #sleepOn(row: ContainerRow, snapshot: SnapshotRow, imageDir: string): Promise<void> {
    const { clock, sql, containers } = this.#deps;
    await this.#takeSteps(row.id, [
      async () => {
        await rm(imageDir, { recursive: true, force: true });
      },
      async () => {
        await endHeld(clock, containers.hostOf(row), row);
      },
      async () => {
        await sleepOn(sql, snapshot.id);
      },
    ]);
  }

  /** Gives up what a sleeping container remembers: it goes, or starts anew. The caller holds its lock. */
  async forget(row: ContainerRow): Promise<void> {
    await this.settle(row.id);
    this.#failed.delete(row.id);
    await this.#deps.debts.settle(row.id);
    if (!(await this.#sleepsStill(row))) return; // It was awake, and the store has heard of it only now.
    await unstage({ runtimeDir: this.#deps.containers.hostOf(row).runtimeDir, engineId: row.engineId });
    await giveUpSleep(this.#deps.sql, row, this.#deps.clock.nowMs());
    await this.#deps.vault.remove(row.snapshot);
    await allowRestart(this.#deps.containers.hostOf(row), row);
  }

  /** The gates end: every sleep becomes deep. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#light.keys()].map(async (id) => await this.settle(id)));
  }
}

function refused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_SLEEP_REFUSED', source: 'usage', status: 409, message, mend });
}
