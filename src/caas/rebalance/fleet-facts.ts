/** What the planner knows: hosts, containers and recent moves as plain data at one moment. Whoever asks for a plan gathers it. */

import type { HostState } from '#state/hosts.ts';

export interface FleetHost {
  readonly name: string;
  readonly state: HostState;
  /** Undefined: it answers. */
  readonly outOfService: string | undefined;
  readonly cpuMilli: number;
  readonly memoryBytes: number;
}

/** What a container asks of a host. */
export interface Demand {
  readonly cpuMilli: number;
  readonly memoryBytes: number;
}

/** What was measured of a container over a window (`UsageWindow`). */
export interface UsageSummary {
  readonly mean: Demand;
  readonly p95: Demand;
  readonly peak: Demand;
  /** The time that the samples cover: little is known of a container that is a minute old. */
  readonly coveredMs: number;
}

/** The label `ecluse.migrate`: whenever it is useful, only when its host is drained, never. */
export type MigrateLabel = 'any' | 'drain' | 'never';

export interface FleetContainer {
  readonly id: string;
  readonly name: string;
  readonly tenant: string;
  readonly host: string;
  /** What replicas have in common (`serviceOf`); compared within a tenant. */
  readonly service: string;
  readonly label: MigrateLabel;
  /** Why it cannot move as it is (`refusalOf`: volumes, open exec sessions); undefined: it can. */
  readonly stuck: string | undefined;
  /** The host that it is on the way to; undefined: none. */
  readonly migratingTo: string | undefined;
  /** When it came to its host by a move; undefined: it has not moved since its start. */
  readonly movedMs: number | undefined;
  /** Undefined: not measured yet; its limits count then. */
  readonly usage: UsageSummary | undefined;
  readonly limits: { readonly cpuMilli: number | undefined; readonly memoryBytes: number };
  /** How fast it writes to its memory; undefined: not known. */
  readonly dirtyBytesPerSecond: number | undefined;
}

/** A move that was begun, whatever became of it: also one that failed held requests up. */
export interface RecentMove {
  readonly tenant: string;
  readonly atMs: number;
}

export interface FleetFacts {
  readonly nowMs: number;
  readonly hosts: readonly FleetHost[];
  /** Those that run: others take no room and do not move. */
  readonly containers: readonly FleetContainer[];
  /** At least those of the last hour. */
  readonly recentMoves: readonly RecentMove[];
}

/** Any other value counts as `any`, as it does for `ecluse migrate`. */
export function migrateLabelOf(labels: Readonly<Record<string, string>> | undefined): MigrateLabel {
  const value = labels?.['ecluse.migrate'];
  return value === 'never' || value === 'drain' ? value : 'any';
}
