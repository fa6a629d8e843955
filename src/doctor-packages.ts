/**
 * Debian packages for the programs that a node needs: all missing ones in one `apt-get install`, and nothing else of the
 * machine touched. No package is ever removed for it, no service is started by it, and no mirror is named here: a further
 * suite is read from where the machine's own Debian comes from.
 */
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { tryCommand } from '#command';
import type { CommandResult } from '#command';
import { EcluseError, codeOf } from '#errors';
import { findProgram, systemPath } from '#isolation/program-path.ts';
import { runscDateYmd } from '#isolation/runsc-probe.ts';
import { backportsSource } from './doctor-sources.ts';

/** gVisor of this year or later: the first that can write an uncompressed checkpoint. */
const RUNSC_OLDEST_YMD = 20240101;
const SOURCES_FOLDER = '/etc/apt/sources.list.d';
const BACKPORTS_FILE = `${SOURCES_FOLDER}/ecluse-backports.sources`;
/** `invoke-rc.d` and systemd's maintainer scripts ask this program whether a service may start; 101 is no. */
const SERVICE_POLICY_FILE = '/usr/sbin/policy-rc.d';
const SERVICE_POLICY_TEXT = '#!/bin/sh\n# Written by ecluse while it installs packages; removed afterwards.\nexit 101\n';
const INSTALL_TIMEOUT_MS = 600_000;
const QUERY_TIMEOUT_MS = 30_000;
const RETRY_PAUSE_MS = 5000;
/** Another package tool may be at work (unattended upgrades): wait for it, and try a flaky mirror again. */
const APT_OPTIONS = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=240', '-o', 'Acquire::Retries=3'] as const;

/** busybox-static takes the place of busybox and provides it: the one removal that is part of an installation. */
const REPLACED_ALLOWED: ReadonlySet<string> = new Set(['busybox']);

type Say = (line: string) => void;

export function canInstallPackages(): boolean {
  return findProgram('apt-get') !== undefined && findProgram('dpkg') !== undefined;
}

async function aptCommand(program: 'apt-get' | 'apt-cache', args: readonly string[]): Promise<CommandResult> {
  return await tryCommand(program, args, {
    timeoutMs: program === 'apt-get' ? INSTALL_TIMEOUT_MS : QUERY_TIMEOUT_MS,
    env: { ...process.env, PATH: systemPath(), DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'l', LC_ALL: 'C' },
  });
}

/** What apt said is wrong: its `E:` lines, else its last line. */
function aptComplaint(result: CommandResult): string {
  const lines = `${result.stdout}\n${result.stderr}`.trim().split('\n');
  const errors = lines.filter((line) => line.startsWith('E: ')).map((line) => line.slice(3));
  return (errors.length > 0 ? errors.slice(0, 3).join(' ') : (lines.at(-1) ?? '')).slice(0, 400);
}

async function updateLists(say: Say): Promise<CommandResult> {
  say('setup: apt-get update');
  const first = await aptCommand('apt-get', [...APT_OPTIONS, 'update']);
  if (first.exitCode === 0) return first;
  await delay(RETRY_PAUSE_MS);
  return await aptCommand('apt-get', [...APT_OPTIONS, 'update']);
}

/** The version that a plain `apt-get install` would take, or undefined. */
async function candidateOf(packageName: string): Promise<string | undefined> {
  const { stdout } = await aptCommand('apt-cache', ['policy', packageName]);
  const version = /^\s*Candidate:\s*(\S+)/m.exec(stdout)?.[1];
  return version === undefined || version === '(none)' ? undefined : version;
}

async function versionsOf(packageName: string): Promise<readonly string[]> {
  const { stdout } = await aptCommand('apt-cache', ['madison', packageName]);
  return stdout
    .split('\n')
    .map((line) => line.split('|')[1]?.trim() ?? '')
    .filter((version) => version !== '');
}

