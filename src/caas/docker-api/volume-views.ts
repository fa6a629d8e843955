/** Docker's JSON of volumes and mounts: rebuilt, with paths that are the same for every tenant and exist on no host. Pure. */
import type { MountSpec } from '#caas/spec/spec-mounts.ts';
import type { VolumeRow } from '#state/volumes.ts';
import { numberOf } from './request.ts';

type TextMap = Readonly<Record<string, string>>;

/** From this version on Docker marks anonymous volumes, and `prune` spares the others. */
export const ANONYMOUS_SINCE = numberOf('1.42');
const ANONYMOUS_LABEL = 'com.docker.volume.anonymous';

/** Where Docker would keep it. */
function mountpointOf(name: string): string {
  return `/var/lib/docker/volumes/${name}/_data`;
}

/** The labels that a client of an API version sees, and filters by. */
export function volumeLabels(row: VolumeRow, apiVersion: string): TextMap {
  return row.anonymous && numberOf(apiVersion) >= ANONYMOUS_SINCE ? { ...row.labels, [ANONYMOUS_LABEL]: '' } : (row.labels ?? {});
}

export function volumeView(row: VolumeRow, apiVersion: string): Readonly<Record<string, unknown>> {
  const labels = volumeLabels(row, apiVersion);
  return {
    CreatedAt: new Date(row.createdMs).toISOString().replace(/\.\d+Z$/, 'Z'),
    Driver: 'local',
    Labels: row.labels === null && Object.keys(labels).length === 0 ? null : labels,
    Mountpoint: mountpointOf(row.name),
    Name: row.name,
    Options: row.options,
    Scope: 'local',
  };
}

/** For `docker system df`; a size of -1 is unknown. */
export function volumeUsageView(
  usage: { readonly row: VolumeRow; readonly refCount: number; readonly sizeBytes: number },
  apiVersion: string,
): Readonly<Record<string, unknown>> {
  return { ...volumeView(usage.row, apiVersion), UsageData: { RefCount: usage.refCount, Size: usage.sizeBytes } };
}

/** `Mounts` of a container, in inspect and in lists. */
export function mountsView(mounts: readonly MountSpec[]): readonly Readonly<Record<string, unknown>>[] {
  return mounts.map((mount) => {
    const { destination: Destination } = mount;
    const RW = !mount.readOnly;
    switch (mount.kind) {
      case 'volume': {
        const { name: Name, mode: Mode } = mount;
        return { Type: 'volume', Name, Source: mountpointOf(Name), Destination, Driver: 'local', Mode, RW, Propagation: '' };
      }
      case 'tmpfs':
        return { Type: 'tmpfs', Source: '', Destination, Mode: '', RW, Propagation: '' };
      case 'endpoint-socket':
        return { Type: 'bind', Source: mount.source, Destination, Mode: mount.mode, RW, Propagation: 'rprivate' };
    }
  });
}
