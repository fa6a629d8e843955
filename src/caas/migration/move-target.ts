/**
 * The target's side of a move: a container that its engine has started up to the point where it would run. Owned by the move; disposed before the
 * commit it is taken away again.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { stageImage, unstageImage } from '#isolation/checkpoint.ts';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import { StartGate } from '#isolation/start-gate.ts';
import type { RestoreAhead } from '#isolation/start-gate.ts';
import type { ContainerRow } from '#state/containers.ts';
import { inspectSchema } from '#caas/engine/engine-answers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { hasSandbox, killSandbox, removeCopy } from '#caas/engine/engine-copy.ts';
import type { EngineCopy } from '#caas/engine/engine-copy.ts';
import type { Host } from '#caas/host.ts';
import type { VolumeMove } from '#caas/volumes/volume-moves.ts';
import { copyLive, finishLayer, finishTree } from './file-sync.ts';
import { LogCopy } from './log-copy.ts';
import { untilServes } from './migration-probe.ts';

/** Until the sandbox is there: as long as a cold start on a busy machine may take. */
const PRESTART_LIMIT_MS = 60_000;
/** How long the engine may wait for an image that is still being made: a pre-copy of many gigabytes over a slow line. */
const START_PATIENCE_MS = 6 * 3_600_000;

export interface TargetPlace {
  readonly host: Host;
  readonly row: Pick<ContainerRow, 'id' | 'tenant' | 'name'>;
  readonly engineId: string;
  readonly source: EngineInspect;
  readonly volumes: VolumeMove;
}

interface Layers {
  readonly upper: string;
  readonly merged: string;
}

interface StartUnderWay {
  readonly gate: StartGate;
  /** Settles when the engine answers; never rejects. */
  readonly ended: Promise<Error | undefined>;
}

