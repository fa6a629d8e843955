/**
 * Where images of containers lie while they are needed: memory of the machine, in a mount of our own.
 *
 * PERF: its pages are huge ones where the kernel has them. A checkpoint of 464 MiB then costs 0.24 s of a processor instead of 0.41 s, because there is a fault
 * for 2 MiB and not for 4 KiB (`docs/decisions/009-migration-stop-and-copy.md`).
 */
import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { tryCommand } from '#command';
import { EcluseError } from '#errors';

export class ImageFolder implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes it, empty: what an earlier daemon left in it is gone. */
  static async open(path: string): Promise<ImageFolder> {
    await unmount(path);
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { recursive: true, mode: 0o700 });
    // Without an option for its size it takes at most half of the memory.
    const plain = ['-t', 'tmpfs', '-o', 'mode=0700,nosuid,nodev,noexec'];
    const huge = await tryCommand('mount', [...plain.slice(0, 3), `${plain[3] ?? ''},huge=always`, 'ecluse-images', path]);
    const mounted = huge.exitCode === 0 ? huge : await tryCommand('mount', [...plain, 'ecluse-images', path]);
    if (mounted.exitCode === 0) return new ImageFolder(path);
    throw new EcluseError({
      code: 'ECLUSE_IMAGE_FOLDER',
      source: 'runtime',
      message: `no memory-backed folder can be mounted at ${path}: ${mounted.stderr.trim().slice(-200)}`,
      mend: 'run the node where it may mount file systems (CAP_SYS_ADMIN)',
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unmount(this.path);
    await rmdir(this.path).catch(() => undefined); // Something is in it that was written below the mount; it is nothing of ours.
  }
}

async function unmount(path: string): Promise<void> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').filter((line) => line.split(' ')[1] === path);
  for (const _ of mounts) await tryCommand('umount', ['-l', path]);
}
