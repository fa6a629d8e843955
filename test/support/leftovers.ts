/** What a node left on the machine: everything outside of its data directory that bears its name. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { scopeOf } from '#caas/host.ts';
import { run } from './node.ts';

const CGROUPS = '/sys/fs/cgroup';
const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

/** One line a thing that is left, empty where there is nothing. Ask when the node is gone. */
export async function leftoversOf(dataDir: string): Promise<readonly string[]> {
  const scope = scopeOf(dataDir);
  const found = await Promise.all([
    processesOf(dataDir),
    mountsOf(dataDir, scope),
    cgroupsOf(scope),
    namesIn('/run/netns', `ecluse-${scope}-`),
    namesIn('/sys/class/net', `e${scope}`),
    namesIn('/dev/shm', `ecluse-${scope}`),
    tablesOf(`ecluse_${scope}_`),
    addressesOf(`lo:e${scope}`),
    socketsOf(dataDir),
  ]);
  return found.flat();
}

/** Asserts that a node is gone without a trace. `forwarding`: what `forwardingToKeep` said before it began. */
export async function expectNothingLeft(dataDir: string, forwarding?: string): Promise<void> {
  expect(await leftoversOf(dataDir)).toEqual([]);
  const now = await forwardingToKeep();
  // Where another node ran at either time it may be on for that one.
  expect(now ?? forwarding).toBe(forwarding ?? now);
}

/** `ip_forward`, if a node that starts now and stops again must leave it so: undefined while others on the machine need it on. */
export async function forwardingToKeep(): Promise<string | undefined> {
  const others = await tablesOf('ecluse_');
  return others.length > 0 ? undefined : (await readFile(IP_FORWARD, 'utf8')).trim();
}

async function processesOf(dataDir: string): Promise<readonly string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const commandLine = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ');
    return commandLine.includes(dataDir) ? `process ${pid}: ${commandLine.slice(0, 200)}` : '';
  });
  return (await Promise.all(found)).filter((line) => line !== '');
}

async function mountsOf(dataDir: string, scope: string): Promise<readonly string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const points = lines.map((line) => line.split(' ')[4] ?? '');
  return points
    .filter((point) => point.startsWith(`${dataDir}/`) || point.startsWith(`/run/netns/ecluse-${scope}-`))
    .map((point) => `mount ${point}`);
}

/** The node's cgroups in each controller, with the processes that are in them. */
async function cgroupsOf(scope: string): Promise<readonly string[]> {
  const trees = ['', ...(await readdir(CGROUPS))];
  const names = trees.map(async (tree) => await namesIn(join(CGROUPS, tree, 'ecluse'), `${scope}-`));
  return (await Promise.all(names)).flat();
}

async function namesIn(folder: string, prefix: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch(() => []); // Nobody made the folder: nothing is in it.
  return names.filter((name) => name.startsWith(prefix)).map((name) => join(folder, name));
}

async function tablesOf(prefix: string): Promise<readonly string[]> {
  const { stdout } = await run('nft', ['list', 'tables']);
  return stdout.split('\n').filter((line) => line.includes(` ${prefix}`));
}

async function addressesOf(label: string): Promise<readonly string[]> {
  const { stdout } = await run('ip', ['-oneline', 'address', 'show', 'dev', 'lo']);
  return stdout.split('\n').filter((line) => line.includes(` ${label}`));
}

/** Control sockets of sandboxes, by the containers of the data directory. */
async function socketsOf(dataDir: string): Promise<readonly string[]> {
  const names = (await readdir('/var/run')).filter((name) => /^runsc-.*\.sock$/.test(name));
  const found: string[] = [];
  for (const host of await readdir(join(dataDir, 'hosts')).catch(() => [])) {
    const containers = await readdir(join(dataDir, 'hosts', host, 'docker', 'containers')).catch(() => []);
    found.push(...names.filter((name) => containers.some((id) => name.includes(id))));
  }
  return found;
}
