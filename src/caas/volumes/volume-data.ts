/** The files of volumes: directories of engines on this machine, read and copied as a whole. What is in them is a tenant's. */
import * as z from 'zod';
import { runCommand, tryCommand } from '#command';
import type { VolumeRow } from '#state/volumes.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';
import { engineOptionsOf } from '#caas/spec/volume-options.ts';

const COPY_TIMEOUT_MS = 600_000;
/** A volume with more files than can be looked at in this time has an unknown size; nobody waits longer for a list. */
const SIZE_TIMEOUT_MS = 20_000;

const volumeSchema = z.object({ Name: z.string(), Mountpoint: z.string().startsWith('/') });
const listSchema = z.object({ Volumes: z.array(z.object({ Name: z.string() })).nullish() });

function prefixOf(host: Host): string {
  return `ecluse-${host.network.scope}-`;
}

/** The engine's name of a volume: by our id, never by the tenant's name. */
export function engineVolumeOf(host: Host, volume: VolumeRow): string {
  return `${prefixOf(host)}${volume.id}`;
}

/** Makes the engine's volume where it is not there yet. Returns its directory. */
export async function ensureEngineVolume(host: Host, volume: VolumeRow): Promise<string> {
  const { json } = await host.client.call({
    method: 'POST',
    path: ['volumes', 'create'],
    body: {
      Name: engineVolumeOf(host, volume),
      Driver: 'local',
      DriverOpts: engineOptionsOf(volume.options ?? {}, volume.name),
      Labels: { 'ecluse.tenant': volume.tenant, 'ecluse.volume': volume.id },
    },
  });
  return volumeSchema.parse(json).Mountpoint;
}

/** Removes the engine's volume with its data; nothing where it is gone. */
export async function removeEngineVolume(host: Host, engineName: string): Promise<void> {
  try {
    await host.client.call({ method: 'DELETE', path: ['volumes', engineName], query: { force: true } });
  } catch (error) {
    if (!(error instanceof EngineError && error.status === 404)) throw error;
  }
}

/** Engine volumes that are this node's. */
export async function listEngineVolumes(host: Host): Promise<readonly string[]> {
  const { json } = await host.client.call({ method: 'GET', path: ['volumes'] });
  const names = (listSchema.parse(json).Volumes ?? []).map(({ Name }) => Name);
  return names.filter((name) => name.startsWith(prefixOf(host)));
}

/** Copies all data of a volume that no container uses to another host of this machine, whole or not at all. */
export async function copyVolume(volume: VolumeRow, from: Host, to: Host): Promise<void> {
  const target = engineVolumeOf(to, volume);
  await removeEngineVolume(to, target); // What an earlier attempt left.
  const source = await ensureEngineVolume(from, volume);
  const directory = await ensureEngineVolume(to, volume);
  if (Object.keys(volume.options ?? {}).length > 0) return; // A tmpfs is empty while nobody has it mounted.
  try {
    await runCommand('cp', ['-a', '--', `${source}/.`, directory], { timeoutMs: COPY_TIMEOUT_MS });
  } catch (error) {
    await removeEngineVolume(to, target);
    throw error;
  }
}

/** Where an engine keeps a volume. Undefined: it has none of the name. */
export async function findVolumeDirectory(host: Host, volume: VolumeRow): Promise<string | undefined> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['volumes', engineVolumeOf(host, volume)] });
    return volumeSchema.parse(json).Mountpoint;
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return undefined;
    throw error;
  }
}

/** Bytes of the files of a volume, each counted once; -1 (Docker's "unknown") where they cannot be counted in time. */
export async function sizeOfVolume(host: Host, volume: VolumeRow): Promise<number> {
  const directory = await findVolumeDirectory(host, volume);
  if (directory === undefined) return -1;
  // Only files with several names are remembered. Names of files are not printed: they are a tenant's.
  const sum = `$1 > 1 && seen[$2]++ { next } { bytes += $3 } END { printf "%.0f", bytes }`;
  const script = `find "$1" -xdev ! -type d -printf '%n %i %s\\n' | awk '${sum}'`;
  const counted = await tryCommand('sh', ['-c', script, 'sh', directory], { timeoutMs: SIZE_TIMEOUT_MS });
  return counted.exitCode === 0 && /^\d+$/.test(counted.stdout) ? Number(counted.stdout) : -1;
}
