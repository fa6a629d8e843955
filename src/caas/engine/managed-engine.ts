/**
 * A dockerd of our own: its data, sockets, bridge networks and runtimes apart from any Docker that the machine's user has.
 *
 * LIFECYCLE   stopped ──start──▶ serving ──exit──▶ restarting (back-off) ──▶ serving
 *                │ a dockerd of an earlier daemon still runs: adopted ──▶ serving
 *                └── stop: SIGTERM, then SIGKILL after the limit ──▶ stopped
 *
 * dockerd runs with live-restore, detached from us: neither its death nor ours takes containers along. Ownership: this class starts,
 * watches and (on `stop`) ends it; it signals only a process that it has seen to be its own, by pid file and command line.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, statSync, truncateSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { EcluseError } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import { endShims, killAll, shimsOf, unmountBelow } from '#isolation/host-leftovers.ts';
import { linkAddressOf, RELAY_PORT } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { inNamespace } from '#isolation/host-network.ts';
import { RUNTIME_NAME, WRAPPER_FILE } from '#isolation/runtime-settings.ts';
import { EngineClient } from './engine-client.ts';

export interface ManagedEngineOptions {
  readonly host: string;
  /** DATA/hosts/NAME. */
  readonly dir: string;
  readonly network: HostNetwork;
  readonly cgroupPrefix: string;
}

/** A cold start with many containers to adopt takes seconds; beyond this something is wrong. */
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 6_000;
const WATCH_PERIOD_MS = 1_000;
const listedSchema = z.array(z.object({ Id: z.string() }));
/** How often an engine that was started again is looked at for shims whose start it was killed in, and how many looks in a row must find one. */
const STRAY_LOOKS = 30;
const STRAY_LOOKS_SURE = 5;
const LOG_BYTES_MAX = 16 * 1024 * 1024;

export class ManagedEngine implements AsyncDisposable {
  readonly client: EngineClient;
  readonly #deps: { readonly log: Log; readonly clock: Clock };
  readonly #options: ManagedEngineOptions;
  #watch: AsyncDisposable | undefined;
  /** The dockerd that we started last; undefined while the one in charge was adopted. */
  #child: ChildProcess | undefined;
  #restarts = 0;
  #strayLooks = 0;
  /** By pid: looks in a row that found a shim without a container. */
  #strays: ReadonlyMap<number, number> = new Map();

  private constructor(deps: { readonly log: Log; readonly clock: Clock }, options: ManagedEngineOptions) {
    this.#deps = { ...deps, log: deps.log.child({ host: options.host }) };
    this.#options = options;
    this.client = new EngineClient(join(options.dir, 'docker.sock'));
  }

