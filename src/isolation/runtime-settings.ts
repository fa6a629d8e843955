/** What `ecluse-runsc` (the OCI wrapper beside this file) is told about the machine: written before an engine starts. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RunscCapabilities } from './runsc-probe.ts';

/** The wrapper that engines call in runc's place. */
export const WRAPPER_FILE = fileURLToPath(new URL('./ecluse-runsc', import.meta.url));
/** The name under which engines know it. */
export const RUNTIME_NAME = 'ecluse-runsc';

/** Resolvers for containers where the host has none that a container could reach. */
const RESOLVER_FALLBACK = 'nameserver 127.0.0.1';

/**
 * The global flags for this build of runsc. Files live in the engine's own layers (`--overlay2=none`), so that `docker cp`, `diff`,
 * `commit` and a restart see what the container wrote; see docs/decisions/004-runsc-flags.md.
 */
export function runscFlags(capabilities: RunscCapabilities): readonly string[] {
  const flags = ['--platform=systrap', '--network=sandbox', '--overlay2=none', '--file-access=shared'];
  // Where established connections cannot live on, losing them is better than losing the container to a failed save.
  if (capabilities.netDisconnectOk) flags.push('--net-disconnect-ok');
  return flags;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The host's resolvers, without those on loopback: inside a sandbox loopback is the container itself. */
export function resolvConfFor(hostResolvConf: string): string {
  const lines = hostResolvConf.split('\n').filter((line) => /^(?:nameserver|search|options)\s/.test(line));
  const usable = lines.filter((line) => !/^nameserver\s+(?:127\.|::1)/.test(line));
  return `${(usable.some((line) => line.startsWith('nameserver')) ? usable : [...usable, RESOLVER_FALLBACK]).join('\n')}\n`;
}

/**
 * Forgets the final counters that the wrapper wrote for a container whose books are closed. They are what is left to read by hand where a daemon
 * was away; without this there would be one file for every container that ever was.
 */
export async function forgetFinalCounters(dir: string, engineId: string): Promise<void> {
  await rm(join(dir, 'final', engineId), { force: true });
}

/** Writes the wrapper's directory: settings, resolv.conf and the folders it expects. */
export async function writeRuntimeSettings(dir: string, capabilities: RunscCapabilities, cgroupPrefix: string): Promise<void> {
  for (const folder of ['staged', 'final', 'cgroup']) await mkdir(join(dir, folder), { recursive: true, mode: 0o700 });
  const settings = [
    `RUNSC=${shellQuoted(capabilities.path)}`,
    `RUNSC_FLAGS=${shellQuoted(runscFlags(capabilities).join(' '))}`,
    `MASK_PROC_SYS_NET=${capabilities.needsProcSysNetMask ? '1' : '0'}`,
    `HAS_UPDATE=${capabilities.update ? '1' : '0'}`,
    `CGROUP_PREFIX=${shellQuoted(cgroupPrefix)}`,
    '',
  ];
  await writeFile(join(dir, 'settings'), settings.join('\n'), { mode: 0o600 });
  const hostResolvConf = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  await writeFile(join(dir, 'resolv.conf'), resolvConfFor(hostResolvConf));
}
