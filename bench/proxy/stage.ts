/**
 * What a run of the benchmark starts and leaves: processes on chosen cores and one temporary directory.
 *
 * INVARIANT: nothing outlives the stage. Children are asked to end, then killed, by pid; the kernel ends them too when this process dies
 * (`setpriv --pdeathsig`).
 */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { treeOf } from './usage.ts';

/** The proxy under test runs on the first core, everything else on the second. */
export const PROXY_CORE = '0';
export const LOAD_CORE = '1';

export interface Command {
  readonly core: string;
  readonly argv: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

export interface Child {
  readonly pid: number;
  /** What it wrote to stdout and to stderr so far; the end of it where it is long. */
  readonly out: () => string;
  readonly err: () => string;
  readonly exit: Promise<number>;
  readonly running: () => boolean;
  readonly tell: (line: string) => void;
  readonly stop: () => Promise<void>;
}

const SAID_LENGTH_MAX = 1_000_000;
const STOP_MS = 6_000;

/** Limits of open files are per process; the hard limit is what an unprivileged process can have. */
const RAISE_LIMITS = 'ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"';

/** How many files a child may have open. */
export function openFilesMax(): number {
  return Number(execFileSync('sh', ['-c', `${RAISE_LIMITS}; ulimit -n`], { encoding: 'utf8' }));
}

export class Stage implements AsyncDisposable {
  readonly directory: string;
  readonly #children = new Set<ChildProcess>();
  readonly #onExit = (): void => {
    this.#endNow();
  };

  private constructor(directory: string) {
    this.directory = directory;
    process.once('exit', this.#onExit);
  }

  static async open(): Promise<Stage> {
    return new Stage(await mkdtemp(join(tmpdir(), 'ecluse-bench-')));
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  start(command: Command): Child {
    const wrapped = [
      '--pdeathsig',
      'TERM',
      'taskset',
      '-c',
      command.core,
      'sh',
      '-c',
      `${RAISE_LIMITS}; exec "$@"`,
      'sh',
      ...command.argv,
    ];
    const child = spawn('setpriv', wrapped, { env: { ...process.env, ...command.env }, stdio: ['pipe', 'pipe', 'pipe'] });
    this.#children.add(child);
    let [out, err, running] = ['', '', true];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out = (out + text).slice(-SAID_LENGTH_MAX);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err = (err + text).slice(-SAID_LENGTH_MAX);
    });
    child.stdin.on('error', () => undefined); // It ended; its exit code tells.
    const exit = new Promise<number>((resolve) => {
      child.once('error', (error) => {
        err += error.message;
        running = false;
        resolve(127);
      });
      child.once('close', (code) => {
        running = false;
        this.#children.delete(child);
        resolve(code ?? 1);
      });
    });
    return {
      pid: child.pid ?? 0,
      out: () => out,
      err: () => err,
      exit,
      running: () => running,
      tell: (line) => child.stdin.write(`${line}\n`),
      stop: async () => {
        await stop(child, exit);
      },
    };
  }

  /** Runs a command to its end; what it said on stdout. */
  async run(command: Command): Promise<string> {
    const child = this.start(command);
    const code = await child.exit;
    if (code !== 0) throw new Error(`${command.argv.join(' ')} ended with ${String(code)}: ${child.err()}${child.out()}`);
    return child.out();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#children].map(async (child) => {
        await stop(child, new Promise((resolve) => child.once('close', resolve)));
      }),
    );
    this.#endNow();
    process.off('exit', this.#onExit);
  }

  #endNow(): void {
    for (const child of this.#children) if (child.pid !== undefined) for (const pid of treeOf(child.pid)) signal(pid, 'SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function stop(child: ChildProcess, exit: Promise<unknown>): Promise<void> {
  const { pid } = child;
  if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const pids = treeOf(pid);
  child.stdin?.end();
  signal(pid, 'SIGTERM');
  const ended = await Promise.race([exit.then(() => true), sleep(STOP_MS, false, { ref: false })]);
  if (!ended) for (const one of pids) signal(one, 'SIGKILL');
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It is gone.
  }
}

/** Free ports of the loopback interface. All are held before any is let go, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      async () =>
        await new Promise<Server>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => {
            resolve(server);
          });
        }),
    ),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  await Promise.all(servers.map(async (server) => await new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Waits until somebody listens; fails as soon as the child ends. */
export async function listening(port: number, child: Child, limitMs = 30_000): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await connects(port))) {
    if (!child.running()) throw new Error(`it ended at start: ${child.err().slice(-2000)}`);
    if (performance.now() > endMs) throw new Error(`nobody listens after ${String(limitMs)} ms: ${child.err().slice(-2000)}`);
    await sleep(50);
  }
}

async function connects(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}
