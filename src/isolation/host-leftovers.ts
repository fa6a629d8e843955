/**
 * What an engine that did not end in order leaves on the machine: shims that wait for a containerd that will not come back, and mounts
 * below its directory. Only what names the engine's own directory is touched.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { tryCommand } from '#command';

/** Ends the shims of the containerd below `engineDir`; only for an engine that is gone. Returns their pids. */
export async function endShims(engineDir: string): Promise<readonly number[]> {
  const containerd = join(engineDir, 'exec', 'containerd');
  const ended: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const args = (await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (!(args[0] ?? '').includes('containerd-shim') || !args.includes(join(containerd, 'containerd.sock'))) continue;
    try {
      process.kill(Number(name), 'SIGKILL');
      ended.push(Number(name));
    } catch {
      // It ended by itself between the look and the kill.
    }
  }
  if (ended.length > 0) await removeShimSockets(join(containerd, 'daemon', 'io.containerd.runtime.v2.task', 'moby'));
  return ended;
}

/** Shims listen outside of the engine's directory; each bundle says where. */
async function removeShimSockets(bundles: string): Promise<void> {
  for (const name of await readdir(bundles).catch(() => [])) {
    const address = await readFile(join(bundles, name, 'address'), 'utf8').catch(() => '');
    const path = /^unix:\/\/(\/run\/containerd\/s\/[0-9a-f]+)$/.exec(address.trim())?.[1];
    if (path !== undefined) await rm(path, { force: true });
  }
}

/** Takes down every mount below `dir`, the innermost first; lazily, because a process that is ending may still be in one. */
export async function unmountBelow(dir: string): Promise<void> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' ')[4] ?? '');
  for (const path of mounts.filter((mount) => mount.startsWith(`${dir}/`)).toReversed()) await tryCommand('umount', ['-l', path]);
}
