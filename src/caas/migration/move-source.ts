/** The source's side of a move: paused below its engine, saved, and either let go on or ended without ever waking. */
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { PreparedSave } from '#isolation/checkpoint.ts';
import type { SandboxPlace, SaveUnderWay } from '#isolation/checkpoint.ts';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { SandboxProcess } from '#isolation/sandbox-processes.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { correctPaused, endHeld, letGoOn, limitMemory, removePaused } from '#caas/engine/engine-copy.ts';
import { bothDone } from './both-done.ts';
import { forbidRestart, restartAsAllowed } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Meter } from '#caas/meter.ts';

export interface SourceDeps {
  readonly clock: Clock;
  readonly meter: Meter;
}

export class MoveSource {
  readonly #deps: SourceDeps;
  readonly #host: Host;
  readonly #row: ContainerRow;
  #metering: Promise<void> = Promise.resolve();

  constructor(deps: SourceDeps, host: Host, row: ContainerRow) {
    this.#deps = deps;
    this.#host = host;
    this.#row = row;
  }

  get #place(): SandboxPlace {
    const { runtimeDir, runscRoot } = this.#host;
    return { runtimeDir, runscRoot, engineId: this.#row.engineId, cgroup: `${this.#cgroup}/${this.#row.engineId}` };
  }

  get #cgroup(): string {
    return this.#host.cgroupOf(this.#row.tenant, this.#row.id);
  }

  /** Before it is paused: if its sandbox is killed from here on, its engine starts no second one beside the copy that takes its place. */
  async forbidRestart(): Promise<void> {
    await forbidRestart(this.#host, this.#row.engineId);
  }

  /** When it went on after it was held for a moment: an engine that was started again meanwhile believes that it is paused. */
  async correctEngine(): Promise<void> {
    await correctPaused(this.#host, this.#row);
  }

  /** When it went on: it has its policy again, and is started by it where it ended meanwhile. Its engine must know that it is not paused. */
  async allowRestart(): Promise<void> {
    await correctPaused(this.#host, this.#row);
    await restartAsAllowed(this.#host, this.#row);
  }

  /** Starts the programs of a save, which wait for its word: the time that they take is nobody's to wait for. To be disposed of. */
  async prepareSave(imageDir: string): Promise<PreparedSave> {
    return await PreparedSave.open(this.#host.cgroups, this.#place, imageDir);
  }

  /**
   * Stops it and saves it. Its meter stops as the word is given: what the save itself costs happens in its cgroup too, and is not the tenant's to pay,
   * and what it did in the milliseconds until it stood still cannot be told from that.
   */
  pauseAndSave(save: PreparedSave): SaveUnderWay {
    // Written down beside the save: nobody reads it before the commit.
    const usage = this.#host.cgroups.usageOf(this.#cgroup);
    const { paused, saved } = save.go();
    this.#metering = this.#deps.meter.suspend(this.#row.id, usage);
    const all = bothDone(saved, this.#metering).then(([bytes]) => bytes);
    for (const promise of [paused, all]) promise.catch(() => undefined); // Whoever waits hears of it.
    return { paused, saved: all };
  }

  /** Lets it go on as it was. */
  async goOn(): Promise<void> {
    try {
      await letGoOn(this.#host, this.#row);
    } finally {
      await this.#metering.catch(() => undefined);
      await this.#deps.meter.resume(this.#row.id, this.#row.incarnation);
    }
  }

  /** The save lifted its limit. To be called when the image is gone: its pages count, too. */
  async limitAgain(): Promise<void> {
    await limitMemory(this.#deps.clock, this.#host, this.#row);
  }

  /** Ends it without waking it; its engine keeps its files. Its restart was forbidden before. */
  async end(): Promise<void> {
    await endHeld(this.#deps.clock, this.#host, this.#row);
  }

  /** Ends it without waking it, and takes it away. */
  async remove(): Promise<void> {
    await removePaused(this.#deps.clock, this.#host, this.#row);
    await forgetFinalCounters(this.#host.runtimeDir, this.#row.engineId);
  }
}

/** Waits until no command of a health check runs in a container: one that is saved with it makes its restore fail. */
export async function untilQuiet(
  clock: Clock,
  inspect: () => Promise<EngineInspect | undefined>,
  limitMs: number,
): Promise<boolean> {
  const isQuiet = async (): Promise<true | undefined> => (((await inspect())?.ExecIDs ?? []).length === 0 ? true : undefined);
  return (await waitFor(clock, isQuiet, { limitMs, stepMs: 20 })) === true;
}

/** Tells the command of a container's health check, which ends by itself, from what tenants execute. */
export function isHealthCheckOf({ config }: ContainerSpec): (process: Pick<SandboxProcess, 'args'>) => boolean {
  const [kind, ...words] = config.Healthcheck?.Test ?? [];
  if (kind === undefined || kind === 'NONE') return () => false;
  // Words of a shell: the shell is the image's, and the last word is ours.
  const count = kind === 'CMD-SHELL' ? 1 : words.length;
  const wanted = (kind === 'CMD' || kind === 'CMD-SHELL' ? words : [kind, ...words]).slice(-count).join('\0');
  return ({ args }) => args.slice(-count).join('\0') === wanted;
}
