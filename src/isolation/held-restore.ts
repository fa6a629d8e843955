/**
 * A restore that is held: its engine starts the container, and the program does not run before the node says so. What an engine needs for a start
 * (0.4 s and more) is over before anybody waits, and the node knows of every moment whether the program has run: until its word it has not, whatever
 * broke, and its snapshot is as good as before.
 *
 * LIFECYCLE   open ──start──▶ held at the gate ──letEngineGoOn──▶ started, as its engine says ──restore──▶ runs
 *               └──────────────────┴───────────────────────────────┴── disposed of: the sandbox ends; nothing ever ran
 *
 * Without a gate (`holdsEngine`) the start goes through to the second place at once. While it is held at the gate its engine can be asked nothing about
 * the container (moby holds its lock during a start), and nothing asks the container either, as a health check would that begins with the start.
 *
 * INVARIANT: a start that was held never becomes an ordinary one. Whoever holds it holds the other ends of its FIFOs: where that process dies, what
 * waits sees the end and ends the sandbox. A FIFO that nobody holds would keep a start that comes later waiting for ever, so it goes before it is let
 * go of; such a start fails.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { mkdir, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { runCommand } from '#command';

const LOOK_PERIOD_MS = 5;
const REMOVE_TRIES = 5;
/** 4 GiB are read in 10 s on a machine with nothing else to do. */
const RESTORE_LIMIT_MS = 120_000;

/** What is known of a restore before its image is there. */
export interface RestoreAhead {
  /** Where it will be: the program that restores it is started ahead, and waits for the release. */
  readonly imageDir?: string;
  /** It may run before all of its memory is loaded (`RunscCapabilities.restoreBackground`). */
  readonly inBackground?: boolean;
  /** Its engine's start stops at a gate, until `letEngineGoOn`. */
  readonly holdsEngine: boolean;
}

/** Where a container starts. */
export interface RestorePlace {
  /** The wrapper's directory of the host (`runtime-settings.ts`). */
  readonly runtimeDir: string;
  readonly engineId: string;
}

const FIFOS = ['gate', 'release'] as const;

/** The program did not run: its snapshot is what it was. */
export class NotRestored extends Error {}

export class HeldRestore implements AsyncDisposable {
  readonly #held: string;
  #gate: number | undefined;
  #release: number | undefined;

  private constructor(held: string, fifos: { readonly gate: number | undefined; readonly release: number }) {
    this.#held = held;
    this.#gate = fifos.gate;
    this.#release = fifos.release;
  }

  /** Makes the next start of a container a held one. */
  static async open(place: RestorePlace, { imageDir, inBackground = false, holdsEngine }: RestoreAhead): Promise<HeldRestore> {
    await unstage(place);
    // Each has its own, so that what an earlier one left cannot be taken for this one's.
    const held = join(heldFolderOf(place), randomUUID());
    await mkdir(held, { recursive: true, mode: 0o700 });
    if (imageDir !== undefined) await writeFile(join(held, 'ahead'), imageDir);
    if (inBackground) await writeFile(join(held, 'background'), '');
    const gate = holdsEngine ? await makeFifo(join(held, 'gate')) : undefined;
    const release = await makeFifo(join(held, 'release'));
    await writeFile(stagedFileOf(place), held);
    return new HeldRestore(held, { gate, release });
  }

