/** What `ecluse-runsc` (the OCI wrapper beside this file) is told about the machine: written before an engine starts. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RESOLVER_ADDRESS } from './host-addresses.ts';
import type { RunscCapabilities } from './runsc-probe.ts';

/** The wrapper that engines call in runc's place. */
export const WRAPPER_FILE = fileURLToPath(new URL('./ecluse-runsc', import.meta.url));
/** The name under which engines know it. */
export const RUNTIME_NAME = 'ecluse-runsc';

/**
 * What every container gets: the node's responder, which knows the tenant's names and asks the machine's resolvers for the rest. `ndots:0` as
 * Docker sets it, so that a name without dots is asked for as it is.
 */
const RESOLV_CONF = `nameserver ${RESOLVER_ADDRESS}\noptions ndots:0 timeout:2 attempts:2\n`;

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

/**
 * Forgets the final counters that the wrapper wrote for a container whose books are closed. They are what is left to read by hand where a daemon
 * was away; without this there would be one file for every container that ever was.
 */
export async function forgetFinalCounters(dir: string, engineId: string): Promise<void> {
  await rm(join(dir, 'final', engineId), { force: true });
}

/** Writes the wrapper's directory: settings, resolv.conf and the folders it expects. */
export async function writeRuntimeSettings(dir: string, capabilities: RunscCapabilities, cgroupPrefix: string): Promise<void> {
  for (const folder of ['staged', 'held', 'final', 'cgroup', 'exec'])
    await mkdir(join(dir, folder), { recursive: true, mode: 0o700 });
  // Of wrappers that were killed while they started an exec. Engines that live on may be starting others.
  for (const name of await readdir(join(dir, 'exec')))
    if (!existsSync(`/proc/${String(Number.parseInt(name, 10))}`)) await rm(join(dir, 'exec', name), { force: true });
  const settings = [
    `RUNSC=${shellQuoted(capabilities.path)}`,
    `RUNSC_FLAGS=${shellQuoted(runscFlags(capabilities).join(' '))}`,
    `MASK_PROC_SYS_NET=${capabilities.needsProcSysNetMask ? '1' : '0'}`,
    `HAS_UPDATE=${capabilities.update ? '1' : '0'}`,
    `CGROUP_PREFIX=${shellQuoted(cgroupPrefix)}`,
    // DATA/hosts/NAME/runsc → DATA/sockets. The flag is for containers that have one of these sockets, and for no others.
    `ENDPOINT_SOCKETS=${shellQuoted(resolve(dir, '../../../sockets'))}`,
    `ENDPOINT_SOCKET_FLAG=${capabilities.hostUdsOpen ? '--host-uds=open' : ''}`,
    '',
  ];
  await writeFile(join(dir, 'settings'), settings.join('\n'), { mode: 0o600 });
  await writeFile(join(dir, 'resolv.conf'), RESOLV_CONF);
}
