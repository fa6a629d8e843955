/** What moves and multiplies containers by itself: drains, the rebalancer and the scaler, wired over the container side of a node. */
import { drainHost, undrainHost } from '#caas/rebalance/drain.ts';
import type { Confirm, DrainOrder, DrainReport } from '#caas/rebalance/drain.ts';
import { Rebalancer } from '#caas/rebalance/rebalancer.ts';
import type { RebalanceReport, RebalanceSettings, RebalancerDeps } from '#caas/rebalance/rebalancer.ts';
import type { Say } from '#caas/rebalance/plan-execution.ts';
import { UsageWindows } from '#caas/rebalance/usage-window.ts';
import { Scaler } from '#caas/scale/scaler.ts';
import type { ScalerDeps } from '#caas/scale/scaler.ts';
import type { HostState } from '#state/hosts.ts';
import type { NodeMetrics } from './node-metrics.ts';

export type FleetDeps = Omit<RebalancerDeps, 'windows' | 'countMove'> &
  ScalerDeps & { readonly metrics: Pick<NodeMetrics, 'countMigration'> | undefined };

export interface Order {
  readonly dryRun: boolean;
  readonly say: Say;
}

export interface Fleet {
  readonly drain: (host: string, order: DrainOrder) => Promise<DrainReport>;
  readonly undrain: (host: string, confirm: Confirm) => Promise<{ readonly host: string; readonly state: HostState }>;
  readonly rebalance: (order: Order) => Promise<RebalanceReport>;
  /** Other settings of the rebalancer, from its next plan on. */
  readonly follow: (settings: RebalanceSettings) => void;
}

/** Starts the loops. They end before the workers do: what they do needs the edge. */
export function openFleet(base: FleetDeps, settings: RebalanceSettings, stack: AsyncDisposableStack): Fleet {
  const countMove = (outcome: 'done' | 'failed'): void => {
    base.metrics?.countMigration(outcome);
  };
  const deps = { ...base, countMove, windows: new UsageWindows() };
  const rebalancer = stack.use(new Rebalancer(deps, settings).start());
  stack.use(new Scaler(deps).start());
  return {
    drain: async (host, order) => await drainHost(deps, host, order),
    undrain: async (host, confirm) => await undrainHost(deps, host, confirm),
    rebalance: async (order) => await rebalancer.rebalance(order),
    follow: (changed) => {
      rebalancer.follow(changed);
    },
  };
}
