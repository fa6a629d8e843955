/** The moves that nobody ordered: relief for hot hosts, then hosts given up. Pure, and the same in a simulation and on a fleet. */
import { isEmpty, isOpen, milliOf } from './fleet-load.ts';
import type { FleetFacts } from './fleet-facts.ts';
import type { MovePlan } from './move-plan.ts';
import { consolidate } from './plan-consolidation.ts';
import { openDraft, planOf } from './plan-draft.ts';
import type { PlanDraft } from './plan-draft.ts';
import { relieve } from './plan-relief.ts';
import type { RebalancePolicy } from './policy.ts';

/** How many hosts of the fleet's mean size are lacking for all to be at `fill`, beside what hot hosts found no room for. */
function hostsWanted(draft: PlanDraft, lackingMilli: number): number {
  const { fillMilli } = draft.policy;
  const open = draft.fleet.loads.filter(isOpen);
  const sum = (of: (load: (typeof open)[number]) => number): number => open.reduce((total, load) => total + of(load), 0);
  const usedMilli = Math.max(
    milliOf(
      sum((load) => load.cpuMilli - load.guessedCpuMilli),
      sum((load) => load.host.cpuMilli),
    ),
    milliOf(
      sum((load) => load.memoryBytes - load.guessedMemoryBytes),
      sum((load) => load.host.memoryBytes),
    ),
  );
  const beyondFillMilli = open.length === 0 ? 0 : Math.max(0, usedMilli - fillMilli) * open.length;
  return Math.ceil(Math.max(lackingMilli, beyondFillMilli) / fillMilli);
}

/**
 * Plans what is worth its cost within the budgets. Made again every few minutes, on fresh facts: a plan does not know the one before, and needs
 * not, because hysteresis is in the facts (`sinceMs`, `recentMoves`) and between the watermarks.
 *
 * While some host is hot for want of room no host is given up.
 */
export function planRebalance(facts: FleetFacts, policy: RebalancePolicy): MovePlan {
  const draft = openDraft(facts, policy);
  const relief = policy.goals.includes('relieve') ? relieve(draft) : { lackingMilli: 0, isHot: false };
  const wanted = hostsWanted(draft, relief.lackingMilli);
  if (policy.goals.includes('consolidate')) {
    for (const load of draft.fleet.loads) {
      if (isOpen(load) && isEmpty(load))
        draft.hosts.push({ host: load.host.name, verdict: 'empty', text: 'nothing is on it: it can be given up' });
    }
    if (wanted === 0 && !relief.isHot) consolidate(draft);
  }
  return planOf(draft, wanted);
}
