/**
 * Memory-backed storage of our own for images and page stores: a tmpfs with huge pages, where the kernel has them. Written, read and copied, such a
 * file costs a third to a fifth of one with 4 KiB pages, and all of that is in a migration's pause (docs/decisions/014-pre-copy.md).
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { tryCommand } from '#command';

export interface MemoryFolder extends AsyncDisposable {
  readonly path: string;
  /**
   * Takes this much memory, which disposing gives back: just before a pause in which it will be wanted. A virtual machine may get a page from its host
   * only when it first touches it, and give it back 2 s after it was freed: 300 MB that nobody had touched took 0.85 s of CPU to write, and 0.06 s
   * within a second after that. What is taken is taken in time that nobody else wants, and may therefore be less.
   */
  warm(bytes: number): Promise<AsyncDisposable>;
  /** `huge`: as wanted. `plain`: a tmpfs without huge pages. `none`: could not be mounted; the folder is one of the file system below it. */
  readonly kind: 'huge' | 'plain' | 'none';
}

const MIB = 1024 * 1024;
/** On a machine that has nothing to spare less is warm, and a save takes longer. */
const WARM_LIMIT_MS = 15_000;
const NOTHING_WARM: AsyncDisposable = { [Symbol.asyncDispose]: async () => undefined };
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
      warm: async (bytes) => await warmUp(join(at, `.warm-${randomUUID()}`), bytes),
      async [Symbol.asyncDispose](): Promise<void> {
        await unmount(at);
        await rmdir(at).catch(() => undefined); // What is below the mount is nothing of ours.
      },
    };
  }
  // Whatever is below it is not ours to fill.
  return { path: at, kind: 'none', warm: async () => NOTHING_WARM, async [Symbol.asyncDispose](): Promise<void> {} };
}

async function warmUp(file: string, bytes: number): Promise<AsyncDisposable> {
  // A program that cannot, or not in time, has warmed nothing or a part: both are no fault.
  const blocks = ['if=/dev/zero', `of=${file}`, 'bs=1M', `count=${String(Math.ceil(bytes / MIB))}`, 'status=none'];
  await tryCommand('nice', ['-n', '19', 'dd', ...blocks], { timeoutMs: WARM_LIMIT_MS });
  return {
    [Symbol.asyncDispose]: async () => {
      await rm(file, { force: true });
    },
  };
}

/** Lazily: who has a file open in it keeps that file, and nothing new comes to be there. */
async function unmount(path: string): Promise<void> {
  while (isMountedAt(await readFile('/proc/self/mountinfo', 'utf8'), path)) {
    const { exitCode } = await tryCommand('umount', ['--lazy', path]);
    if (exitCode !== 0) return;
  }
}
