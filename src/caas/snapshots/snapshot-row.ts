/** What is written down of a snapshot before its container is touched. Pure. */
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Serving, SnapshotKind, SnapshotRow } from '#state/snapshots.ts';

export function snapshotRowOf(
  row: ContainerRow,
  host: { readonly name: string; readonly runsc: Pick<RunscCapabilities, 'version'> },
  made: { readonly id: string; readonly kind: SnapshotKind; readonly nowMs: number; readonly serves: Serving },
): SnapshotRow {
  return {
    id: made.id,
    tenant: row.tenant,
    container: row.id,
    name: row.name,
    host: host.name,
    kind: made.kind,
    state: 'making',
    createdMs: made.nowMs,
    imageBytes: 0,
    fileBytes: 0,
    runtime: host.runsc.version,
    serves: made.serves,
    memoryBytes: row.memoryBytes,
    spec: row.spec,
  };
}
