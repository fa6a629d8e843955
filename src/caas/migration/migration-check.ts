/** Whether a container can move, known before anything is touched. Pure. */
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

/** Why a move is made: somebody named the container, its host is drained, or the rebalancer wants it elsewhere. */
export type MoveCause = 'order' | 'drain' | 'rebalance';

export interface MigrationQuestion {
  readonly cause: MoveCause;
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly inspect: EngineInspect | undefined;
  readonly source: { readonly name: string; readonly runsc: RunscCapabilities };
  readonly target: { readonly name: string; readonly runsc: RunscCapabilities };
  /** A volume that another container has as well. */
  readonly sharedVolume: string | undefined;
}

export interface Refusal {
  readonly why: string;
  readonly mend: string;
}

/** The reason why it cannot, or undefined. */
export function refusalOf(question: MigrationQuestion): Refusal | undefined {
  const { row, source, target } = question;
  if (row.host === target.name)
    return { why: `container ${row.name} is on host ${target.name} already`, mend: 'choose another host' };
  return labelRefusal(question) ?? stuckReasonOf(question) ?? runtimeRefusal(source, target);
}

function labelRefusal({ row, spec, cause }: MigrationQuestion): Refusal | undefined {
  const policy = spec.config.Labels?.['ecluse.migrate'] ?? 'any';
  if (policy === 'never') return { why: `container ${row.name} has the label ecluse.migrate=never`, mend: 'ask its tenant' };
  if (policy === 'drain' && cause !== 'drain') {
    return {
      why: `container ${row.name} has the label ecluse.migrate=drain: it moves only when its host is drained`,
      mend: 'ask its tenant',
    };
  }
  return undefined;
}

/** What keeps it on its host as it is now, wherever it would go, or undefined. */
export function stuckReasonOf(
  question: Pick<MigrationQuestion, 'row' | 'spec' | 'inspect' | 'sharedVolume'> & { readonly source: { readonly name: string } },
): Refusal | undefined {
  const { row, spec, inspect, source } = question;
  if (inspect === undefined) return { why: `host ${source.name} does not know the container`, mend: 'see: ecluse ps -a' };
  if (row.state !== 'running' || !inspect.State.Running || inspect.State.Paused) {
    return { why: `container ${row.name} is ${row.state}`, mend: 'only running containers move' };
  }
  if ((inspect.ExecIDs ?? []).length > 0) {
    return { why: `container ${row.name} has open exec sessions, which this runsc cannot carry`, mend: 'end them and try again' };
  }
  if (spec.mounts.some((mount) => mount.kind === 'endpoint-socket')) {
    return {
      why: `container ${row.name} has its tenant's Docker socket mounted, and a connection through it cannot be saved`,
      mend: 'keep it where it is',
    };
  }
  if (question.sharedVolume !== undefined) {
    return {
      why: `container ${row.name} shares the volume ${question.sharedVolume} with another container, and a volume is on one host`,
      mend: 'keep them together, or give each a volume of its own',
    };
  }
  return undefined;
}

type Side = MigrationQuestion['source'];

function runtimeRefusal(source: Side, target: Side): Refusal | undefined {
  if (!source.runsc.leaveRunning) {
    return {
      why: `runsc ${source.runsc.version} on host ${source.name} cannot save a sandbox and keep it`,
      mend: 'install runsc of 2024 or later',
    };
  }
  if (source.runsc.version !== target.runsc.version) {
    return {
      why: `hosts ${source.name} and ${target.name} have different runsc (${source.runsc.version}, ${target.runsc.version})`,
      mend: 'install the same on both',
    };
  }
  return undefined;
}
