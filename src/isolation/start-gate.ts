/**
 * A gate in the start of a container: the engine makes the sandbox, the wrapper waits, and the container goes on as a restored one only when its
 * snapshot is there. So all that an engine needs for a start (0.4 s and more) is over before the source of a move is paused.
 *
 * LIFECYCLE   made ──start reaches it──▶ reached ──release(image)──▶ restoring
 *                └────────────┴─────────── called off: the start fails; nothing ever ran
 *
 * INVARIANT: a start that was gated never becomes an ordinary one. Whoever holds the gate holds the FIFO's other end: where that process dies, the
 * waiting start sees the end and fails. A FIFO that nobody holds would keep a start that comes later waiting for ever, so it goes before it is let go of;
 * such a start finds a staged image that does not exist, and fails too.
 */
import { writeFileSync, writeSync } from 'node:fs';
import { access, open, rm, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { runCommand } from '#command';

/** What is staged where a start was called off. No such directory can exist: it would be below a device. */
const CALLED_OFF = '/dev/null/called-off';
const LOOK_PERIOD_MS = 5;
/** All that may be staged for a start, behind its engine id. */
export const STAGED_SUFFIXES = ['', '.gate', '.ahead', '.background', '.waiting', '.failed'] as const;

/** What is known of a restore before its image is there. */
export interface RestoreAhead {
  /** Where it will be: the program that restores it is started ahead, and waits for the release. */
  readonly imageDir?: string;
  /** It may run before all of its memory is loaded (`RunscCapabilities.restoreBackground`). */
  readonly inBackground?: boolean;
}

export class StartGate implements AsyncDisposable {
  readonly #staged: string;
  #handle: FileHandle | undefined;

  private constructor(staged: string, handle: FileHandle) {
    this.#staged = staged;
    this.#handle = handle;
  }

  /** Makes the gate for the next start of `engineId`. `runtimeDir`: the wrapper's directory of the host. */
  static async open(
    runtimeDir: string,
    engineId: string,
    { imageDir, inBackground = false }: RestoreAhead = {},
  ): Promise<StartGate> {
    const staged = join(runtimeDir, 'staged', engineId);
    await clear(staged);
    if (imageDir !== undefined) await writeFile(`${staged}.ahead`, imageDir);
    if (inBackground) await writeFile(`${staged}.background`, '');
    // Until it is released: whatever becomes of the gate, this start is no ordinary one.
    await writeFile(staged, CALLED_OFF);
    await runCommand('mkfifo', ['-m', '0600', `${staged}.gate`]);
    // Read and write: an open for writing alone would wait for the reader.
    return new StartGate(staged, await open(`${staged}.gate`, 'r+'));
  }

  /** Whether the sandbox is there and waits; false after `limitMs`, and when the gate is called off or released meanwhile. */
  async reached(clock: Clock, limitMs: number, signal: AbortSignal): Promise<boolean> {
    const look = async (): Promise<'waiting' | 'closed' | undefined> => {
      signal.throwIfAborted();
      if (this.#handle === undefined) return 'closed'; // Who raced it with something else looks no more, and a node must be able to end.
      return await access(`${this.#staged}.waiting`).then(
        () => 'waiting',
        () => undefined,
      );
    };
    return (await waitFor(clock, look, { limitMs, stepMs: LOOK_PERIOD_MS })) === 'waiting';
  }

  /** Lets the start go on as a restore of `imageDir`. */
  async release(imageDir: string): Promise<void> {
    // Not through the thread pool, which takes milliseconds on a busy machine: clients wait.
    writeFileSync(this.#staged, imageDir);
    if (this.#handle !== undefined) writeSync(this.#handle.fd, 'go\n');
    await this.#close();
  }

  /** Calls the start off, if it was not released. The wrapper's other files go with the container. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#handle !== undefined) await rm(`${this.#staged}.gate`, { force: true });
    await this.#close();
  }

  async #close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }
}

/** Lets go of a start that a daemon left when it died, waiting already or still on its way to the gate: it fails. */
export async function callOffStart(runtimeDir: string, engineId: string): Promise<void> {
  const staged = join(runtimeDir, 'staged', engineId);
  let handle;
  try {
    handle = await open(`${staged}.gate`, 'r+');
  } catch {
    return; // There is none.
  }
  await writeFile(staged, CALLED_OFF);
  await rm(`${staged}.gate`, { force: true });
  await handle.close();
}

async function clear(staged: string): Promise<void> {
  for (const suffix of STAGED_SUFFIXES) await rm(`${staged}${suffix}`, { force: true });
}