function isNewEnough(runscVersion: string): boolean {
  return (runscDateYmd(runscVersion) ?? 0) >= RUNSC_OLDEST_YMD;
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

async function aptSourceFiles(): Promise<{ name: string; text: string }[]> {
  const names = await readdir(SOURCES_FOLDER).catch(() => []);
  const paths = ['/etc/apt/sources.list', ...names.map((name) => join(SOURCES_FOLDER, name))];
  const files = await Promise.all(paths.map(async (name) => ({ name, text: await readIfPresent(name) })));
  return files.flatMap(({ name, text }) => (text === undefined || !/\.(?:list|sources)$/.test(name) ? [] : [{ name, text }]));
}

/** Adds the release's backports suite. Taken back when it does not work, or every later `apt-get update` would fail on it. */
async function addBackports(say: Say): Promise<void> {
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec((await readIfPresent('/etc/os-release')) ?? '')?.[1];
  const source = codename === undefined ? undefined : backportsSource(await aptSourceFiles(), codename);
  if (source === undefined) return; // No Debian source to copy from; what follows says that runsc has to come by hand.
  say(`setup: adding ${BACKPORTS_FILE} (${codename ?? ''}-backports) for a newer runsc`);
  await writeFile(BACKPORTS_FILE, source, { mode: 0o644 });
  const result = await updateLists(say);
  if (result.exitCode !== 0 || !(await versionsOf('runsc')).some(isNewEnough)) {
    await rm(BACKPORTS_FILE, { force: true });
    await updateLists(say);
  }
}

/** What to ask apt-get for to get a gVisor that is new enough: `runsc`, or `runsc=VERSION` of an added suite. */
async function runscTarget(say: Say): Promise<string> {
  let candidate = await candidateOf('runsc');
  if (candidate === undefined) {
    await updateLists(say);
    candidate = await candidateOf('runsc');
  }
  if (candidate !== undefined && isNewEnough(candidate)) return 'runsc';
  let newer = (await versionsOf('runsc')).find(isNewEnough);
  if (newer === undefined) {
    await addBackports(say);
    newer = (await versionsOf('runsc')).find(isNewEnough);
  }
  if (newer !== undefined) return `runsc=${newer}`;
  throw new EcluseError({
    code: 'ECLUSE_SETUP_RUNSC_UNAVAILABLE',
    source: 'runtime',
    message: `this system's package sources have no runsc of 2024 or later${candidate === undefined ? '' : ` (only ${candidate})`}`,
    mend: "install gVisor's own runsc (gvisor.dev, Installation) so that it is on PATH, then run: ecluse doctor",
  });
}

/** Names for the plain packages; a name that the release does not know makes apt read its lists again first. */
async function plainTargets(packages: readonly string[], say: Say): Promise<readonly string[]> {
  if ((await Promise.all(packages.map(candidateOf))).includes(undefined)) {
    const update = await updateLists(say);
    if (update.exitCode !== 0) say(`setup: apt-get update failed: ${aptComplaint(update)}`);
  }
  // Since Debian 13 the client is a package of its own; before, docker.io holds it.
  const targets = packages.map(async (name) =>
    name === 'docker-cli' && (await candidateOf(name)) === undefined ? 'docker.io' : name,
  );
  return [...new Set(await Promise.all(targets))];
}

function installFailed(why: string, targets: readonly string[]): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_SETUP_INSTALL_FAILED',
    source: 'runtime',
    message: `apt-get install failed: ${why}`,
    mend: `run it by hand and follow what it says: apt-get install --no-install-recommends ${targets.join(' ')}`,
  });
}

/** Refuses where apt would take something away: a Docker that someone else installed, for instance. */
async function refuseRemovals(args: readonly string[], targets: readonly string[]): Promise<void> {
  const plan = await aptCommand('apt-get', ['--simulate', ...args]);
  const removed = [...plan.stdout.matchAll(/^Remv (\S+)/gm)]
    .map((found) => found[1] ?? '')
    .filter((name) => !REPLACED_ALLOWED.has(name));
  if (removed.length > 0) throw installFailed(`it would remove ${removed.join(', ')}`, targets);
}

async function install(targets: readonly string[], stop: AbortSignal, say: Say): Promise<void> {
  const args = [...APT_OPTIONS, 'install', '--no-install-recommends', ...targets];
  await refuseRemovals(args, targets);
  say(`setup: installing ${targets.join(', ')}`);
  let result = await aptCommand('apt-get', args);
  if (result.exitCode !== 0 && !stop.aborted) {
    say(`setup: apt-get install failed (${aptComplaint(result)}); trying once more`);
    await delay(RETRY_PAUSE_MS);
    await updateLists(say); // The lists may be older than the mirror, which then has other versions than they name.
    result = await aptCommand('apt-get', args);
  }
  if (stop.aborted) throw installFailed('it was interrupted', targets);
  if (result.exitCode !== 0) throw installFailed(aptComplaint(result), targets);
}

/** Removes a service policy that a killed run of ours left behind. Anyone else's stays. */
async function removeOwnServicePolicy(): Promise<void> {
  if ((await readIfPresent(SERVICE_POLICY_FILE)) === SERVICE_POLICY_TEXT) await rm(SERVICE_POLICY_FILE, { force: true });
}

/** Runs `work` while no package may start its service: docker.io would start a system dockerd, which a node does not use. */
async function withoutServiceStarts(work: (stop: AbortSignal) => Promise<void>): Promise<void> {
  await removeOwnServicePolicy();
  try {
    await writeFile(SERVICE_POLICY_FILE, SERVICE_POLICY_TEXT, { mode: 0o755, flag: 'wx' });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error; // The machine has a policy of its own: that one decides.
  }
  // Ctrl-C would end this process before the `finally`; apt-get gets the signal too and ends, and then we do.
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    await work(stop.signal);
  } finally {
    await removeOwnServicePolicy();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/**
 * Installs `packages` (Debian names; `runsc` means one that is new enough). Throws with what to do where it cannot; where only
 * gVisor cannot be had, the others are installed first.
 */
export async function installPackages(packages: readonly string[], say: Say): Promise<void> {
  const targets = [
    ...(await plainTargets(
      packages.filter((name) => name !== 'runsc'),
      say,
    )),
  ];
  let runscRefusal: unknown; // Thrown at the end.
  try {
    if (packages.includes('runsc')) targets.push(await runscTarget(say));
  } catch (error) {
    runscRefusal = error;
  }
  if (targets.length > 0) {
    await withoutServiceStarts(async (stop) => {
      await install(targets, stop, say);
    });
  }
  if (runscRefusal instanceof Error) throw runscRefusal;
}
