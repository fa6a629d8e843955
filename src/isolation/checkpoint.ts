/** Freezing a paused sandbox into an image directory, and staging such an image for a container that is about to start. */
import { mkdir, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tryCommand } from '#command';
import { EcluseError, reasonOf } from '#errors';
import type { Cgroups } from './cgroup.ts';
import { WRAPPER_FILE } from './runtime-settings.ts';

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
const CHECKPOINT_TIMEOUT_MS = 60_000;
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

/**
 * Saves a paused sandbox into `imageDir`, which must be fresh. The sandbox stays paused (`--leave-running`: without it the sandbox would be
 * killed even if the save fails).
 */
export async function saveCheckpoint(cgroups: Cgroups, place: SandboxPlace, imageDir: string): Promise<void> {
  await mkdir(imageDir, { recursive: true, mode: 0o700 });
  const restoreLimit = await cgroups.liftMemoryLimit(place.cgroup);
  try {
    const saved = await tryCommand(
      WRAPPER_FILE,
      [
        '--ecluse-dir',
        place.runtimeDir,
        '--root',
        place.runscRoot,
        'checkpoint',
        '--leave-running',
        '--compression=none',
        '--image-path',
        imageDir,
        place.engineId,
      ],
      { timeoutMs: CHECKPOINT_TIMEOUT_MS },
    );
    if (saved.exitCode !== 0) throw new Error(reasonIn(saved.stderr) ?? `runsc ended with exit code ${String(saved.exitCode)}`);
  } catch (error) {
    // The image's pages go first, or the restored limit would kill the container for them.
    await rm(imageDir, { recursive: true, force: true });
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

/** What runsc says is wrong: its first words, not the last of the stack that may follow them. */
function reasonIn(stderr: string): string | undefined {
  const line = stderr.split('\n').find((text) => text.trim() !== '');
  return line?.trim().slice(0, 1000);
}

/** Makes the next `start` of `engineId` a restore of `imageDir`. */
export async function stageImage(runtimeDir: string, engineId: string, imageDir: string): Promise<void> {
  await writeFile(join(runtimeDir, 'staged', engineId), imageDir);
}

/** Takes a staged image back, restored or not. The container must be gone: its start would be an ordinary one. */
export async function unstageImage(runtimeDir: string, engineId: string): Promise<void> {
  for (const suffix of ['', '.gate', '.waiting', '.failed']) {
    await rm(join(runtimeDir, 'staged', `${engineId}${suffix}`), { force: true });
  }
}

/** Bytes of a saved image. */
export async function imageBytesOf(imageDir: string): Promise<number> {
  const sizes = await Promise.all((await readdir(imageDir)).map(async (name) => (await stat(join(imageDir, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
