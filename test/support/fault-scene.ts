/**
 * A node with two hosts on a file system of its own, one container that is moved between them under load, and a look at all of it past the node:
 * its store, its engines, its cgroups.
 */
import { once } from 'node:events';
import { readFile, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { scopeOf } from '#caas/host.ts';
import { runCommand, tryCommand } from '#command';
import { DEMO_IMAGE_CHANGES, writeDemoImage } from '../../src/demo-image.ts';
import { startFaultLoad } from './fault-load.ts';
import type { FaultLoad } from './fault-load.ts';
import { addTenant, freePorts, freshDataDir, startNode } from './node.ts';
import type { TestNode } from './node.ts';

export const HOSTS = ['a', 'b'] as const;
export type HostName = (typeof HOSTS)[number];
export const TENANT = 'acme';
export const CONTAINER = 'app';
export const MEMORY_MIB = 256;
export const CPUS = 1.5;

const APP_FILE = fileURLToPath(new URL('fault-app.js', import.meta.url));
const APP_PATH = '/app/fault-app.js';
const WEB_HOST = 'app.localhost';
/** Room for two engines with the image; it can be filled without harm to anybody else. */
const DISK_MIB = 2048;
const ANSWER_LIMIT_MS = 60_000;

export interface FaultScene extends AsyncDisposable {
  readonly dataDir: string;
  readonly scope: string;
  readonly load: FaultLoad;
  /** The node that runs now. */
  readonly node: () => TestNode;
  /** After the node ended: starts it again on the same data. */
  readonly startAgain: () => Promise<void>;
  /** Rows of the node's store. */
  readonly query: (sql: string) => readonly Readonly<Record<string, unknown>>[];
}

/** The directory is a file system in memory: it can be full while the machine's is not. */
async function makeDisk(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await freshDataDir();
  await runCommand('mount', ['-t', 'tmpfs', '-o', `size=${String(DISK_MIB)}m,mode=0711`, 'ecluse-faults', path]);
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await tryCommand('umount', ['-l', path]);
      await rm(path, { recursive: true, force: true });
    },
  };
}

export async function openFaultScene(): Promise<FaultScene> {
  await using stack = new AsyncDisposableStack();
  const disk = stack.use(await makeDisk());
  const ports = await freePorts();
  const start = async (): Promise<TestNode> => await startNode({ hosts: HOSTS, dataDir: disk.path, ports });
  let node = await start();
  stack.defer(async () => {
    await node.stop();
  });
  await addTenant(node, TENANT, '--domain', 'localhost');
  await runApp(node);
  const load = stack.use(startFaultLoad(ports.http, WEB_HOST));
  const endMs = Date.now() + ANSWER_LIMIT_MS;
  while ((await load.ask()) === undefined) if (Date.now() > endMs) throw new Error('the app does not answer');
  const all = stack.move();
  return {
    dataDir: disk.path,
    scope: scopeOf(disk.path),
    load,
    node: () => node,
    startAgain: async () => {
      if (node.process.exitCode === null && node.process.signalCode === null) await once(node.process, 'exit');
      node = await start();
    },
    query: (sql) => queryStore(disk.path, sql),
    [Symbol.asyncDispose]: async () => {
      await all.disposeAsync();
    },
  };
}

async function runApp(node: TestNode): Promise<void> {
  const archive = join(node.dataDir, 'image.tar');
  await writeDemoImage(archive, [{ kind: 'text', path: APP_PATH, text: await readFile(APP_FILE, 'utf8') }]);
  const changes = DEMO_IMAGE_CHANGES.filter((change) => !change.startsWith('CMD ')).concat(
    `CMD ["/usr/local/bin/node","${APP_PATH}"]`,
  );
  await mustDocker(node, ['import', ...changes.flatMap((change) => ['--change', change]), archive, 'faults']);
  await rm(archive);
  const labels = [`ecluse.http.host=${WEB_HOST}`, 'ecluse.http.health=/healthz'].flatMap((label) => ['--label', label]);
  const limits = ['--restart', 'unless-stopped', '--memory', `${String(MEMORY_MIB)}m`, '--cpus', String(CPUS), '--user', '0'];
  await mustDocker(node, ['run', '--detach', '--name', CONTAINER, ...limits, '--volume', 'data:/data', ...labels, 'faults']);
}

async function mustDocker(node: TestNode, args: readonly string[]): Promise<void> {
  const answer = await node.docker(TENANT, args);
  if (answer.exitCode !== 0) throw new Error(`docker ${args[0] ?? ''}: ${answer.stderr}`);
}

function queryStore(dataDir: string, sql: string): readonly Readonly<Record<string, unknown>>[] {
  const store = new DatabaseSync(join(dataDir, 'ecluse.db'), { readOnly: true, timeout: 5_000 });
  try {
    return store.prepare(sql).all();
  } finally {
    store.close();
  }
}

/** Where the store says that the container is. */
export interface Place {
  readonly id: string;
  readonly host: HostName;
  readonly engineId: string;
  readonly incarnation: number;
  readonly state: string;
  readonly snapshot: string;
}

export function placeOf(scene: FaultScene): Place {
  const [row] = scene.query(
    `SELECT id, host, engine_id, incarnation, state, snapshot FROM container WHERE name = '${CONTAINER}'`,
  );
  if (row === undefined) throw new Error('the store has lost the container');
  return {
    id: String(row['id']),
    host: row['host'] === 'b' ? 'b' : 'a',
    engineId: String(row['engine_id']),
    incarnation: Number(row['incarnation']),
    state: String(row['state']),
    snapshot: String(row['snapshot']),
  };
}

export function otherHost(host: HostName): HostName {
  return host === 'a' ? 'b' : 'a';
}

/** `docker ARGS` at an engine, past the node. Undefined where it does not answer. */
export async function engineSays(scene: FaultScene, host: HostName, args: readonly string[]): Promise<string | undefined> {
  const socket = join(scene.dataDir, 'hosts', host, 'docker.sock');
  const { exitCode, stdout } = await tryCommand('docker', ['--host', `unix://${socket}`, ...args], { timeoutMs: 10_000 });
  return exitCode === 0 ? stdout.trim() : undefined;
}

const RESIZE_ATTEMPTS = 20;
const SPARE_BYTES = 64 * 1024;

/** The folder of images in memory. */
export function imageFolderOf(scene: FaultScene): string {
  return join('/dev/shm', `ecluse-${scene.scope}`);
}

/** Makes the image folder too small for any more, whatever it has; disposing gives it back. */
export async function fillImageFolder(scene: FaultScene): Promise<AsyncDisposable> {
  const folder = imageFolderOf(scene);
  const resize = async (size: string): Promise<boolean> =>
    (await tryCommand('mount', ['-o', `remount,size=${size}`, folder])).exitCode === 0;
  // An image that is being written can be larger than it was a moment ago.
  for (let attempt = 0; attempt < RESIZE_ATTEMPTS; attempt += 1) {
    const { blocks, bfree, bsize } = await statfs(folder);
    if (await resize(String((blocks - bfree) * bsize + SPARE_BYTES)))
      return {
        [Symbol.asyncDispose]: async () => {
          await resize('50%');
        },
      };
  }
  throw new Error(`${folder} could not be made smaller`);
}
