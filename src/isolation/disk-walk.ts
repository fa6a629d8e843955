/** How much a directory takes on disk: what is in it is a tenant's, and may be as much and as deep as the tenant likes. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
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
/** What the shell says behind each walk: it was whole (what vanishes meanwhile makes `find` say 1), it was ended by something else, there is no `find`. */
const MARKS: ReadonlyMap<number | undefined, Mark> = new Map([
  [33, 'whole'], // !
  [63, 'cut'], // ?
  [35, 'no program'], // #
] as const);
const SCRIPT = `while IFS= read -r directory; do
  find "$directory" -xdev -printf '${FORMAT}'
  case $? in 0|1) printf '!' ;; 126|127) printf '#' ;; *) printf '?' ;; esac
done`;

/** A program that waits for a disk that does not answer cannot be ended; it is not waited for any longer than this. */
const END_MS_MAX = 1_000;

/** `ended`: the shell was, by somebody else. */
type Mark = 'whole' | 'cut' | 'no program' | 'ended';

/**
 * Walks one directory after the other. PERF: a shell that stands by starts `find`, because a process of a node's size takes some 6 ms to start another one, and
 * does nothing else meanwhile.
 */
export class DiskWalker implements AsyncDisposable {
  #shell: ChildProcess | undefined;
  #isWalking = false;
  #isDisposed = false;

  /**
   * Does not follow links, nor into other file systems. Undefined: there is no such directory, or it cannot be read. Errors: no program can be started; a
   * walk is under way.
   */
  async walk(directory: string, { timeoutMs, signal }: WalkOptions): Promise<DiskWalk | undefined> {
    if (directory.includes('\n')) throw new Error('its directory has a line end in its name');
    if (this.#isWalking) throw new Error('another directory is being looked at');
    if (signal.aborted || this.#isDisposed) return { bytes: 0, isWhole: false };
    this.#isWalking = true;
    const stop = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    try {
      let [blocks, mark] = await this.#ask(this.#standing(), directory, stop);
      // It may have been ended while it stood by. One that was just started was not.
      if (mark === 'ended') [blocks, mark] = await this.#ask((this.#shell = startShell()), directory, stop);
      if (mark === 'ended') throw new Error('the shell that looks at directories was ended');
      if (mark === 'no program') throw new Error('there is no program `find`: ecluse doctor says where it comes from');
      if (blocks.count === 0 && mark === 'whole') return undefined;
      return { bytes: blocks.bytes, isWhole: mark === 'whole' };
    } finally {
      this.#isWalking = false;
    }
  }

  #standing(): ChildProcess {
    const shell = this.#shell;
    return shell === undefined || isOver(shell) ? (this.#shell = startShell()) : shell;
  }

  async #ask(shell: ChildProcess, directory: string, stop: AbortSignal): Promise<[BlockReader, Mark]> {
    const { promise, resolve, reject } = Promise.withResolvers<Mark>();
    const blocks = new BlockReader();
    let patience: NodeJS.Timeout | undefined;
    const onData = (bytes: Buffer): void => {
      const mark = MARKS.get(bytes.at(-1));
      blocks.read(mark === undefined ? bytes : bytes.subarray(0, -1));
      if (mark !== undefined) resolve(mark);
    };
    const onClose = (): void => {
      this.#shell = undefined;
      resolve(stop.aborted || this.#isDisposed ? 'cut' : 'ended');
    };
    const onError = (error: Error): void => {
      this.#shell = undefined;
      reject(error);
    };
    const onStop = (): void => {
      this.#shell = undefined;
      endShell(shell);
      patience = setTimeout(resolve, END_MS_MAX, 'cut');
    };
    shell.once('close', onClose).once('error', onError);
    shell.stdout?.on('data', onData);
    stop.addEventListener('abort', onStop);
    shell.stdin?.write(`${directory}\n`);
    try {
      return [blocks, await promise];
    } finally {
      stop.removeEventListener('abort', onStop);
      clearTimeout(patience);
      shell.off('close', onClose).off('error', onError);
      shell.stdout?.off('data', onData);
      if (this.#shell === undefined) letGo(shell);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    const shell = this.#shell;
    this.#shell = undefined;
    if (shell === undefined || isOver(shell)) return;
    const closed = new Promise((resolve) => shell.once('close', resolve));
    endShell(shell);
    let patience: NodeJS.Timeout | undefined;
    const patient = new Promise((resolve) => (patience = setTimeout(resolve, END_MS_MAX)));
    await Promise.race([closed, patient]);
    clearTimeout(patience);
    letGo(shell);
  }
}

function isOver({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/** It ends by itself where this process does: nobody writes to it any more. */
function startShell(): ChildProcess {
  // Without streams where there are no file descriptors left.
  const shell: ChildProcess = spawn('sh', ['-c', SCRIPT], { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
  // What it cannot be told any more its end says.
  shell.stdin?.on('error', () => undefined);
  if (shell.pid !== undefined) lower(shell.pid);
  return shell;
}

function lower(pid: number): void {
  try {
    setPriority(pid, PRIORITY);
    // A session of its own would else be an equal of the node's, whatever the priority within it (sched(7), autogroup).
    writeFileSync(`/proc/${String(pid)}/autogroup`, String(PRIORITY));
  } catch {
    // It has ended already, or the kernel has no such groups.
  }
}

/** With what it has started: they are a group of their own. */
function endShell({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

/** Waits for nothing of it any longer. */
function letGo(shell: ChildProcess): void {
  shell.on('error', () => undefined);
  shell.stdin?.destroy();
  shell.stdout?.destroy();
  shell.unref();
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
