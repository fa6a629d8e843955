/** A plan while it is made: what was chosen, and the room that it takes. */
import { countOf, formatPercent } from './fleet-words.ts';
import { dominantMilli, fleetLoadOf, isEmpty, isOpen, occupy, replicaKeyOf, vacate } from './fleet-load.ts';
import type { FleetLoad, HostLoad } from './fleet-load.ts';
import type { FleetContainer, FleetFacts } from './fleet-facts.ts';
import { openBudget, openWaves } from './move-budget.ts';
import type { MoveBudget } from './move-budget.ts';
import { moveCostOf } from './move-cost.ts';
import type { HostVerdict, Move, MovePlan, MoveRule, Stay } from './move-plan.ts';
import { chooseTarget } from './move-target.ts';
import type { TargetChoice, TargetRules } from './move-target.ts';
import type { RebalancePolicy } from './policy.ts';

export interface PlanDraft {
  readonly facts: FleetFacts;
  readonly policy: RebalancePolicy;
  readonly fleet: FleetLoad;
  readonly budget: MoveBudget;
  readonly waveOf: (from: string, to: string) => number;
  readonly moves: Move[];
  readonly stays: Stay[];
  readonly hosts: HostVerdict[];
}

type Target = Extract<TargetChoice, { readonly kind: 'target' }>;

/** A container with room taken for it on its target. */
export interface Chosen {
  readonly container: FleetContainer;
  readonly target: Target;
  readonly memoryPeakAboveBeforeBytes: number;
}

export function openDraft(facts: FleetFacts, policy: RebalancePolicy): PlanDraft {
  return {
    facts,
    policy,
    fleet: fleetLoadOf(facts),
    budget: openBudget(facts, policy),
    waveOf: openWaves(facts, policy),
    moves: [],
    stays: [],
    hosts: [],
  };
}

/** The hosts that hold containers, or are about to. Empty ones may be given up at any time, so nothing is counted on them. */
export function heldHosts(fleet: FleetLoad): readonly HostLoad[] {
  return fleet.loads.filter((load) => isOpen(load) && !isEmpty(load));
}

/**
 * How many replicas of a container's service one host may come to: its fair share among `hosts` hosts, or as many as its own host has, which
 * is no worse. Shares are counted over two hosts at least: losing a host must not lose a service that has two replicas.
 */
export function replicasMaxOver(fleet: FleetLoad, hosts: number): (container: FleetContainer) => number {
  return (container) => {
    const key = replicaKeyOf(container);
    const fairShare = Math.ceil((fleet.replicas.get(key) ?? 1) / Math.max(2, hosts));
    return Math.max(fairShare, fleet.byName.get(container.host)?.replicas.get(key) ?? 0);
  };
}

/** Takes room for a container on the best target. */
export function choose(
  draft: PlanDraft,
  container: FleetContainer,
  rules: TargetRules,
): Chosen | Exclude<TargetChoice, { readonly kind: 'target' }> {
  const target = chooseTarget(draft.fleet, container, rules);
  if (target.kind === 'none') return target;
  const chosen = { container, target, memoryPeakAboveBeforeBytes: target.load.memoryPeakAboveBytes };
  occupy(target.load, container);
  return chosen;
}

/** Gives the room back, as if nothing had been chosen. */
export function undo(all: readonly Chosen[]): void {
  for (const { container, target, memoryPeakAboveBeforeBytes } of all.toReversed()) {
    vacate(target.load, container);
    target.load.memoryPeakAboveBytes = memoryPeakAboveBeforeBytes;
  }
}

/** Makes it a move. `because` is the first half of its reason; where it goes is the second. */
export function record(
  draft: PlanDraft,
  chosen: Chosen,
  cause: { readonly rule: MoveRule; readonly gainMs: number; readonly because: string },
): void {
  const { container, target } = chosen;
  const source = draft.fleet.byName.get(container.host);
  if (source === undefined) return;
  const fromBeforeMilli = dominantMilli(source.host, source);
  vacate(source, container);
  source.containers.delete(container);
  source.isSource = true;
  target.load.isTarget = true;
  const to = target.load.host.name;
  draft.moves.push({
    container: container.id,
    name: container.name,
    tenant: container.tenant,
    from: container.host,
    to,
    wave: draft.waveOf(container.host, to),
    ...moveCostOf(container, draft.policy),
    gainMs: cause.gainMs,
    why: {
      rule: cause.rule,
      text: `${cause.because}; ${targetText(target)}`,
      fromBeforeMilli,
      fromAfterMilli: dominantMilli(source.host, source),
      toBeforeMilli: target.beforeMilli,
      toAfterMilli: target.afterMilli,
      replicasOnTarget: target.replicas,
    },
  });
  draft.budget.spend(container);
}

function targetText({ load, replicas, beforeMilli, afterMilli }: Target): string {
  const { name } = load.host;
  const apart = replicas === 0 ? '' : `, beside ${countOf(replicas, 'replica')} of its service, the fewest possible`;
  return `host ${name} fits it closest, from ${formatPercent(beforeMilli)} to ${formatPercent(afterMilli)}${apart}`;
}

export function planOf(draft: PlanDraft, hostsWanted: number): MovePlan {
  const { moves, stays, hosts } = draft;
  return { moves, stays, hosts, hostsWanted };
}
