/** The demo's app as a child process. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { systemPath } from '#isolation/program-path.ts';

export const HELLO_FILE = fileURLToPath(new URL('../../demo/hello.js', import.meta.url));

export interface HelloApp extends AsyncDisposable {
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  /** What it printed so far, after the line that says where it listens. */
  readonly lines: readonly string[];
  /** Sends SIGTERM; the exit code, and how long the process took to go. */
  readonly stop: () => Promise<{ readonly exitCode: number | null; readonly tookMs: number }>;
}

/** Starts it on a free port; `command` is what runs it where that is not this Node with the file in the checkout. */
export async function startHello(
  env: Readonly<Record<string, string>> = {},
  command: readonly [string, ...string[]] = [process.execPath, HELLO_FILE],
): Promise<HelloApp> {
  const [program, ...args] = command;
  const child = spawn(program, args, { env: { PATH: systemPath(), ...env, PORT: '0' }, stdio: ['ignore', 'pipe', 'pipe'] });
  // Not inherited: where a test times out, a process left over would keep vitest waiting.
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint = `${complaint}${chunk.toString()}`.slice(-2000);
  });
  const exited = Promise.withResolvers<number | null>();
  const lines: string[] = [];
  const listening = Promise.withResolvers<number>();
  createInterface(child.stdout).on('line', (line) => {
    const port = /^listening on port (\d+)$/.exec(line)?.[1];
    if (port === undefined) lines.push(line);
    else listening.resolve(Number(port));
  });
  child.once('error', (error) => {
    listening.reject(error);
    exited.resolve(null);
  });
  child.once('close', (code) => {
    listening.reject(new Error(`${command.join(' ')} ended with ${String(code)}: ${complaint}`));
    exited.resolve(code);
  });
  const port = await listening.promise;
  const stop: HelloApp['stop'] = async () => {
    const fromMs = performance.now();
    child.kill('SIGTERM');
    const exitCode = await exited.promise;
    return { exitCode, tookMs: performance.now() - fromMs };
  };
  return {
    pid: child.pid ?? 0,
    port,
    url: `http://127.0.0.1:${String(port)}`,
    lines,
    stop,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited.promise;
    },
  };
}
