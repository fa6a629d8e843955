/** How bold the planner is: watermarks, patience, budgets and what a move costs, each with its reason. */

export type RebalanceGoal = 'relieve' | 'consolidate';

/** What a move takes: how long it goes on, and for how much of that the container holds still. */
export interface MoveModel {
  /** `stop-and-copy`: all memory is saved while the container holds still. `pre-copy`: most of it goes ahead of the pause. */
  readonly kind: 'stop-and-copy' | 'pre-copy';
  readonly fixedDurationMs: number;
  readonly fixedBlackoutMs: number;
  /** Saving, sending and loading, together. */
  readonly bytesPerSecond: number;
}

/** A share of a number, in thousandths, and at least so many. */
export interface ShareBudget {
  readonly milli: number;
  readonly leastMoves: number;
}

export interface RebalancePolicy {
  readonly goals: readonly RebalanceGoal[];
  /** Thousandths of a host. Above `high` it is hot; relief brings it down to `fill`; nothing fills a target beyond `fill`. */
  readonly highMilli: number;
  readonly fillMilli: number;
  /** Below it a host is worth emptying. */
  readonly lowMilli: number;
  /** The mean of the hosts that are left may not come above this by giving a host up. */
  readonly fleetFillMilli: number;
  /** How far a drain may fill a host where there is no room otherwise. */
  readonly drainFillMilli: number;
  /** The sum of the 95th percentiles of memory, and the largest peak above one, stay within this. */
  readonly memoryPeakMilli: number;
  readonly residenceMs: number;
  readonly measuredLeastMs: number;
  readonly blackoutMaxMs: number;
  /** How long the gain of a move is counted. */
  readonly horizonMs: number;
  /** What a second of pause weighs against a second of work. */
  readonly blackoutWeight: number;
  readonly movesAtOncePerHost: number;
  readonly movesAtOnce: number;
  /** Of all running containers. */
  readonly movesPerPlan: ShareBudget;
  readonly movesPerHour: ShareBudget;
  /** Of the tenant's running containers. */
  readonly movesPerTenantPerHour: ShareBudget;
  readonly move: MoveModel;
}

const MINUTE_MS = 60_000;

export const DEFAULT_POLICY: RebalancePolicy = {
  goals: ['relieve', 'consolidate'],
  // One in twenty minutes a host is above its 95th percentile, and a percentile of the last hour knows no morning: a fifth is for both.
  highMilli: 800,
  // As far below `high` as a host's load changes between two plans: what a plan filled is not hot at the next one.
  fillMilli: 700,
  // Hosts above it hold more than the free room of two others, so trying to empty them is mostly in vain.
  lowMilli: 500,
  // Below `fill`: a host is given up only where the others would not ask for it back at the next small rise.
  fleetFillMilli: 660,
  // An operator's order outweighs comfort, not safety.
  drainFillMilli: 950,
  // The rest is for the engine and the sandboxes' own kernels. Too little processor is slow; too little memory kills.
  memoryPeakMilli: 950,
  // Longer than a burst, shorter than a slope of the day: a container that moved moves on only for a lasting reason.
  residenceMs: 30 * MINUTE_MS,
  // Less is one phase of a start, which says nothing of what comes.
  measuredLeastMs: 10 * MINUTE_MS,
  // A sixth of what the edge holds requests for; clients with time-outs of 10 s do not notice.
  blackoutMaxMs: 5000,
  // A host that is given up stays off about so long before the day wants it back.
  horizonMs: 60 * MINUTE_MS,
  // A second in which a tenant's requests wait is worth a minute of a machine.
  blackoutWeight: 60,
  // A save and a load each keep a core and the memory's bandwidth busy; two leave the containers that stay their share.
  movesAtOncePerHost: 2,
  // Bounds what a wrong plan can do before somebody sees it.
  movesAtOnce: 64,
  // One full host's containers, so that small fleets can empty one; large ones correct themselves over several plans on fresh facts.
  movesPerPlan: { milli: 40, leastMoves: 24 },
  // A fleet that moves a fifth of itself in an hour is in a storm, and more moves do not calm it.
  movesPerHour: { milli: 200, leastMoves: 64 },
  // No tenant pays for the others: at most a quarter of its containers pause within an hour.
  movesPerTenantPerHour: { milli: 250, leastMoves: 2 },
  // Measured with `npm run bench -- migration`: 0.6 s for 17 MiB; and 1 s more for each 500 MiB saved, copied and loaded.
  move: { kind: 'stop-and-copy', fixedDurationMs: 2000, fixedBlackoutMs: 600, bytesPerSecond: 500 * 1024 ** 2 },
};

/** How many moves a share allows of `count` things. */
export function allowedMoves(budget: ShareBudget, count: number): number {
  return Math.max(budget.leastMoves, Math.floor((count * budget.milli) / 1000));
}
