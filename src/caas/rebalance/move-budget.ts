/** How many moves a plan may have, and which of them may run at once. Counted while a plan is made, never over it. */
import type { FleetContainer, FleetFacts } from './fleet-facts.ts';
import { allowedMoves } from './policy.ts';
import type { RebalancePolicy } from './policy.ts';

const HOUR_MS = 3_600_000;

export interface MoveBudget {
  /** Moves that this plan may still have. */
  readonly left: () => number;
  /** Moves that the fleet may still have within the hour, beyond this plan's own limit. */
  readonly leftInHour: () => number;
  /**
   * Why the tenants of these containers cannot have them moved, or undefined. More than an hour's budget never fits at once: then the whole
   * budget must be free, and the rest waits.
   */
  readonly refusedBy: (containers: readonly FleetContainer[]) => string | undefined;
  /** Counts a move that was chosen. */
  readonly spend: (container: FleetContainer) => void;
}

function countByTenant(things: readonly { readonly tenant: string }[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { tenant } of things) counts.set(tenant, (counts.get(tenant) ?? 0) + 1);
  return counts;
}

/** The budgets at the moment of the facts. Moves under way count as begun within the hour by `recentMoves`, where they are too. */
export function openBudget(facts: FleetFacts, policy: RebalancePolicy): MoveBudget {
  const recent = facts.recentMoves.filter((move) => facts.nowMs - move.atMs < HOUR_MS);
  const containersOf = countByTenant(facts.containers);
  const movesOf = countByTenant(recent);
  const perHour = allowedMoves(policy.movesPerHour, facts.containers.length);
  const perPlan = allowedMoves(policy.movesPerPlan, facts.containers.length);
  let inHour = recent.length;
  let inPlan = 0;
  return {
    left: () => Math.max(0, Math.min(perPlan - inPlan, perHour - inHour)),
    leftInHour: () => Math.max(0, perHour - inHour),
    refusedBy: (containers) => {
      for (const [tenant, count] of countByTenant(containers)) {
        const allowed = allowedMoves(policy.movesPerTenantPerHour, containersOf.get(tenant) ?? 0);
        if ((movesOf.get(tenant) ?? 0) + count > allowed)
          return `tenant ${tenant} may have ${String(allowed)} moves within an hour`;
      }
      return undefined;
    },
    spend: (container) => {
      inPlan += 1;
      inHour += 1;
      movesOf.set(container.tenant, (movesOf.get(container.tenant) ?? 0) + 1);
    },
  };
}

/**
 * Which wave a move belongs to: the first in which both hosts have a slot. What is under way already holds its slots in the first wave.
 * At least one move at once is possible, whatever the policy says: with none, no plan would ever end.
 */
export function openWaves(facts: FleetFacts, policy: RebalancePolicy): (from: string, to: string) => number {
  const atOncePerHost = Math.max(1, policy.movesAtOncePerHost);
  const atOnce = Math.max(1, policy.movesAtOnce);
  const waves: { readonly byHost: Map<string, number>; total: number }[] = [];
  const waveAt = (wave: number): { readonly byHost: Map<string, number>; total: number } => {
    const known = waves[wave];
    if (known !== undefined) return known;
    const fresh = { byHost: new Map<string, number>(), total: 0 };
    waves[wave] = fresh;
    return fresh;
  };
  const take = (wave: number, hosts: readonly string[]): void => {
    const slots = waveAt(wave);
    slots.total += 1;
    for (const host of hosts) slots.byHost.set(host, (slots.byHost.get(host) ?? 0) + 1);
  };
  for (const { host, migratingTo } of facts.containers) if (migratingTo !== undefined) take(0, [host, migratingTo]);
  return (from, to) => {
    for (let wave = 0; ; wave += 1) {
      const { byHost, total } = waveAt(wave);
      const isFree = (host: string): boolean => (byHost.get(host) ?? 0) < atOncePerHost;
      if (total >= atOnce || !isFree(from) || !isFree(to)) continue;
      take(wave, [from, to]);
      return wave;
    }
  };
}
