/** Volumes that go along with a container that moves while it runs: made on the other host, filled, and placed there in the batch that moves it. */
import type { Sql, SqlWrite } from '#state/sql.ts';
import { listContainersOf } from '#state/containers.ts';
import { findVolume } from '#state/volumes.ts';
import type { VolumeRow } from '#state/volumes.ts';
import type { Host } from '#caas/host.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { MountSpec } from '#caas/spec/spec-mounts.ts';
import { engineVolumeOf, ensureEngineVolume, removeEngineVolume } from './volume-data.ts';

export interface VolumeTravel {
  readonly row: VolumeRow;
  readonly from: string;
  readonly to: string;
  /** A file system of its own that is there only while a container has it mounted. */
  readonly isTmpfs: boolean;
}

export interface VolumeMove {
  /** `HostConfig.Mounts` for the target's engine. */
  readonly engineMounts: readonly Readonly<Record<string, unknown>>[];
  readonly travels: readonly VolumeTravel[];
}

interface Travel {
  readonly tenant: string;
  readonly container: string;
  readonly from: Host;
  readonly to: Host;
  readonly mounts: readonly MountSpec[];
}

/** The names of those volumes of a container that another container has as well, in any state. */
export async function sharedVolumesOf(
  sql: Sql,
  container: string,
  tenant: string,
  mounts: readonly MountSpec[],
): Promise<ReadonlySet<string>> {
  const own = new Set(mounts.flatMap((mount) => (mount.kind === 'volume' ? [mount.name] : [])));
  if (own.size === 0) return own;
  const others = (await listContainersOf(sql, tenant)).filter(({ id }) => id !== container);
  const theirs = new Set(
    others.flatMap(({ spec }) => parseStoredSpec(spec).mounts.flatMap((mount) => (mount.kind === 'volume' ? [mount.name] : []))),
  );
  return own.intersection(theirs);
}

/** The name of one of them: the container cannot leave it. */
export async function sharedVolumeOf(
  sql: Sql,
  container: string,
  tenant: string,
  mounts: readonly MountSpec[],
): Promise<string | undefined> {
  const [first] = await sharedVolumesOf(sql, container, tenant, mounts);
  return first;
}

/** Makes empty volumes on the target. Rows stay as they are until the container is committed there. */
export async function prepareVolumes(sql: Sql, { tenant, from, to, mounts }: Travel): Promise<VolumeMove> {
  const travels = new Map<string, VolumeTravel>();
  for (const mount of mounts) {
    if (mount.kind !== 'volume' || travels.has(mount.name)) continue;
    const row = await findVolume(sql, tenant, mount.name);
    if (row === undefined) throw new Error(`volume ${mount.name} is not known any more`);
    travels.set(row.name, await travelOf(row, from, to));
  }
  const all = [...travels.values()];
  return {
    engineMounts: engineMountsOf(
      to,
      mounts,
      all.map(({ row }) => row),
    ),
    travels: all,
  };
}

/** `HostConfig.Mounts` for a container whose volumes are filled by us. */
export function engineMountsOf(
  host: Host,
  mounts: readonly MountSpec[],
  volumes: readonly VolumeRow[],
): readonly Readonly<Record<string, unknown>>[] {
  return mounts.flatMap<Readonly<Record<string, unknown>>>((mount) => {
    const { destination: Target, readOnly: ReadOnly } = mount;
    if (mount.kind === 'tmpfs')
      return [{ Type: 'tmpfs', Target, ReadOnly, TmpfsOptions: { SizeBytes: mount.sizeBytes, Mode: mount.fileMode } }];
    const row = mount.kind === 'volume' ? volumes.find(({ name }) => name === mount.name) : undefined;
    if (row === undefined) return [];
    return [{ Type: 'volume', Source: engineVolumeOf(host, row), Target, ReadOnly, VolumeOptions: { NoCopy: true } }];
  });
}

async function travelOf(row: VolumeRow, from: Host, to: Host): Promise<VolumeTravel> {
  await removeEngineVolume(to, engineVolumeOf(to, row)); // What an earlier attempt left.
  return {
    row,
    from: await ensureEngineVolume(from, row),
    to: await ensureEngineVolume(to, row),
    isTmpfs: Object.keys(row.options ?? {}).length > 0,
  };
}

/** For the batch that moves the container: the data counts there from now on. */
export function placeVolumeWrites(travels: readonly VolumeTravel[], target: string): readonly SqlWrite[] {
  return travels.map(({ row }) => ({
    sql: 'UPDATE volume SET host = ? WHERE tenant = ? AND name = ? AND host = ?',
    values: [target, row.tenant, row.name, row.host],
    expectRows: 1,
  }));
}

/** Removes the data that does not count (any more) from a host: of those of a container's volumes that the store has elsewhere. */
export async function dropForeignVolumes(sql: Sql, host: Host, tenant: string, mounts: readonly MountSpec[]): Promise<void> {
  for (const mount of mounts) {
    const row = mount.kind === 'volume' ? await findVolume(sql, tenant, mount.name) : undefined;
    if (row !== undefined && row.host !== host.name) await removeEngineVolume(host, engineVolumeOf(host, row));
  }
}