export class MoveTarget implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #place: TargetPlace;
  readonly #created: EngineInspect;
  readonly #log: LogCopy | undefined;
  readonly #since = new Map<string, number>();
  #start: StartUnderWay | undefined;
  #isOurs = true;

  private constructor(clock: Clock, place: TargetPlace, created: EngineInspect) {
    this.#clock = clock;
    this.#place = place;
    this.#created = created;
    this.#log = LogCopy.of(place.source, created);
  }

  /** Takes the engine container that was just made. */
  static async open(clock: Clock, place: TargetPlace): Promise<MoveTarget> {
    return new MoveTarget(clock, place, await inspect(place.host, place.engineId));
  }

  get #copy(): EngineCopy {
    const { row, engineId } = this.#place;
    return { tenant: row.tenant, id: row.id, engineId };
  }

  get engineId(): string {
    return this.#place.engineId;
  }

  /** Copies files, volumes and logs while the source runs. */
  async copyFirst(): Promise<void> {
    const [from, to] = [layersOf(this.#place.source), layersOf(this.#created)];
    this.#since.set(from.upper, (await copyLive({ from: from.upper, to: to.upper })).sinceMs);
    for (const travel of this.#place.volumes.travels) {
      if (!travel.isTmpfs) this.#since.set(travel.from, (await copyLive(travel)).sinceMs);
    }
    await this.#log?.first();
  }

  /** Lets the engine make the sandbox, and returns when it waits for its image. */
  async prestart(ahead: RestoreAhead, signal: AbortSignal): Promise<void> {
    const { host } = this.#place;
    const gate = await StartGate.open(host.runtimeDir, this.engineId, ahead);
    const ended = this.#callStart();
    this.#start = { gate, ended };
    const failed = ended.then((failure) => {
      throw failure ?? new Error('the engine says that it started a container that was to wait');
    });
    failed.catch(() => undefined); // It matters only before the gate is reached.
    const reached = await Promise.race([gate.reached(this.#clock, PRESTART_LIMIT_MS, signal), failed]);
    if (!reached) throw new Error(`host ${host.name} made no sandbox within ${String(PRESTART_LIMIT_MS / 1000)} s`);
  }

  /** Files and volumes as they are now. The source is paused. False: the sandbox had to be given up for it, and a later start is a whole one. */
  async finishFiles(): Promise<boolean> {
    const [from, to] = [layersOf(this.#place.source), layersOf(this.#created)];
    const layer = { from: from.upper, to: to.upper, fromMerged: from.merged, toMerged: to.merged };
    const sinceMs = this.#since.get(from.upper) ?? 0;
    const volumes = this.#place.volumes.travels.map(async (travel) => {
      await finishTree(travel, this.#since.get(travel.from) ?? 0);
    });
    // Both to their ends: what fails must not go on copying behind the one who cleans up.
    const written = finishLayer(layer, sinceMs);
    await Promise.allSettled([written, ...volumes]);
    await Promise.all(volumes);
    if (await written) return true;
    await this.#giveUpStart();
    await finishTree(layer, sinceMs);
    return false;
  }

  /** After the source's last word was written down by its engine. */
  async finishLog(): Promise<void> {
    await this.#log?.finish();
  }

  /** Restores the image. Returns when the engine says that the container runs. */
  async restore(imageDir: string): Promise<EngineInspect> {
    const { host, engineId } = this.#place;
    if (this.#start === undefined) {
      await unstageImage(host.runtimeDir, engineId); // A gate that was given up.
      await stageImage(host.runtimeDir, engineId, imageDir);
      const failure = await this.#callStart();
      if (failure !== undefined) throw failure;
    } else {
      await this.#start.gate.release(imageDir);
      const failure = await this.#start.ended;
      this.#start = undefined;
      if (failure !== undefined) throw failure;
    }
    const restored = await inspect(host, engineId);
    if (!restored.State.Running) throw new Error(`the restored container does not run: ${restored.State.Error}`);
    return restored;
  }

  /** Waits until it serves as the source did. */
  async prove(spec: ContainerSpec, address: string, signal: AbortSignal): Promise<void> {
    const check = async (): Promise<void> => {
      signal.throwIfAborted();
      await this.mustLive();
    };
    if (!(await untilServes(this.#clock, { spec, address, check })))
      throw new Error('the restored container does not answer on its port');
  }

  /** Throws where it has ended: the source still has what it had. */
  async mustLive(): Promise<void> {
    if (!(await hasSandbox(this.#place.host, this.#copy))) throw new Error('the restored container ended');
  }

  /** Ends it at once, if it runs: before the source goes on. */
  async endNow(): Promise<void> {
    await killSandbox(this.#place.host, this.#copy);
  }

  /** It is the container from now on: nothing of it is to be taken away. */
  keep(): void {
    this.#isOurs = false;
  }

  async #callStart(): Promise<Error | undefined> {
    try {
      await this.#place.host.client.call({
        method: 'POST',
        path: ['containers', this.engineId, 'start'],
        patienceMs: START_PATIENCE_MS,
      });
      return undefined;
    } catch (error) {
      return error instanceof Error ? error : new Error(reasonOf(error));
    }
  }

  async #giveUpStart(): Promise<void> {
    const start = this.#start;
    this.#start = undefined;
    await start?.gate[Symbol.asyncDispose]();
    await start?.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOurs) return;
    const { host, engineId } = this.#place;
    await this.#giveUpStart();
    await removeCopy(host, this.#copy);
    await forgetFinalCounters(host.runtimeDir, engineId);
  }
}

async function inspect(host: Host, engineId: string): Promise<EngineInspect> {
  const { json } = await host.client.call({ method: 'GET', path: ['containers', engineId, 'json'] });
  return inspectSchema.parse(json);
}

function layersOf({ GraphDriver }: EngineInspect): Layers {
  const upper = GraphDriver?.Data?.['UpperDir'];
  const merged = GraphDriver?.Data?.['MergedDir'];
  if (upper === undefined || merged === undefined) throw new Error('an engine does not keep its layers in overlay directories');
  return { upper, merged };
}
