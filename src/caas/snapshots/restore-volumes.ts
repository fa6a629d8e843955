/** Volumes of a container that is restored: made anew beside what there is, under another id, so that until the commit nothing of the old is lost. */
import { randomBytes } from 'node:crypto';
import type { Sql, SqlWrite } from '#state/sql.ts';
import type { ContainerRow } from '#state/containers.ts';
import { volumeGoneWrite } from '#state/disk-use.ts';
import { findVolume } from '#state/volumes.ts';
import type { VolumeRow } from '#state/volumes.ts';
import type { Host } from '#caas/host.ts';
import type { MountSpec } from '#caas/spec/spec-mounts.ts';
import { ensureEngineVolume, engineVolumeOf, removeEngineVolume } from '#caas/volumes/volume-data.ts';
import { sharedVolumesOf } from '#caas/volumes/volume-moves.ts';
import { volumeArchive } from './file-archive.ts';
import { volumeFateOf } from './restore-check.ts';
import { volumeNamesOf } from './volume-order.ts';

export interface RestoredVolume {
  /** As it is. */
  readonly row: VolumeRow;
  /** As it will be; the same where it is kept. */
  readonly next: VolumeRow;
  /** What it is filled from; undefined: from nothing. */
  readonly archive: string | undefined;
  readonly fate: 'keep' | 'fill';
  readonly isShared: boolean;
}

/** What becomes of each volume, on whatever host. `answers`: whether a host of that name does. */
export async function planVolumes(
  sql: Sql,
  { id, tenant }: ContainerRow,
  mounts: readonly MountSpec[],
  answers: (host: string) => Promise<boolean>,
): Promise<readonly RestoredVolume[]> {
  const shared = await sharedVolumesOf(sql, id, tenant, mounts);
  const planned: RestoredVolume[] = [];
  for (const [position, name] of volumeNamesOf(mounts).entries()) {
    const row = await findVolume(sql, tenant, name);
    if (row === undefined) throw new Error(`volume ${name} is not known any more`);
    const isShared = shared.has(name);
    const fate = volumeFateOf({ host: row.host, isShared, answers: await answers(row.host) });
    const next = fate === 'keep' ? row : { ...row, id: randomBytes(8).toString('hex') };
    const isInMemory = Object.keys(row.options ?? {}).length > 0;
    planned.push({ row, next, fate, isShared, archive: fate === 'keep' || isInMemory ? undefined : volumeArchive(position) });
  }
  return planned;
}

/** Makes those that are to be filled. Returns their directories, by archive. */
export async function makeVolumes(target: Host, volumes: readonly RestoredVolume[]): Promise<ReadonlyMap<string, string>> {
  const directories = new Map<string, string>();
  for (const { next, archive, fate } of volumes) {
    if (fate === 'keep') continue;
    const directory = await ensureEngineVolume(target, next);
    if (archive !== undefined) directories.set(archive, directory);
  }
  return directories;
}

/** Takes away what was made, or what it replaced. */
export async function dropVolumesOf(host: Host, volumes: readonly RestoredVolume[], which: 'row' | 'next'): Promise<void> {
  for (const volume of volumes) if (volume.fate === 'fill') await removeEngineVolume(host, engineVolumeOf(host, volume[which]));
}

/** For the batch in which the container is back: what was filled is the volume from now on. */
export function replaceVolumeWrites(volumes: readonly RestoredVolume[], target: string, nowMs: number): readonly SqlWrite[] {
  return volumes
    .filter(({ fate }) => fate === 'fill')
    .flatMap(({ row, next }) => [
      {
        sql: 'UPDATE volume SET host = ?, id = ? WHERE tenant = ? AND name = ? AND id = ? AND host = ?',
        values: [target, next.id, row.tenant, row.name, row.id, row.host],
        expectRows: 1,
      },
      volumeGoneWrite(row.id, nowMs),
    ]);
}