  /** Whether the sandbox is there and waits; false after `limitMs`, and when it was disposed of meanwhile. */
  async waits(clock: Clock, limitMs: number, signal: AbortSignal): Promise<boolean> {
    const look = (): 'waiting' | 'closed' | undefined => {
      signal.throwIfAborted();
      if (this.#release === undefined) return 'closed'; // Who raced it with something else looks no more, and a node must be able to end.
      return existsSync(join(this.#held, 'waiting')) ? 'waiting' : undefined;
    };
    return (await waitFor(clock, look, { limitMs, stepMs: LOOK_PERIOD_MS })) === 'waiting';
  }

  /** Lets the engine's start pass the gate. */
  letEngineGoOn(): void {
    if (this.#gate !== undefined) writeSync(this.#gate, 'go\n');
  }

  /**
   * Lets the program run, from `imageDir`; returns when it does. Errors: NotRestored. Whoever gets another error (it took too long) cannot know
   * whether it has run.
   */
  async restore(clock: Clock, imageDir: string): Promise<void> {
    if (this.#release === undefined) throw new NotRestored('the start was called off');
    // Not through the thread pool, which takes milliseconds on a busy machine: clients wait.
    writeSync(this.#release, `${imageDir}\n`);
    const outcome = await waitFor(clock, () => outcomeIn(this.#held), { limitMs: RESTORE_LIMIT_MS, stepMs: LOOK_PERIOD_MS });
    if (outcome === undefined) throw new Error(`the restore did not end within ${String(RESTORE_LIMIT_MS / 1000)} s`);
    if (outcome !== 'restored') throw new NotRestored(outcome.reason);
    this.#letGo();
  }

  /** Calls it off where it was not released. The next start fails then, until it is unstaged (`unstage`) or held again. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const fifo of FIFOS) await rm(join(this.#held, fifo), { force: true });
    this.#letGo();
  }

  #letGo(): void {
    for (const fd of [this.#gate, this.#release]) if (fd !== undefined) closeSync(fd);
    [this.#gate, this.#release] = [undefined, undefined];
  }
}

/** Lets go of a start that a daemon left when it died, wherever it waits, and of one that is still on its way: it ends, unless it was released. */
export async function callOffStart(place: RestorePlace): Promise<void> {
  const held = await heldOf(place);
  if (held === undefined) return;
  for (const fifo of FIFOS) {
    const handle = await open(join(held, fifo), 'r+').catch(() => undefined);
    await rm(join(held, fifo), { force: true });
    await handle?.close();
  }
}

/**
 * Whether the program has run of which a daemon that died may have let the restore go. Waits for a restore that is under way, for as long as `isThere`
 * says that there is a sandbox.
 */
export async function hasRun(clock: Clock, place: RestorePlace, isThere: () => Promise<boolean>): Promise<boolean> {
  const look = async (): Promise<'restored' | 'did not run' | undefined> => {
    const isOver = !(await isThere()); // Before the look: an outcome is written while it is there.
    const outcomes = await outcomesOf(place);
    if (outcomes.includes('restored')) return 'restored';
    return outcomes.length > 0 || isOver ? 'did not run' : undefined;
  };
  return (await waitFor(clock, look, { limitMs: RESTORE_LIMIT_MS, stepMs: LOOK_PERIOD_MS })) === 'restored';
}

/** Of the last held restore. Not of the one that is staged: a start that was restored is staged no more. */
async function outcomesOf(place: RestorePlace): Promise<readonly Outcome[]> {
  const folder = heldFolderOf(place);
  const names = await readdir(folder).catch(() => []);
  return names.map((name) => outcomeIn(join(folder, name))).filter((outcome) => outcome !== undefined);
}

/** When it ran, or its container goes: nothing tells of it any more, and the next start is an ordinary one. What waits is not called off by it. */
export async function unstage(place: RestorePlace): Promise<void> {
  for (const suffix of ['', '.failed']) await rm(`${stagedFileOf(place)}${suffix}`, { force: true });
  // One that was called off may be writing its last word in there.
  await rm(heldFolderOf(place), { recursive: true, force: true, maxRetries: REMOVE_TRIES, retryDelay: LOOK_PERIOD_MS });
}

/** Where a container's snapshot is staged for its next start. */
export function stagedFileOf({ runtimeDir, engineId }: RestorePlace): string {
  return join(runtimeDir, 'staged', engineId);
}

function heldFolderOf({ runtimeDir, engineId }: RestorePlace): string {
  return join(runtimeDir, 'held', engineId);
}

/** The held restore that is staged; undefined where there is none, or a snapshot. */
async function heldOf(place: RestorePlace): Promise<string | undefined> {
  const staged = await readFile(stagedFileOf(place), 'utf8').catch(() => '');
  return staged.startsWith(`${heldFolderOf(place)}/`) ? staged : undefined;
}

type Outcome = 'restored' | { readonly reason: string };

/** In this very turn, as the release. */
function outcomeIn(held: string): Outcome | undefined {
  if (existsSync(join(held, 'restored'))) return 'restored';
  try {
    return { reason: firstLineOf(readFileSync(join(held, 'failed'), 'utf8')) };
  } catch {
    return undefined; // It is not there yet.
  }
}

/** Programs that panic say a page. */
const REASON_MAX = 1_000;

function firstLineOf(said: string): string {
  const line = said.split('\n').find((text) => text.trim() !== '');
  return line?.trim().slice(0, REASON_MAX) ?? 'the restore failed without a word';
}

/** A descriptor of it. */
async function makeFifo(path: string): Promise<number> {
  await runCommand('mkfifo', ['-m', '0600', path]);
  // Read and write: an open for writing alone would wait for the reader.
  return openSync(path, 'r+');
}
