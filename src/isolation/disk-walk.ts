/** How much a directory takes on disk: what is in it is a tenant's, and may be as much and as deep as the tenant likes. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { constants, setPriority } from 'node:os';

export interface DiskWalk {
  /** Blocks of files and directories, in bytes; each file once, whatever names it has. */
  readonly bytes: number;
  /** False: the time was over, and there is more. */
  readonly isWhole: boolean;
}

export interface WalkOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Behind everything else that wants a processor, and so the disk, too (ioprio_set(2)). PERF: by `nice` and `ionice` it would be three programs for one. */
const PRIORITY = constants.priority.PRIORITY_LOW;
/** Kind, number of names and blocks of each: what was found counts where the time is over. No names: they are a tenant's. */
const FORMAT = String.raw`%y%n %b\n`;
const BLOCK_BYTES = 512;
const DIRECTORY = 100; // d
const LF = 10;
const SPACE = 32;
const DIGIT_0 = 48;
const DIGIT_9 = 57;

/** A program that waits for a disk that does not answer cannot be ended; it is not waited for any longer than this. */
const END_MS_MAX = 1_000;

/** Does not follow links, nor into other file systems. Undefined: there is no such directory, or it cannot be read. Errors: no program can be started. */
export async function walkDisk(directory: string, { timeoutMs, signal }: WalkOptions): Promise<DiskWalk | undefined> {
  const child = startFind(directory);
  const ended = endOf(child);
  lower(child.pid);
  const blocks = new BlockReader();
  child.stdout?.on('data', (bytes: Buffer) => {
    blocks.read(bytes);
  });
  const stop = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const { promise: givenUp, resolve: giveUp } = Promise.withResolvers<'cut'>();
  let patience: NodeJS.Timeout | undefined;
  const kill = (): void => {
    child.kill('SIGKILL');
    patience = setTimeout(giveUp, END_MS_MAX, 'cut');
  };
  stop.addEventListener('abort', kill);
  if (stop.aborted) kill();
  try {
    const end = await Promise.race([ended, givenUp]);
    if (blocks.count === 0 && end === 'whole') return undefined;
    return { bytes: blocks.bytes, isWhole: end === 'whole' };
  } finally {
    stop.removeEventListener('abort', kill);
    clearTimeout(patience);
    child.stdout?.destroy();
    child.unref();
  }
}

function startFind(directory: string): ChildProcess {
  return spawn('find', [directory, '-xdev', '-printf', FORMAT], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

/** What vanishes while it is looked at makes an exit code of 1, and is not there any more. */
async function endOf(child: ChildProcess): Promise<'whole' | 'cut'> {
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (_code, by) => {
      resolve(by === null ? 'whole' : 'cut');
    });
  });
}

function lower(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, PRIORITY);
  } catch {
    // It has ended already.
  }
}

/** Adds up lines of `FORMAT`. A file counts by its names, each a part: they are all in one tree, because links do not leave a mount. */
export class BlockReader {
  count = 0;
  #blocks = 0;
  #isDirectory = false;
  #names = 0;
  #number = 0;

  get bytes(): number {
    return Math.round(this.#blocks * BLOCK_BYTES);
  }

  read(bytes: Buffer): void {
    for (const octet of bytes) {
      if (octet >= DIGIT_0 && octet <= DIGIT_9) this.#number = this.#number * 10 + octet - DIGIT_0;
      else if (octet === SPACE) {
        this.#names = this.#number;
        this.#number = 0;
      } else if (octet === LF) {
        this.#blocks += this.#isDirectory ? this.#number : this.#number / Math.max(1, this.#names);
        this.count += 1;
        this.#number = 0;
      } else this.#isDirectory = octet === DIRECTORY;
    }
  }
}
