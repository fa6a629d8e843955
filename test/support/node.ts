/** A real node for tests: the `ecluse` command in a process of its own, with its data in a fresh directory and on free ports. */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ECLUSE = fileURLToPath(new URL('../../bin/ecluse', import.meta.url));

const READY_LIMIT_MS = 400_000;
const STOP_LIMIT_MS = 20_000;

export interface CommandAnswer {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface NodePorts {
  readonly http: number;
  readonly https: number;
  readonly docker: number;
  readonly metrics: number;
}

export interface NodeOptions {
  /** `--demo`: two hosts and the demo's tenant and container. Else one node with the hosts below and nothing in it. */
  readonly demo?: boolean;
  readonly hosts?: readonly string[];
  /** Further keys of `ecluse.yaml`. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Reuse a directory (a second start); the caller removes it. */
  readonly dataDir?: string;
  readonly ports?: NodePorts;
}

export interface TestNode extends AsyncDisposable {
  readonly process: ChildProcess;
  readonly dataDir: string;
  readonly ports: NodePorts;
  readonly caFile: string;
  /** Everything it printed so far. */
  readonly output: () => string;
  /** `ecluse ARGS` against this node. */
  ecluse(...args: readonly string[]): Promise<CommandAnswer>;
  /** `docker ARGS` as a tenant of this node. */
  docker(tenant: string, args: readonly string[], input?: string | Buffer): Promise<CommandAnswer>;
  /** The environment that makes a Docker client speak as a tenant. */
  dockerEnv(tenant: string): NodeJS.ProcessEnv;
  /** SIGTERM and wait; returns the exit code and how long it took. */
  stop(signal?: NodeJS.Signals): Promise<{ readonly exitCode: number | null; readonly tookMs: number }>;
}

/** Ports that nobody listens on. All are held at once before any is let go: one after the other could be the same. */
async function takePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  const ports = await Promise.all(
    servers.map(async (server) => {
      if (!server.listening) await once(server, 'listening');
      const address = server.address();
      if (typeof address !== 'object' || address === null) throw new Error('no port');
      return address.port;
    }),
  );
  await Promise.all(
    servers.map(async (server) => {
      server.close();
      await once(server, 'close');
    }),
  );
  return ports;
}

export async function freePort(): Promise<number> {
  const [port] = await takePorts(1);
  if (port === undefined) throw new Error('no port');
  return port;
}

export async function freePorts(): Promise<NodePorts> {
  const [http, https, docker, metrics] = await takePorts(4);
  if (http === undefined || https === undefined || docker === undefined || metrics === undefined) throw new Error('no ports');
  return { http, https, docker, metrics };
}

export async function run(
  program: string,
  args: readonly string[],
  options: { readonly env?: NodeJS.ProcessEnv; readonly input?: string | Buffer; readonly timeoutMs?: number } = {},
): Promise<CommandAnswer> {
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      {
        env: options.env ?? process.env,
        timeout: options.timeoutMs ?? 60_000,
        killSignal: 'SIGKILL',
        maxBuffer: 256 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        resolve({ exitCode: code, stdout, stderr: error?.killed === true ? `${stderr}\n[timed out]` : stderr });
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}

/** Data directories are short: unix sockets below them have 107 characters. */
export async function freshDataDir(): Promise<string> {
  return await mkdtemp('/tmp/ecl-');
}

/** Starts `ecluse up` without waiting for anything. */
export function spawnNode(
  dataDir: string,
  ports: NodePorts,
  args: readonly string[],
): { readonly process: ChildProcess; readonly output: () => string } {
  const listen = Object.entries(ports).flatMap(([name, port]) => [`--${name}`, `127.0.0.1:${String(port)}`]);
  const child = spawn(ECLUSE, ['up', '--data', dataDir, ...listen, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
  }
  return { process: child, output: () => text };
}

async function untilReady(child: ChildProcess, output: () => string): Promise<void> {
  const deadline = Date.now() + READY_LIMIT_MS;
  while (!/^ecluse: ready in/m.test(output())) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the node ended before it was ready:\n${output()}`);
    if (Date.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`the node was not ready in ${String(READY_LIMIT_MS)} ms:\n${output()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Starts a node and waits until it is ready. Disposing stops it and removes its directory if it made it. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  const dataDir = options.dataDir ?? (await freshDataDir());
  const ports = options.ports ?? (await freePorts());
  const args: string[] = [];
  if (options.demo === true) args.push('--demo');
  else {
    const hosts = (options.hosts ?? ['a']).map((name) => ({ name, engine: 'managed' }));
    const file = join(dataDir, 'ecluse.yaml');
    await writeFile(file, JSON.stringify({ hosts, domain: 'localhost', workers: 2, ...options.config }));
    args.push('--config', file);
  }
  const { process: child, output } = spawnNode(dataDir, ports, args);
  const stop = async (
    signal: NodeJS.Signals = 'SIGTERM',
  ): Promise<{ readonly exitCode: number | null; readonly tookMs: number }> => {
    const startMs = performance.now();
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      const killer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
      await once(child, 'exit');
      clearTimeout(killer);
    }
    return { exitCode: child.exitCode, tookMs: performance.now() - startMs };
  };
  await untilReady(child, output);
  const env = (tenant: string): NodeJS.ProcessEnv => ({
    PATH: process.env['PATH'],
    HOME: dataDir,
    DOCKER_CONFIG: join(dataDir, 'docker-config'),
    DOCKER_HOST: `tcp://127.0.0.1:${String(ports.docker)}`,
    DOCKER_TLS_VERIFY: '1',
    DOCKER_CERT_PATH: join(dataDir, 'tenants', tenant),
  });
  return {
    process: child,
    dataDir,
    ports,
    caFile: join(dataDir, 'tls', 'ca.pem'),
    output,
    ecluse: async (...rest) => await run(ECLUSE, rest, { env: { ...process.env, ECLUSE_DATA: dataDir } }),
    docker: async (tenant, rest, input) =>
      await run('docker', rest, { env: env(tenant), ...(input === undefined ? {} : { input }) }),
    dockerEnv: env,
    stop,
    async [Symbol.asyncDispose](): Promise<void> {
      await stop();
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Adds a tenant and makes its client certificate. */
export async function addTenant(node: TestNode, name: string, ...flags: readonly string[]): Promise<void> {
  const added = await node.ecluse('tenant', 'add', name, ...flags);
  if (added.exitCode !== 0) throw new Error(added.stderr);
  const env = await node.ecluse('tenant', 'env', name);
  if (env.exitCode !== 0) throw new Error(env.stderr);
}
