/** Brings the peers onto the machine: Debian's packages, and npm's in a folder of their own. What cannot be had is left out, and said. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand, tryCommand } from '#command';
import { reasonOf } from '#errors';

/** Exact versions: a peer that changes under us changes our ratios. */
export const NODE_PEERS = {
  'http-proxy-3': '2.0.1',
  '@fastify/http-proxy': '11.6.3',
  fastify: '5.12.8',
  undici: '8.12.4',
} as const;

const PACKAGES: Readonly<Record<string, string>> = {
  nginx: 'nginx',
  haproxy: 'haproxy',
  caddy: 'caddy',
  wrk: 'wrk',
  h2load: 'nghttp2-client',
  perl: 'perl-base',
  openssl: 'openssl',
};
const INSTALL_MS_MAX = 300_000;
const POLICY_FILE = '/usr/sbin/policy-rc.d';
export const NODE_PEERS_DIRECTORY = join(import.meta.dirname, '..', '.peers');

export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

export async function isInstalled(program: string): Promise<boolean> {
  return (await tryCommand('sh', ['-c', 'command -v "$1"', 'sh', program])).exitCode === 0;
}

/** Installs the Debian packages of the programs that are absent; none of their services is started. */
export async function installPrograms(programs: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const program of programs) if (!(await isInstalled(program))) missing.push(program);
  if (missing.length === 0) return;
  note(`installing ${missing.join(', ')}`);
  const ownPolicy = !existsSync(POLICY_FILE);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    if (ownPolicy) {
      await writeFile(POLICY_FILE, '#!/bin/sh\nexit 101\n');
      await chmod(POLICY_FILE, 0o755);
    }
    await tryCommand('apt-get', ['update'], { env, timeoutMs: INSTALL_MS_MAX });
    // One by one: a package that cannot be had must not cost the others.
    for (const program of missing) {
      const args = ['install', '-y', '--no-install-recommends', PACKAGES[program] ?? program];
      const { exitCode, stderr } = await tryCommand('apt-get', args, { env, timeoutMs: INSTALL_MS_MAX });
      if (exitCode !== 0) note(`${program} could not be installed and is left out: ${stderr.trim().slice(-300)}`);
    }
  } catch (error) {
    note(`packages could not be installed: ${reasonOf(error)}`);
  } finally {
    if (ownPolicy) await rm(POLICY_FILE, { force: true });
  }
}

/** Installs the node peers; false where that did not work. */
export async function installNodePeers(): Promise<boolean> {
  const manifest = JSON.stringify({ private: true, dependencies: NODE_PEERS });
  const manifestFile = join(NODE_PEERS_DIRECTORY, 'package.json');
  const doneFile = join(NODE_PEERS_DIRECTORY, '.done');
  try {
    if (existsSync(doneFile) && (await readFile(manifestFile, 'utf8')) === manifest) return true;
    note('installing the node peers');
    await rm(NODE_PEERS_DIRECTORY, { recursive: true, force: true });
    await mkdir(NODE_PEERS_DIRECTORY, { recursive: true });
    await writeFile(join(NODE_PEERS_DIRECTORY, '.gitignore'), '*\n');
    await writeFile(manifestFile, manifest);
    const args = ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--prefix', NODE_PEERS_DIRECTORY];
    await runCommand('npm', args, { timeoutMs: INSTALL_MS_MAX });
    await writeFile(manifestFile, manifest); // npm formats it.
    await writeFile(doneFile, '');
    return true;
  } catch (error) {
    note(`the node peers could not be installed and are left out: ${reasonOf(error)}`);
    return false;
  }
}

/** What each program says of its version. */
export async function programVersions(): Promise<Record<string, string>> {
  const asked: readonly (readonly [string, readonly string[]])[] = [
    ['nginx', ['-v']],
    ['haproxy', ['-v']],
    ['caddy', ['version']],
    ['wrk', ['-v']],
    ['h2load', ['--version']],
    ['openssl', ['version']],
  ];
  const found: Record<string, string> = {};
  for (const [program, args] of asked) {
    const { exitCode, stdout, stderr } = await tryCommand(program, args);
    const [line = ''] = `${stdout}${stderr}`.trim().split('\n');
    found[program] = exitCode === 127 ? 'absent' : line;
  }
  return { ...found, ...NODE_PEERS, nodeOpenssl: process.versions.openssl };
}
