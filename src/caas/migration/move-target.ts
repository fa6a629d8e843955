/**
 * The target's side of a move: a container that its engine has started up to the point where it would run. Owned by the move; disposed before the
 * commit it is taken away again.
 */
import type { Clock } from '#clock';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import { unstage } from '#isolation/held-restore.ts';
import type { RestoreAhead } from '#isolation/held-restore.ts';
import type { ContainerRow } from '#state/containers.ts';
import { inspectSchema } from '#caas/engine/engine-answers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { endHeld, hasSandbox, killSandbox, removeCopy } from '#caas/engine/engine-copy.ts';
import type { EngineCopy } from '#caas/engine/engine-copy.ts';
import { beginStart, finishStart } from '#caas/engine/held-start.ts';
import type { HeldStart, StartedLife } from '#caas/engine/held-start.ts';
import type { Host } from '#caas/host.ts';
import type { VolumeMove } from '#caas/volumes/volume-moves.ts';
import { copyLive, finishLayer, finishTree } from './file-sync.ts';
import { LogCopy } from './log-copy.ts';
import { untilServes } from './migration-probe.ts';
import type { Found } from './migration-probe.ts';

/** Until the sandbox is there: as long as a cold start on a busy machine may take. */
const PRESTART_LIMIT_MS = 60_000;

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

export class MoveTarget implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #place: TargetPlace;
  readonly #created: EngineInspect;
  readonly #log: LogCopy | undefined;
  readonly #since = new Map<string, number>();
  #start: HeldStart | undefined;
  /** When the engine has ended its start. */
  #life: StartedLife | undefined;
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

  /** Lets the engine make the sandbox, and returns when it waits for its image, its engine at a gate. */
  async prestart(ahead: Omit<RestoreAhead, 'holdsEngine'>, signal: AbortSignal): Promise<void> {
    const { host } = this.#place;
    const start = await this.#beginStart({ ...ahead, holdsEngine: true });
    const failed = start.ended.then((failure) => {
      throw failure ?? new Error('the engine says that it started a container that was to wait');
    });
    failed.catch(() => undefined); // It matters only before the gate is reached.
    const reached = await Promise.race([start.held.waits(this.#clock, PRESTART_LIMIT_MS, signal), failed]);
    if (!reached) throw new Error(`host ${host.name} made no sandbox within ${String(PRESTART_LIMIT_MS / 1000)} s`);
  }

  /** Lets the engine end its start, before anybody waits. From here on it says that the container runs; it does not yet. */
  async finishStart(): Promise<void> {
    if (this.#start !== undefined) this.#life = await finishStart(this.#place.host, this.#copy, this.#start);
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

  /** Restores the image, and returns when it runs. */
  async restore(imageDir: string): Promise<StartedLife> {
    const start = this.#start ?? (await this.#beginStart({ holdsEngine: false }));
    this.#life ??= await finishStart(this.#place.host, this.#copy, start);
    await start.held.restore(this.#clock, imageDir);
    return this.#life;
  }

  /** Waits until it does at its port what the source did. */
  async prove(
    spec: ContainerSpec,
    address: string,
    { before, signal }: { readonly before: Found; readonly signal: AbortSignal },
  ): Promise<void> {
    const check = async (): Promise<void> => {
      signal.throwIfAborted();
      await this.mustLive();
    };
    if (!(await untilServes(this.#clock, { spec, address, before, check })))
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

  async #beginStart(ahead: RestoreAhead): Promise<HeldStart> {
    this.#start = await beginStart(this.#place.host, this.#copy, ahead);
    return this.#start;
  }

  /** Its engine must have seen the end: what it believes to run it does not start again. */
  async #giveUpStart(): Promise<void> {
    const [start, life] = [this.#start, this.#life];
    [this.#start, this.#life] = [undefined, undefined];
    if (start === undefined) return;
    await start.held[Symbol.asyncDispose]();
    await start.ended;
    if (life !== undefined) await endHeld(this.#clock, this.#place.host, this.#copy);
  }

  /** Kept, it loses nothing but what was staged for its start. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { host, engineId } = this.#place;
    await this.#start?.held[Symbol.asyncDispose]();
    if (!this.#isOurs) {
      await unstage({ runtimeDir: host.runtimeDir, engineId });
      return;
    }
    await this.#start?.ended;
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
