/** Whether a container can sleep, and when it should: from its labels and what is known of it. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import { goDurationMs } from '#units';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

export interface SleepRefusal {
  readonly why: string;
  readonly mend: string;
}

/** Shorter, and a container would be asleep more often than it is worth: a sleep and a wake cost about a second of a processor. */
const IDLE_MS_MIN = 1_000;
const IDLE_LABEL = 'ecluse.idle';

export type IdleWish =
  | { readonly kind: 'none' }
  | { readonly kind: 'after'; readonly idleMs: number }
  | { readonly kind: 'invalid'; readonly why: string };

/** What the label `ecluse.idle` asks for. */
export function idleWishOf(labels: Readonly<Record<string, string>>): IdleWish {
  const text = labels[IDLE_LABEL];
  if (text === undefined) return { kind: 'none' };
  const idleMs = goDurationMs(text);
  if (idleMs === undefined || idleMs < IDLE_MS_MIN)
    return { kind: 'invalid', why: `label ${IDLE_LABEL}: "${text.slice(0, 40)}" is no time of 1s or more, such as 10m` };
  return { kind: 'after', idleMs };
}

/** Why a container's sandbox cannot be saved now, whatever for, or undefined. */
export function savingRefusalOf(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
  canSave: boolean,
): SleepRefusal | undefined {
  if (inspect === undefined) return { why: `its host does not know container ${row.name}`, mend: 'see: ecluse ps -a' };
  if (row.state !== 'running' || !inspect.State.Running || inspect.State.Paused)
    return { why: `container ${row.name} is ${row.state}`, mend: 'only running containers can be saved' };
  if (!canSave) return { why: 'the runsc of its host cannot save a sandbox and keep it', mend: 'install runsc of 2024 or later' };
  if ((inspect.ExecIDs ?? []).length > 0)
    return { why: `container ${row.name} has open exec sessions, which this runsc cannot carry`, mend: 'end them and try again' };
  if (spec.mounts.some((mount) => mount.kind === 'endpoint-socket'))
    return {
      why: `container ${row.name} has its tenant's Docker socket mounted, and a connection through it cannot be saved`,
      mend: 'keep it running',
    };
  return undefined;
}

/** Why a container cannot be put to sleep now, or undefined. */
export function sleepRefusalOf(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
  canSave: boolean,
): SleepRefusal | undefined {
  if (row.snapshot !== '') return { why: `container ${row.name} sleeps already`, mend: `wake it with: ecluse wake ${row.name}` };
  const refusal = savingRefusalOf(row, spec, inspect, canSave);
  if (refusal !== undefined) return refusal;
  if (spec.hostConfig.AutoRemove)
    return {
      why: `container ${row.name} was started with --rm, and its engine would remove it when it ends`,
      mend: 'start it without --rm',
    };
  const inMemory = spec.mounts.find((mount) => mount.kind === 'volume' && Object.keys(mount.options).length > 0);
  if (inMemory !== undefined)
    return {
      why: `container ${row.name} has a volume in memory, which is emptied when no container runs with it`,
      mend: 'keep it running',
    };
  return undefined;
}
