/** Where engines keep what containers wrote and what is in volumes. */
import { EcluseError } from '#errors';
import { isVolumeKey, volumeKey } from '#metering/ledger-chain.ts';
import { listAllVolumes } from '#state/volumes.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from './containers.ts';
import type { DiskPlace } from './disk-meter.ts';
import type { Host } from './host.ts';
import { upperOf } from './snapshots/upper-directory.ts';
import { findVolumeDirectory } from './volumes/volume-data.ts';

interface PlaceDeps {
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Pick<Containers, 'find' | 'inspectEngine'>;
}

/** Of a container's id, or `volume/ID`. Undefined: it has nothing on disk. Throws where an engine does not answer. */
export async function findDiskPlace(deps: PlaceDeps, id: string): Promise<DiskPlace> {
  return isVolumeKey(id) ? await findVolume(deps, id) : await findContainer(deps, id);
}

async function findContainer({ containers }: PlaceDeps, id: string): Promise<DiskPlace> {
  const row = await containers.find(id);
  const inspect = row === undefined ? undefined : await containers.inspectEngine(row);
  return row === undefined || inspect === undefined ? undefined : { host: row.host, directory: upperOf(inspect) };
}

async function findVolume({ sql, hosts }: PlaceDeps, id: string): Promise<DiskPlace> {
  const volume = (await listAllVolumes(sql)).find((one) => volumeKey(one.id) === id);
  if (volume === undefined || volume.host === '') return undefined;
  const host = hosts.get(volume.host);
  if (host === undefined)
    throw new EcluseError({ code: 'ECLUSE_HOST_UNKNOWN', source: 'runtime', message: `there is no host ${volume.host} now` });
  const directory = await findVolumeDirectory(host, volume);
  return directory === undefined ? undefined : { host: volume.host, directory };
}
