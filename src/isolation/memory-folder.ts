/**
 * Memory-backed storage of our own for images and page stores: a tmpfs with huge pages, where the kernel has them. Written, read and copied, such a
 * file costs a third to a fifth of one with 4 KiB pages, and all of that is in a migration's pause (docs/decisions/014-pre-copy.md).
 */
import { mkdir, open, readFile, rm, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { tryCommand } from '#command';

export interface MemoryFolder extends AsyncDisposable {
  readonly path: string;
  /**
   * Takes this much memory and gives it back, before a pause in which it will be wanted. A virtual machine may get a page from its host only when it
   * first touches it: 2 GiB that nobody had touched took 5.8 s of CPU to write, and 0.4 s the second time.
   */
  warm(bytes: number): Promise<void>;
  /** `huge`: as wanted. `plain`: a tmpfs without huge pages. `none`: could not be mounted; the folder is one of the file system below it. */
  readonly kind: 'huge' | 'plain' | 'none';
}

const WARM_PART_BYTES = 1024 * 1024;
const OPTIONS = { huge: 'mode=0700,nosuid,nodev,noexec,huge=always', plain: 'mode=0700,nosuid,nodev,noexec' } as const;

/** Whether something is mounted at a path, in the text of /proc/self/mountinfo. Pure. */
export function isMountedAt(mountInfo: string, path: string): boolean {
  return mountInfo.split('\n').some((line) => line.split(' ')[4]?.replaceAll(/\\(\d{3})/g, unescapeOctal) === path);
}

/** Spaces and the like are written as `\040`. */
function unescapeOctal(_: string, digits: string): string {
  return String.fromCodePoint(Number.parseInt(digits, 8));
}

/** Mounts it at `path`, which is made. What a crash left mounted there goes, with all that is in it. Disposing unmounts it. */
export async function mountMemoryFolder(path: string): Promise<MemoryFolder> {
  const at = resolve(path);
  await unmount(at);
  await mkdir(at, { recursive: true, mode: 0o700 });
  for (const kind of ['huge', 'plain'] as const) {
    const { exitCode } = await tryCommand('mount', ['-t', 'tmpfs', '-o', OPTIONS[kind], 'ecluse', at]);
    if (exitCode !== 0) continue;
    return {
      path: at,
      kind,
      warm: async (bytes) => {
        await warmUp(join(at, '.warm'), bytes);
      },
      async [Symbol.asyncDispose](): Promise<void> {
        await unmount(at);
        await rmdir(at).catch(() => undefined); // What is below the mount is nothing of ours.
      },
    };
  }
  // Whatever is below it is not ours to fill.
  return { path: at, kind: 'none', warm: async () => undefined, async [Symbol.asyncDispose](): Promise<void> {} };
}

async function warmUp(file: string, bytes: number): Promise<void> {
  const part = Buffer.alloc(WARM_PART_BYTES);
  const handle = await open(file, 'w', 0o600);
  try {
    for (let done = 0; done < bytes; done += part.length) await handle.write(part, 0, part.length, done);
  } finally {
    await handle.close();
    await rm(file, { force: true });
  }
}

/** Lazily: who has a file open in it keeps that file, and nothing new comes to be there. */
async function unmount(path: string): Promise<void> {
  while (isMountedAt(await readFile('/proc/self/mountinfo', 'utf8'), path)) {
    const { exitCode } = await tryCommand('umount', ['--lazy', path]);
    if (exitCode !== 0) return;
  }
}
