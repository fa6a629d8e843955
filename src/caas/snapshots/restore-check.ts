/** Whether a container can be restored from a snapshot, and what becomes of its volumes: known before anything is touched. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { Refusal } from '#caas/migration/migration-check.ts';

/** What is known of the place that a container was at last. */
export type LastPlace =
  | { readonly kind: 'unknown-host' }
  | { readonly kind: 'silent' }
  /** `inspect` undefined: its engine lost the container. */
  | { readonly kind: 'answers'; readonly inspect: EngineInspect | undefined };

/** Why the container is not one to be restored, or undefined. `pids`: processes of it that are alive, whatever its engine says. */
export function restoreRefusalOf(row: ContainerRow, last: LastPlace, pids: readonly number[]): Refusal | undefined {
  const mend = 'remove it or clone it';
  if (row.snapshot !== '') return { why: `container ${row.name} sleeps, and nothing of it is lost`, mend };
  if (last.kind === 'answers') {
    const state = last.inspect?.State;
    if (state !== undefined && (state.Running || state.Restarting))
      return { why: `container ${row.name} is ${state.Status}`, mend };
  }
  if (pids.length === 0) return undefined;
  return {
    why: `container ${row.name} still runs, though its host ${row.host} ${last.kind === 'unknown-host' ? 'is not one of this node' : 'does not answer'} (process ${pids.slice(0, 5).join(', ')})`,
    mend: 'wait for its host, or end these processes if it is not to come back',
  };
}

/** Why the snapshot cannot be read where it is to go, or undefined. */
export function targetRefusalOf(
  snapshot: Pick<SnapshotRow, 'runtime' | 'id'>,
  target: { readonly name: string; readonly runscVersion: string },
): Refusal | undefined {
  return snapshot.runtime === target.runscVersion
    ? undefined
    : {
        why: `snapshot ${snapshot.id} was written by runsc ${snapshot.runtime}, and host ${target.name} has ${target.runscVersion}, which may not read it`,
        mend: 'install that runsc again for the restore, or let the tenant start the container anew',
      };
}

export interface VolumePlace {
  readonly host: string;
  /** Other containers have it, too, in any state. */
  readonly isShared: boolean;
  /** Its host is one of the node and answers. */
  readonly answers: boolean;
}

/**
 * `keep`: its data is where others use it, newer than the snapshot, and not the container's alone to set back. `fill`: it is made anew from the snapshot.
 */
export function volumeFateOf({ isShared, answers }: VolumePlace): 'keep' | 'fill' {
  return isShared && answers ? 'keep' : 'fill';
}
