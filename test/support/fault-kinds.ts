/** What can break while a container moves, each as it happens: a process that is killed, packets that are lost, a disk that is full, a person's word. */
import { readFileSync } from 'node:fs';
import { open, readFile, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runCommand, tryCommand } from '#command';
import { detectCgroups } from '#isolation/cgroup.ts';
import { codeOf } from '#errors';
import { CONTAINER, TENANT, fillImageFolder, otherHost, placeOf } from './fault-scene.ts';
import type { FaultScene, HostName } from './fault-scene.ts';

export const FAULTS = [
  'kill node',
  'stop node',
  'kill source engine',
  'kill target engine',
  'kill source sandbox',
  'kill target sandbox',
  'cut source',
  'cut target',
  'full image folder',
  'full disk',
  'cancel',
] as const;
export type Fault = (typeof FAULTS)[number];

export interface Struck {
  /** False: there was nothing to break. */
  readonly hit: boolean;
  /** The program's only memory was taken: it may begin anew. */
  readonly mayForget: boolean;
  /** When what was killed had lost its memory, by `performance.now()`. */
  readonly goneMs?: number;
  /** Ends what lasts; the node may have to be started again after it. */
  readonly lift: () => Promise<void>;
}

const KILLED_LIMIT_MS = 1_000;

const NOTHING: Struck = { hit: false, mayForget: false, lift: async () => undefined };

export interface Blow {
  readonly source: HostName;
  /** How long a fault lasts that ends by itself. */
  readonly lastsMs: number;
}

/** Breaks it. Returns as soon as it is broken. */
export async function strike(scene: FaultScene, fault: Fault, { source, lastsMs }: Blow): Promise<Struck> {
  const target = otherHost(source);
  switch (fault) {
    case 'kill node':
      return endNode(scene, 'SIGKILL');
    case 'stop node':
      return endNode(scene, 'SIGTERM');
    case 'kill source engine':
      return await killEngine(scene, source);
    case 'kill target engine':
      return await killEngine(scene, target);
    case 'kill source sandbox':
      return await killSandbox(scene, source);
    case 'kill target sandbox':
      return await killSandbox(scene, target);
    case 'cut source':
      return await cut(scene, source, lastsMs);
    case 'cut target':
      return await cut(scene, target, lastsMs);
    case 'full image folder':
      return await lasting(await fillImageFolder(scene), lastsMs);
    case 'full disk':
      return await lasting(await fillDisk(scene), lastsMs);
    case 'cancel': {
      const { exitCode } = await scene.node().ecluse('migrate', CONTAINER, '--cancel');
      return { ...NOTHING, hit: exitCode === 0 };
    }
  }
}

function endNode(scene: FaultScene, signal: 'SIGKILL' | 'SIGTERM'): Struck {
  scene.node().process.kill(signal);
  const lift = async (): Promise<void> => {
    await scene.startAgain();
  };
  // A stop ends containers in order, and starts them again.
  return { hit: true, mayForget: signal === 'SIGTERM', lift };
}

async function lasting(held: AsyncDisposable, lastsMs: number): Promise<Struck> {
  const end = async (): Promise<void> => {
    await sleep(lastsMs);
    await held[Symbol.asyncDispose]();
  };
  const over = end();
  return {
    hit: true,
    mayForget: false,
    lift: async () => {
      await over;
    },
  };
}

async function killEngine(scene: FaultScene, host: HostName): Promise<Struck> {
  const dir = join(scene.dataDir, 'hosts', host);
  const pid = Number((await readFile(join(dir, 'dockerd.pid'), 'utf8').catch(() => '')).trim());
  const words = await readFile(`/proc/${String(pid)}/cmdline`, 'utf8').catch(() => '');
  if (pid <= 1 || !words.includes(join(dir, 'daemon.json'))) return NOTHING;
  process.kill(pid, 'SIGKILL');
  return { ...NOTHING, hit: true };
}

/** Sandboxes of the container on a host, by their processes' own names. */
export async function sandboxesOn(scene: FaultScene, host: HostName, id: string): Promise<readonly number[]> {
  const cgroups = await detectCgroups();
  const pids = await cgroups.processesIn(`/ecluse/${scene.scope}-${host}/${TENANT}/${id}`);
  return pids.filter((pid) => isSandbox(pid));
}

/** False as soon as it has lost its memory, if not before it has ended. */
function isSandbox(pid: number): boolean {
  try {
    return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8').startsWith('runsc-sandbox');
  } catch {
    return false;
  }
}

async function killSandbox(scene: FaultScene, host: HostName): Promise<Struck> {
  const before = placeOf(scene);
  const pids = await sandboxesOn(scene, host, before.id);
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  // Within microseconds where a processor is free; nothing else of this process may come between.
  const limitMs = performance.now() + KILLED_LIMIT_MS;
  while (pids.some((pid) => isSandbox(pid)) && performance.now() < limitMs);
  const goneMs = performance.now();
  const after = placeOf(scene);
  return { ...NOTHING, hit: pids.length > 0, mayForget: before.host === host || after.host === host, goneMs };
}

/** Nothing that this machine sends arrives in the host's networks. */
async function cut(scene: FaultScene, host: HostName, lastsMs: number): Promise<Struck> {
  const [row] = scene.query(`SELECT network_octet FROM host WHERE name = '${host}'`);
  const table = `faults_${scene.scope}`;
  const rules = [
    `add table inet ${table}`,
    `add chain inet ${table} out { type filter hook output priority -300; }`,
    `add rule inet ${table} out ip daddr 10.${String(row?.['network_octet'])}.0.0/16 drop`,
  ];
  await runCommand('nft', ['-f', '-'], { input: `${rules.join('\n')}\n` });
  const held = {
    [Symbol.asyncDispose]: async () => {
      await tryCommand('nft', ['delete', 'table', 'inet', table]);
    },
  };
  return await lasting(held, lastsMs);
}

/** What a full disk has free before it is full: a move has its room, and what is left is filled in an instant. */
const FREE_BEFORE_BYTES = 128 * 1024 ** 2;

/** Before a round: the node's file system is nearly full. */
export async function fillMost(scene: FaultScene): Promise<void> {
  const { bavail, bsize } = await statfs(scene.dataDir);
  await runCommand('fallocate', ['-l', String(bavail * bsize - FREE_BEFORE_BYTES), fillerOf(scene)]);
}

function fillerOf(scene: FaultScene): string {
  return join(scene.dataDir, 'filler');
}

/** The node's whole file system: store, engines, volumes. */
async function fillDisk(scene: FaultScene): Promise<AsyncDisposable> {
  const { bavail, bsize } = await statfs(scene.dataDir);
  const rest = `${fillerOf(scene)}.rest`;
  await tryCommand('fallocate', ['-l', String(bavail * bsize), rest]);
  await fillRest(rest);
  return {
    [Symbol.asyncDispose]: async () => {
      await emptyDisk(scene);
    },
  };
}

/** Gives the space back. */
export async function emptyDisk(scene: FaultScene): Promise<void> {
  await rm(fillerOf(scene), { force: true });
  await rm(`${fillerOf(scene)}.rest`, { force: true });
}

async function fillRest(path: string): Promise<void> {
  await using file = await open(path, 'a');
  try {
    for (;;) await file.write(Buffer.alloc(4096));
  } catch (error) {
    if (codeOf(error) !== 'ENOSPC') throw error;
  }
}
