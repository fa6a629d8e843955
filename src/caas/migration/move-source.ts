/** The source's side of a move: paused below its engine, saved, and either let go on or ended without ever waking. */
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { imageBytesOf, saveCheckpoint } from '#isolation/checkpoint.ts';
import type { SandboxPlace } from '#isolation/checkpoint.ts';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import { pauseSandbox } from '#isolation/sandbox-pause.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { correctPaused, endHeld, letGoOn, limitMemory, removePaused } from '#caas/engine/engine-copy.ts';
import { forbidRestart, restartAsAllowed } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';
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

  /** When it went on: it has its policy again, and is started by it where it ended meanwhile. Its engine must know that it is not paused. */
  async allowRestart(): Promise<void> {
    await correctPaused(this.#host, this.#row);
    await restartAsAllowed(this.#host, this.#row);
  }

  /** Stops it, and its meter at that instant: what the save itself costs happens in its cgroup too, and is not the tenant's to pay. */
  async pause(): Promise<void> {
    await pauseSandbox(this.#place);
    const usage = await this.#host.cgroups.usageOf(this.#cgroup);
    // Written down beside the save: nobody reads it before the commit.
    this.#metering = this.#deps.meter.suspend(this.#row.id, usage);
    this.#metering.catch(() => undefined); // `save` waits for it.
  }

  /** Saves the paused sandbox. Returns the image's size. */
  async save(imageDir: string): Promise<number> {
    await saveCheckpoint(this.#host.cgroups, this.#place, imageDir);
    await this.#metering;
    return await imageBytesOf(imageDir);
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
