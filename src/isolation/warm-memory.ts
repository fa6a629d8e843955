/**
 * Memory that is touched before it is needed: taken while a container still serves, and given back to the kernel right before its pause.
 *
 * PERF: on virtual machines, memory that was free for some seconds belongs to the host again, and the first touch of it costs 0.6 to 1 s a GiB (free page
 * reporting). A checkpoint and a restore touch twice the container's memory while its clients wait; with this they find it warm.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** More is not worth the time; what is beyond it is touched when it is needed. */
const BYTES_MAX = 8 * 1024 ** 3;

export class WarmMemory implements AsyncDisposable {
  readonly #file: string;

  private constructor(file: string) {
    this.#file = file;
  }

  /** Touches memory of the machine through a file in a memory-backed folder. Less than asked for is no fault. */
  static async take(folder: string, name: string, bytes: number): Promise<WarmMemory> {
    const file = join(folder, name);
    const warm = new WarmMemory(file);
    await using handle = await open(file, 'w', 0o600);
    const filler = spawn('head', ['-c', String(Math.min(bytes, BYTES_MAX)), '/dev/zero'], {
      stdio: ['ignore', handle.fd, 'ignore'],
    });
    await once(filler, 'exit');
    return warm;
  }

  /** Gives it back. */
  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#file, { force: true });
  }
}
