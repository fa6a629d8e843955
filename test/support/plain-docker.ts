/**
 * A plain dockerd to compare with. It lives in network, mount and process namespaces of its own: its bridge, packet rules, mounts and
 * containers vanish with it, and it can be ended at once. Only its directory and its cgroups have to be removed.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { glob, mkdir, mkdtemp, open, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from './node.ts';

const READY_LIMIT_MS = 60_000;
const CGROUPS = '/sys/fs/cgroup';

export interface PlainDocker extends AsyncDisposable {
  /** A process of its network namespace, for `nsenter`. */
  readonly pid: string;
  /** The environment that makes a Docker client speak to it. */
  readonly env: NodeJS.ProcessEnv;
  /** Runs a program in its network, where a registry on loopback would have to be. Whoever starts it ends it. */
  readonly spawnBeside: (program: string, args: readonly string[]) => ChildProcess;
}

/** Starts it with an empty data root and Docker's own defaults but for `config` (of daemon.json), and waits until it answers. */
export async function startPlainDocker(config: Readonly<Record<string, unknown>> = {}): Promise<PlainDocker> {
  const directory = await mkdtemp('/tmp/ecl-plain-');
  const cgroup = `/${basename(directory)}`;
  const { child, log } = await spawnDaemon(directory, { cgroup, config });
  const dispose = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL'); // The kernel kills what is in its process namespace.
      await once(child, 'exit');
    }
    await removeCgroups(cgroup);
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
  const env = {
    PATH: process.env['PATH'],
    HOME: directory,
    DOCKER_CONFIG: join(directory, 'client'),
    DOCKER_HOST: `unix://${join(directory, 'sock')}`,
  };
  try {
    await mkdir(join(directory, 'client'));
    await untilAnswers(child, env);
  } catch (error) {
    const text = await readFile(log, 'utf8');
    await dispose();
    throw new Error(`the plain dockerd did not start:\n${text}`, { cause: error });
  }
  const pid = await daemonPid(child);
  return {
    pid,
    env,
    spawnBeside: (program, args) => spawn('nsenter', ['--target', pid, '--net', '--', program, ...args], { stdio: 'ignore' }),
    [Symbol.asyncDispose]: dispose,
  };
}

async function spawnDaemon(
  directory: string,
  options: { readonly cgroup: string; readonly config: Readonly<Record<string, unknown>> },
): Promise<{ readonly child: ChildProcess; readonly log: string }> {
  const { cgroup } = options;
  const config = join(directory, 'daemon.json');
  await writeFile(config, JSON.stringify(options.config));
  const log = join(directory, 'log');
  await using output = await open(log, 'w');
  const daemon = [
    ['exec dockerd', '--config-file', config, '--data-root', join(directory, 'data'), '--exec-root', join(directory, 'exec')],
    ['--pidfile', join(directory, 'pid'), '--host', `unix://${join(directory, 'sock')}`, '--cgroup-parent', cgroup],
  ];
  const script = `ip link set lo up && ${daemon.flat().join(' ')}`;
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc'];
  const child = spawn('unshare', [...namespaces, 'sh', '-c', script], { stdio: ['ignore', output.fd, output.fd] });
  return { child, log };
}

async function untilAnswers(child: ChildProcess, env: NodeJS.ProcessEnv): Promise<void> {
  const deadline = Date.now() + READY_LIMIT_MS;
  while ((await run('docker', ['version'], { env })).exitCode !== 0) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('it ended');
    if (Date.now() > deadline) throw new Error(`it did not answer in ${String(READY_LIMIT_MS)} ms`);
    await delay(100);
  }
}

/** dockerd's process id: unshare's only child. */
async function daemonPid(child: ChildProcess): Promise<string> {
  const unshare = String(child.pid);
  const children = await readFile(`/proc/${unshare}/task/${unshare}/children`, 'utf8');
  return children.trim();
}

/** The killed processes may take a moment to leave their cgroups. */
async function removeCgroups(cgroup: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  const trees = (await Array.fromAsync(glob(`${CGROUPS}/*${cgroup}`))).concat(await Array.fromAsync(glob(`${CGROUPS}${cgroup}`)));
  for (const tree of trees) {
    while (!(await removeTree(tree))) {
      if (Date.now() > deadline) throw new Error(`${tree} cannot be removed`);
      await delay(50);
    }
  }
}

async function removeTree(folder: string): Promise<boolean> {
  const entries = await readdir(folder, { withFileTypes: true });
  const inner = entries.filter((entry) => entry.isDirectory()).map(async (entry) => await removeTree(join(folder, entry.name)));
  if ((await Promise.all(inner)).includes(false)) return false;
  return await rmdir(folder).then(
    () => true,
    () => false,
  );
}
