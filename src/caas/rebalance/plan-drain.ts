/** Everything off one host: where to, in which order, and what cannot go. Pure. */
import { EcluseError } from '#errors';
import { countOf } from './fleet-words.ts';
import { byText, demandOf, dominantMilli, isOpen } from './fleet-load.ts';
import type { HostLoad } from './fleet-load.ts';
import type { FleetContainer, FleetFacts } from './fleet-facts.ts';
import { keptInDrain, stayOf } from './movability.ts';
import type { MovePlan } from './move-plan.ts';
import type { TargetRules } from './move-target.ts';
import { choose, openDraft, planOf, record, replicasMaxOver } from './plan-draft.ts';
import type { PlanDraft } from './plan-draft.ts';
import type { RebalancePolicy } from './policy.ts';

/** From comfort to what is just possible: room first as everywhere, then up to what a drain may fill; apart, then only as far apart as can be. */
function attemptsFor(draft: PlanDraft): readonly TargetRules[] {
  const { policy, fleet } = draft;
  const hosts = fleet.loads.filter((load) => isOpen(load) && !load.isSource).length;
  const apart = replicasMaxOver(fleet, hosts);
  const rules = (fillMilli: number, replicasMax: TargetRules['replicasMax']): TargetRules => ({
    fillMilli,
    memoryPeakMilli: policy.memoryPeakMilli,
    replicasMax,
    mayBeEmpty: true,
  });
  return [
    rules(policy.fillMilli, apart),
    rules(policy.highMilli, apart),
    rules(policy.drainFillMilli, apart),
    rules(policy.highMilli, undefined),
    rules(policy.drainFillMilli, undefined),
  ];
}

/** Large ones first: they have the fewest places to go. */
export function largestFirst(load: HostLoad): readonly FleetContainer[] {
  return [...load.containers].toSorted(
    (one, other) =>
      dominantMilli(load.host, demandOf(other)) - dominantMilli(load.host, demandOf(one)) || byText(one.id, other.id),
  );
}

/**
 * Plans the emptying of a host, whole: budgets by the hour do not apply to what an operator ordered, the waves do. A host that is already empty
 * gives an empty plan. The host may be in any state; whoever carries the plan out closes it for placement first.
 *
 * Errors: `ECLUSE_HOST_UNKNOWN` where the facts have no such host.
 */
export function planDrain(hostName: string, facts: FleetFacts, policy: RebalancePolicy): MovePlan {
  const draft = openDraft(facts, policy);
  const load = draft.fleet.byName.get(hostName);
  if (load === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_HOST_UNKNOWN',
      source: 'usage',
      message: `there is no host ${hostName}`,
      mend: `choose one of: ${[...draft.fleet.byName.keys()].join(', ')}`,
      status: 404,
    });
  }
  load.isSource = true;
  const attempts = attemptsFor(draft);
  const because = `host ${hostName} is drained`;
  for (const container of largestFirst(load)) {
    const kept = keptInDrain(container);
    if (kept !== undefined) {
      draft.stays.push(kept);
      continue;
    }
    drainOne(draft, container, { attempts, because });
  }
  const text =
    draft.stays.length === 0
      ? `it will be empty after ${countOf(draft.moves.length, 'move')}`
      : `${countOf(draft.stays.length, 'container')} must stay, and ${countOf(draft.moves.length, 'move')} can be made`;
  draft.hosts.push({ host: hostName, verdict: draft.stays.length === 0 ? 'emptying' : 'kept', text });
  const lacking = draft.stays.filter((stay) => stay.rule === 'no-room').length;
  return planOf(draft, lacking === 0 ? 0 : hostsFor(draft, load));
}

function drainOne(
  draft: PlanDraft,
  container: FleetContainer,
  { attempts, because }: { readonly attempts: readonly TargetRules[]; readonly because: string },
): void {
  let last: { readonly rule: 'no-room' | 'replicas'; readonly text: string } = { rule: 'no-room', text: 'no way was tried' };
  for (const rules of attempts) {
    const chosen = choose(draft, container, rules);
    if (!('kind' in chosen)) {
      record(draft, chosen, { rule: 'drain', gainMs: 0, because });
      return;
    }
    last = chosen;
  }
  draft.stays.push(stayOf(container, last.rule, last.text));
}

/** How many hosts like this one would take what found no room: what is left, by the resource of which most is asked. */
function hostsFor(draft: PlanDraft, load: HostLoad): number {
  return Math.max(1, Math.ceil(dominantMilli(load.host, load) / draft.policy.fillMilli));
}
