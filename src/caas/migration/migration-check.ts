/** Whether a container can move, known before anything is touched. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { strategyOf } from './strategy.ts';
import type { HostCapabilities } from './strategy.ts';

/** Why a move is made: somebody named the container, its host is drained, or the rebalancer wants it elsewhere. */
export type MoveCause = 'order' | 'drain' | 'rebalance';

export interface MigrationQuestion {
  readonly cause: MoveCause;
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly inspect: EngineInspect | undefined;
  readonly source: HostCapabilities;
  readonly target: HostCapabilities;
  /** A volume that another container has as well. */
  readonly sharedVolume: string | undefined;
  /** Whether open exec sessions are ended for it, and so keep nothing. */
  readonly endSessions: boolean;
}

export interface Refusal {
  readonly why: string;
  readonly mend: string;
}

/** The reason why it cannot, or undefined. */
export function refusalOf(question: MigrationQuestion): Refusal | undefined {
  const { row, target } = question;
  if (row.host === target.name)
    return { why: `container ${row.name} is on host ${target.name} already`, mend: 'choose another host' };
  return labelRefusal(question) ?? stuckReasonOf(question) ?? strategyRefusal(question);
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
  question: Pick<MigrationQuestion, 'row' | 'spec' | 'inspect' | 'sharedVolume' | 'endSessions'> & {
    readonly source: { readonly name: string };
  },
): Refusal | undefined {
  const { row, inspect, source } = question;
  if (inspect === undefined) return { why: `host ${source.name} does not know the container`, mend: 'see: ecluse ps -a' };
  if (row.state !== 'running' || !inspect.State.Running || inspect.State.Paused) {
    return { why: `container ${row.name} is ${row.state}`, mend: 'only running containers move' };
  }
  // A runtime that ends them at the restore is not enough: the source's engine does not close their streams, and clients would wait for ever.
  if ((inspect.ExecIDs ?? []).length > 0 && !question.endSessions) {
    return {
      why: `container ${row.name} has open exec sessions, whose streams cannot be carried`,
      mend: 'end them and try again, or have them ended with --end-sessions',
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

/** What the runtimes and the machines of the two hosts are against. */
function strategyRefusal({ row, spec, inspect, source, target, endSessions }: MigrationQuestion): Refusal | undefined {
  const strategy = strategyOf(source, target, {
    name: row.name,
    openExecs: endSessions ? 0 : (inspect?.ExecIDs?.length ?? 0),
    tty: spec.config.Tty,
    openStdin: spec.config.OpenStdin,
    endpointSocket: spec.mounts.some((mount) => mount.kind === 'endpoint-socket'),
    memoryBytes: row.memoryBytes,
    keepsAddress: false, // Each host has networks of its own.
  });
  return strategy.kind === 'refused' ? strategy : undefined;
}
