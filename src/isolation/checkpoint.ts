/** Freezing a sandbox into an image directory, and staging such an image for a container that is about to start. */
import { spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { tryCommand } from '#command';
import { EcluseError, reasonOf } from '#errors';
import type { Cgroups } from './cgroup.ts';
import { tcpCountersOf, wasReset } from './sandbox-connections.ts';
import type { TcpCounters } from './sandbox-connections.ts';
import { WRAPPER_FILE } from './runtime-settings.ts';
import { stagedFileOf } from './held-restore.ts';
import type { RestorePlace } from './held-restore.ts';

export interface SandboxPlace {
  /** The wrapper's directory of the host (`runtime-settings.ts`). */
  readonly runtimeDir: string;
  /** runsc's state directory below the engine's exec-root. */
  readonly runscRoot: string;
  readonly engineId: string;
  /** The container's own cgroup. */
  readonly cgroup: string;
}

/** A save that takes longer is stuck: 4 GiB at the slowest rate seen (0.4 GiB/s) take 10 s. */
const SAVE_TIMEOUT_MS = 60_000;
/** What is kept of runsc's words: an error and some of the stack below it. */
const SAID_MAX = 16_384;
/** What must stay free beside the image in memory-backed storage. */
const RESERVE_BYTES = 256 * 1024 * 1024;

/** Refuses where the image of `memoryBytes` would not fit: a save that fails half-way costs the container its pause. */
export async function checkImageRoom(folder: string, memoryBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes < memoryBytes + RESERVE_BYTES) {
    throw new EcluseError({
      code: 'ECLUSE_SNAPSHOT_NO_ROOM',
      source: 'runtime',
      status: 507,
      message: `${folder} has ${String(freeBytes)} bytes free, the snapshot needs about ${String(memoryBytes)} and a reserve`,
      mend: 'free memory-backed space (df /dev/shm) or move smaller containers first',
    });
  }
}

/** A save that was told to begin. */
export interface SaveUnderWay {
  /** The sandbox is still. Rejects where it could not be paused; then the save fails too. */
  readonly paused: Promise<void>;
  /** The image is whole: its size in bytes. Settles after `paused`, and when nothing writes to the image any more. */
  readonly saved: Promise<number>;
}

/**
 * A save that waits for its word: the programs that pause and save a sandbox are started before requests are held for them, and stand still until then
 * (`save` of ecluse-runsc). Disposed of before its word it did nothing.
 */
export class PreparedSave implements AsyncDisposable {
  readonly #cgroups: Cgroups;
  readonly #place: SandboxPlace;
  readonly #imageDir: string;
  readonly #program: SaveProgram;
  readonly #before: TcpCounters | undefined;

  private constructor(cgroups: Cgroups, place: SandboxPlace, imageDir: string, before: TcpCounters | undefined) {
    this.#cgroups = cgroups;
    this.#place = place;
    this.#imageDir = imageDir;
    this.#program = startSave(place, imageDir);
    this.#before = before;
  }

  /** `imageDir` must be fresh: it is made by the save. */
  static async open(cgroups: Cgroups, place: SandboxPlace, imageDir: string): Promise<PreparedSave> {
    await mkdir(dirname(imageDir), { recursive: true, mode: 0o700 });
    return new PreparedSave(cgroups, place, imageDir, await tcpCountersOf(place));
  }

  /** Pauses the sandbox and saves it, the two side by side. It stays paused, whatever becomes of the save, if the pause was made. */
  go(): SaveUnderWay {
    const paused = Promise.withResolvers<void>();
    const saved = this.#save(paused);
    saved.catch((error: unknown) => {
      paused.reject(error);
    });
    return { paused: paused.promise, saved };
  }