  /** Starts the engine, or adopts the one that an earlier daemon left, and waits until it serves. */
  static async open(deps: { readonly log: Log; readonly clock: Clock }, options: ManagedEngineOptions): Promise<ManagedEngine> {
    const engine = new ManagedEngine(deps, options);
    await mkdir(options.dir, { recursive: true, mode: 0o711 });
    await writeFile(join(options.dir, 'daemon.json'), `${JSON.stringify(daemonConfig(options), undefined, 2)}\n`);
    if ((await engine.#pid()) === undefined) await engine.#spawn();
    else deps.log.info({ host: options.host }, 'engine of an earlier daemon adopted');
    try {
      await engine.#untilAlive();
    } catch (error) {
      // One that we started for nothing goes again; an adopted one may have containers.
      if (engine.#child !== undefined) await engine.stop();
      throw error;
    }
    engine.#watch = startLoop(engine.#deps, {
      name: `engine ${options.host}`,
      periodMs: WATCH_PERIOD_MS,
      round: async (signal) => {
        await engine.#keepAlive(signal);
      },
    });
    return engine;
  }

  /** runsc's state directory under this engine (containerd's runtime root for dockerd's namespace). */
  get runscRoot(): string {
    return join(this.#options.dir, 'exec', 'runtime-runc', 'moby');
  }

  async #pid(): Promise<number | undefined> {
    const mark = join(this.#options.dir, 'daemon.json');
    const pid = await readPid(join(this.#options.dir, 'dockerd.pid'));
    if (await isProcessOf(pid, mark)) return pid;
    // dockerd writes its pid file only when it is half-way up; until then our child is it. Its command line is no proof yet: between fork
    // and exec it is our own.
    const child = this.#child;
    return child !== undefined && child.exitCode === null && child.signalCode === null ? child.pid : undefined;
  }

  /** dockerd waits for a containerd whose pid file names any process at all: one that is dead and not yet reaped, or that of a stranger. */
  async #forgetDeadContainerd(): Promise<void> {
    const folder = join(this.#options.dir, 'exec', 'containerd');
    const file = join(folder, 'containerd.pid');
    if (!(await isProcessOf(await readPid(file), join(folder, 'containerd.toml')))) await rm(file, { force: true });
  }

  async #spawn(): Promise<void> {
    const { dir, network } = this.#options;
    await rm(join(dir, 'dockerd.pid'), { force: true });
    await this.#forgetDeadContainerd();
    const logFile = join(dir, 'dockerd.log');
    if (existsSync(logFile) && statSync(logFile).size > LOG_BYTES_MAX) truncateSync(logFile);
    const out = openSync(logFile, 'a', 0o600);
    try {
      const [program, args] = inNamespace(network, 'dockerd', ['--config-file', join(dir, 'daemon.json')]);
      // A session of its own: a Ctrl-C in our terminal must not reach it, and our death must not end it.
      const child = spawn(program, args, { detached: true, stdio: ['ignore', out, out], cwd: '/' });
      child.once('error', (error) => {
        this.#deps.log.error({ reason: error.message }, 'dockerd could not be started');
      });
      child.unref();
      this.#child = child;
    } finally {
      closeSync(out);
    }
  }

  async #untilAlive(): Promise<void> {
    const { dir, host } = this.#options;
    const answer = await waitFor(
      this.#deps.clock,
      async () => {
        if (await this.client.isAlive()) return 'alive';
        return (await this.#pid()) === undefined ? 'gone' : undefined;
      },
      { limitMs: START_LIMIT_MS, stepMs: 50 },
    );
    if (answer === 'alive') return;
    const log = await readFile(join(dir, 'dockerd.log'), 'utf8').catch(() => '');
    const last = log.trim().split('\n').at(-1) ?? 'it said nothing';
    throw new EcluseError({
      code: 'ECLUSE_ENGINE_NOT_STARTED',
      source: 'runtime',
      message: `dockerd of host ${host} ${answer === 'gone' ? 'ended at its start' : `did not serve within ${String(START_LIMIT_MS / 1000)} s`}: ${last.slice(0, 300)}`,
      mend: `read ${join(dir, 'dockerd.log')} and run: ecluse doctor`,
    });
  }

  async #keepAlive(signal: AbortSignal): Promise<void> {
    if ((await this.#pid()) !== undefined) {
      if (this.#restarts > 0 && (await this.client.isAlive())) this.#restarts = 0;
      if (this.#strayLooks > 0) await this.#endStrays();
      return;
    }
    this.#restarts += 1;
    const backOffMs = Math.min(30_000, 250 * 2 ** Math.min(this.#restarts, 7));
    this.#deps.log.error({ restarts: this.#restarts, backOffMs }, 'dockerd is gone, starting it again');
    await this.#spawn();
    this.#strayLooks = STRAY_LOOKS;
    const isDone = async (): Promise<true | undefined> => (signal.aborted || (await this.client.isAlive()) ? true : undefined);
    await waitFor(this.#deps.clock, isDone, { limitMs: backOffMs + 10_000, stepMs: 100 });
  }

  /**
   * An engine that was killed while it started a container may leave a shim that nobody knows, or one that has no container any more while its id is
   * known: it would stay for ever, and the second kind would be in the way of each further start ("task already exists").
   */
  async #endStrays(): Promise<void> {
    this.#strayLooks -= 1;
    const { json } = await this.client.call({ method: 'GET', path: ['containers', 'json'], query: { all: true } });
    const known = new Set(listedSchema.parse(json).map(({ Id }) => Id));
    const strays = (await shimsOf(this.#options.dir)).filter(({ engineId, isAlone }) => isAlone || !known.has(engineId));
    this.#strays = new Map(strays.map(({ pid }) => [pid, (this.#strays.get(pid) ?? 0) + 1]));
    const sure = [...this.#strays].filter(([, looks]) => looks >= STRAY_LOOKS_SURE).map(([pid]) => pid);
    const shims = killAll(sure);
    if (shims.length > 0)
      this.#deps.log.warn({ shims }, 'shims without a container were left by an engine that was killed, and are ended');
  }

  /** Ends dockerd and the watch over it. Containers should be stopped before: live-restore would leave them running. */
  async stop(): Promise<void> {
    await this.#watch?.[Symbol.asyncDispose]();
    this.#watch = undefined;
    const pid = await this.#pid();
    if (pid === undefined) return;
    process.kill(pid, 'SIGTERM');
    const gone = await waitFor(this.#deps.clock, async () => ((await this.#pid()) === undefined ? true : undefined), {
      limitMs: STOP_LIMIT_MS,
      stepMs: 50,
    });
    if (gone === undefined) {
      this.#deps.log.warn({ pid }, 'dockerd did not end in time and is killed');
      process.kill(pid, 'SIGKILL');
    }
  }

  /** After `stop`: takes down what the engine should have taken down itself, and did not because it was killed at some time. */
  async clearAway(): Promise<void> {
    const shims = await endShims(this.#options.dir);
    if (shims.length > 0) this.#deps.log.warn({ shims }, 'shims of an engine that is gone were left and are killed');
    await unmountBelow(this.#options.dir);
  }

  /** Lets go without ending dockerd. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch?.[Symbol.asyncDispose]();
    this.#watch = undefined;
    this.client[Symbol.dispose]();
  }
}

async function readPid(file: string): Promise<number> {
  return Number((await readFile(file, 'utf8').catch(() => '')).trim());
}

/** Whether the process lives and its command line names `mark`: a pid file can be older than a reboot, and a dead process has no words. */
async function isProcessOf(pid: number, mark: string): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  return (await readFile(`/proc/${String(pid)}/cmdline`, 'utf8').catch(() => '')).includes(mark);
}

/** dockerd's configuration. Rules and forwarding are ours (isolation/host-network.ts), so dockerd must not touch iptables. */
function daemonConfig(options: ManagedEngineOptions): Readonly<Record<string, unknown>> {
  const { dir, cgroupPrefix } = options;
  return {
    'data-root': join(dir, 'docker'),
    'exec-root': join(dir, 'exec'),
    pidfile: join(dir, 'dockerd.pid'),
    hosts: [`unix://${join(dir, 'docker.sock')}`],
    runtimes: { [RUNTIME_NAME]: { path: WRAPPER_FILE, runtimeArgs: ['--ecluse-dir', join(dir, 'runsc')] } },
    'default-runtime': RUNTIME_NAME,
    'cgroup-parent': `${cgroupPrefix}/_engine`,
    'exec-opts': ['native.cgroupdriver=cgroupfs'],
    iptables: false,
    ip6tables: false,
    'ip-masq': false,
    'ip-forward': false,
    bridge: 'none',
    'userland-proxy': false,
    'live-restore': true,
    'shutdown-timeout': 5,
    'log-driver': 'json-file',
    'log-opts': { 'max-size': '10m', 'max-file': '3' },
    // The node's own way to registries (caas/registry-relay.ts); on the loopback interface engines ask for no TLS anyway.
    'insecure-registries': [`${linkAddressOf(options.network)}:${String(RELAY_PORT)}`],
    features: { buildkit: false },
    experimental: false,
  };
}
