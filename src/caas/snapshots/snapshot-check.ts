/** Whether a container can be saved beside its running, how often, and how much is kept of it. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import { goDurationMs } from '#units';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { savingRefusalOf } from '#caas/sleep/sleep-check.ts';
import type { SleepRefusal } from '#caas/sleep/sleep-check.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';

/** A slip is noticed after the next snapshot or the one after it; who needs more keeps backups. */
const KEPT_BY_HAND_MAX = 3;
/** One could be of the very moment in which something went wrong. */
const KEPT_AUTOMATIC_MAX = 2;
/** Three images of all the memory that a tenant may have, and as much again for files. */
const TENANT_MEMORY_FACTOR = 4;
/** Engines, the store and logs are on the same disk as a rule. */
const DISK_RESERVE_BYTES = 1024 ** 3;
/** Each one writes the whole memory to disk and pauses the program; more often, and that would be much of what it does. */
const INTERVAL_MS_MIN = 60_000;
const INTERVAL_LABEL = 'ecluse.snapshot';

export type SnapshotWish =
  | { readonly kind: 'none' }
  | { readonly kind: 'every'; readonly intervalMs: number }
  | { readonly kind: 'invalid'; readonly why: string };

/** What the label `ecluse.snapshot` asks for. */
export function snapshotWishOf(labels: Readonly<Record<string, string>>): SnapshotWish {
  const text = labels[INTERVAL_LABEL];
  if (text === undefined) return { kind: 'none' };
  const intervalMs = goDurationMs(text);
  return intervalMs !== undefined && intervalMs >= INTERVAL_MS_MIN
    ? { kind: 'every', intervalMs }
    : { kind: 'invalid', why: `label ${INTERVAL_LABEL}: "${text.slice(0, 40)}" is no interval of 1m or more, such as 10m` };
}

/** Why the label cannot be kept, or undefined. */
export function snapshotProblemOf(spec: ContainerSpec): string | undefined {
  const wish = snapshotWishOf(spec.config.Labels ?? {});
  if (wish.kind === 'none') return undefined;
  if (wish.kind === 'invalid') return wish.why;
  return spec.mounts.some((mount) => mount.kind === 'endpoint-socket')
    ? `label ${INTERVAL_LABEL}: the container mounts a Docker socket, and a connection through it cannot be saved`
    : undefined;
}

/** Why a container cannot be saved now, or undefined. */
export function snapshotRefusalOf(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
  canSave: boolean,
): SleepRefusal | undefined {
  if (row.snapshot !== '') return { why: `container ${row.name} sleeps`, mend: `wake it with: ecluse wake ${row.name}` };
  return savingRefusalOf(row, spec, inspect, canSave);
}

/** Those of its kind that go when one more is kept, the oldest first. `kept`: of one container, with the new one. */
export function surplusOf(kept: readonly SnapshotRow[], kind: SnapshotRow['kind']): readonly SnapshotRow[] {
  const alike = kept.filter((snapshot) => snapshot.kind === kind).toSorted((one, other) => one.createdMs - other.createdMs);
  return alike.slice(0, Math.max(0, alike.length - (kind === 'automatic' ? KEPT_AUTOMATIC_MAX : KEPT_BY_HAND_MAX)));
}

export interface RoomQuestion {
  readonly memoryBytes: number;
  readonly treeBytes: number;
  readonly freeBytes: number;
  /** What the tenant's snapshots occupy, less those that go for this one. */
  readonly tenantBytes: number;
  readonly tenantMemoryMax: number;
}

/** Why there is no room for one more, or undefined. Files are there twice at most: as they are and in archives, or in archives and sealed. */
export function roomRefusalOf(question: RoomQuestion): SleepRefusal | undefined {
  const { memoryBytes, treeBytes, freeBytes, tenantBytes, tenantMemoryMax } = question;
  const neededBytes = memoryBytes + 2 * treeBytes + DISK_RESERVE_BYTES;
  if (freeBytes < neededBytes)
    return {
      why: `the data directory has ${String(freeBytes)} bytes free, and the snapshot needs ${String(neededBytes)} while it is made`,
      mend: 'free space there, or remove snapshots: ecluse snapshot rm',
    };
  const maxBytes = TENANT_MEMORY_FACTOR * tenantMemoryMax;
  return tenantBytes + memoryBytes + treeBytes > maxBytes
    ? {
        why: `the tenant's snapshots would have ${String(tenantBytes + memoryBytes + treeBytes)} bytes, and ${String(TENANT_MEMORY_FACTOR)} times its memory quota is ${String(maxBytes)}`,
        mend: 'remove some of them: ecluse snapshot rm',
      }
    : undefined;
}

/** Whether an automatic snapshot is to be made. `lastMs`: when the last one was, or when the container was first seen to run. */
export function isDue(lastMs: number, nowMs: number, intervalMs: number): boolean {
  return nowMs - lastMs >= intervalMs || nowMs < lastMs - intervalMs; // The clock may have been set back.
}
