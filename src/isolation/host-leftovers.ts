/**
 * What an engine that did not end in order leaves on the machine: shims that wait for a containerd that will not come back, and mounts
 * below its directory. Only what names the engine's own directory is touched.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { tryCommand } from '#command';

export interface Shim {
  readonly pid: number;
  /** The engine's id of its container. */
  readonly engineId: string;
  /** It has no child: nothing of a container is left to it. */
  readonly isAlone: boolean;
}

/** The shims of the containerd below `engineDir`. */
export async function shimsOf(engineDir: string): Promise<readonly Shim[]> {
  const socket = join(engineDir, 'exec', 'containerd', 'containerd.sock');
  const shims: Omit<Shim, 'isAlone'>[] = [];
  const parents = new Set<number>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    // proc(5): behind the name, which may have anything in it, come the state and the parent.
    parents.add(Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    const args = (await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (!(args[0] ?? '').includes('containerd-shim') || !args.includes(socket)) continue;
    shims.push({ pid: Number(name), engineId: args[args.indexOf('-id') + 1] ?? '' });
  }
  return shims.map((shim) => ({ ...shim, isAlone: !parents.has(shim.pid) }));
}

/** Ends all shims of the containerd below `engineDir`; only for an engine that is gone. Returns their pids. */
export async function endShims(engineDir: string): Promise<readonly number[]> {
  const ended = killAll((await shimsOf(engineDir)).map(({ pid }) => pid));
  const bundles = join(engineDir, 'exec', 'containerd', 'daemon', 'io.containerd.runtime.v2.task', 'moby');
  if (ended.length > 0) await removeShimSockets(bundles);
  return ended;
}

/** Returns those that there were. */
export function killAll(pids: readonly number[]): readonly number[] {
  return pids.filter((pid) => {
    try {
      process.kill(pid, 'SIGKILL');
      return true;
    } catch {
      return false; // It ended by itself between the look and the kill.
    }
  });
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