  async #save(paused: PromiseWithResolvers<void>): Promise<number> {
    const restoreLimit = this.#cgroups.liftMemoryLimit(this.#place.cgroup);
    // Started beside the save: it waits for the same lock, and tells within some ms of its end.
    const during = paused.promise.then(async () => await tcpCountersOf(this.#place));
    during.catch(() => undefined);
    try {
      const pausedAtMs = await this.#program.go(paused);
      // It ran on for a moment after it was saved: the pause came too late, and holds now. Or the save met connections, and holds them by halves.
      if (pausedAtMs >= imageOf(this.#imageDir).lastWriteMs || (await this.#metConnections(during))) {
        await rm(this.#imageDir, { recursive: true });
        await savePaused(this.#place, this.#imageDir);
      }
      return imageOf(this.#imageDir).bytes;
    } catch (error) {
      // The image's pages go first, or the restored limit would kill the container for them.
      await rm(this.#imageDir, { recursive: true, force: true });
      await restoreLimit();
      throw new EcluseError({
        code: 'ECLUSE_CHECKPOINT_FAILED',
        source: 'runtime',
        message: `the sandbox could not be saved: ${reasonOf(error)}`,
        mend: 'it goes on where it was; open but deleted files and live `docker exec` sessions are known causes',
        cause: error,
      });
    }
  }

  async #metConnections(during: Promise<TcpCounters | undefined>): Promise<boolean> {
    const found = await during;
    if (found === undefined || found.open === 0 || wasReset(this.#before, found)) return wasReset(this.#before, found);
    // That was before the save took the lock, or this build resets nothing.
    return wasReset(this.#before, await tcpCountersOf(this.#place));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.callOff();
  }
}

/** Saves a sandbox that is paused already into `imageDir`, which must be fresh. Its memory limit is the caller's. */
export async function savePaused({ runtimeDir, runscRoot, engineId }: SandboxPlace, imageDir: string): Promise<void> {
  const words = ['checkpoint', '--leave-running', '--compression=none', '--image-path', imageDir, engineId];
  const globals = ['--ecluse-dir', runtimeDir, '--root', runscRoot];
  const saved = await tryCommand(WRAPPER_FILE, [...globals, ...words], { timeoutMs: SAVE_TIMEOUT_MS });
  if (saved.exitCode !== 0) throw new Error(reasonIn(saved.stderr) ?? `runsc ended with exit code ${String(saved.exitCode)}`);
}

interface SaveProgram {
  /** Tells `paused` when it is; settles at its end, with the moment at which the pause was there (wall clock). */
  readonly go: (paused: PromiseWithResolvers<void>) => Promise<number>;
  /** Nothing where it was told to go. */
  readonly callOff: () => Promise<void>;
}

function startSave({ runtimeDir, runscRoot, engineId }: SandboxPlace, imageDir: string): SaveProgram {
  const words = ['--ecluse-dir', runtimeDir, '--root', runscRoot, 'save', '--image-path', imageDir, engineId];
  // A group of its own: the programs behind it end with it.
  const child = spawn(WRAPPER_FILE, words, { stdio: 'pipe', detached: true });
  const said = { out: '', err: '' };
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => {
      resolve(error.message);
    });
    child.once('close', (code, signal) => {
      resolve(code === 0 ? '' : (reasonIn(said.err) ?? `runsc ended with ${signal ?? `exit code ${String(code)}`}`));
    });
  });
  child.stdin.on('error', () => undefined); // It ended before its word; its exit tells the rest.
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.err.length < SAID_MAX) said.err += text;
  });
  let isToldToGo = false;
  return {
    go: async (paused) => {
      isToldToGo = true;
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        if (said.out.length < SAID_MAX) said.out += text;
        if (said.out.startsWith('paused\n')) paused.resolve();
      });
      const timer = setTimeout(() => {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
      }, SAVE_TIMEOUT_MS);
      child.stdin.end('go\n');
      const fault = await ended;
      clearTimeout(timer);
      if (fault !== '') throw new Error(fault);
      const atMs = pausedAtOf(said.out);
      if (atMs === undefined) throw new Error(`the wrapper did not say when it paused, but ${JSON.stringify(said.out)}`);
      return atMs;
    },
    callOff: async () => {
      if (isToldToGo) return;
      child.stdin.end();
      await ended;
    },
  };
}

function pausedAtOf(text: string): number | undefined {
  const at = /^at (\d{13})$/m.exec(text)?.[1];
  return at === undefined ? undefined : Number(at);
}

interface ImageFacts {
  readonly bytes: number;
  /** When it was written to last, by the wall clock. */
  readonly lastWriteMs: number;
}

/** Of three or four files in memory, in this very turn: clients wait, and the thread pool takes milliseconds on a busy machine. */
function imageOf(imageDir: string): ImageFacts {
  const files = readdirSync(imageDir).map((name) => statSync(join(imageDir, name)));
  return {
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    lastWriteMs: Math.max(...files.map(({ mtimeMs }) => mtimeMs)),
  };
}

/** What runsc says is wrong: its first words, not the last of the stack that may follow them. */
function reasonIn(stderr: string): string | undefined {
  const line = stderr.split('\n').find((text) => text.trim() !== '');
  return line?.trim().slice(0, 1000);
}

/** Makes the next `start` of a container a restore of `imageDir`. */
export async function stageImage(place: RestorePlace, imageDir: string): Promise<void> {
  await writeFile(stagedFileOf(place), imageDir);
}
