/**
 * Takes containers off hosts that are hot. Pure.
 *
 * A move is worth what it takes off the host, for each container that suffers there, over the policy's horizon; it must be worth more than it
 * costs. Relief goes down to `fill`, not just below `high`: otherwise the next small rise would ask for the next move.
 */
import { countOf, formatPercent } from './fleet-words.ts';
import { byText, demandOf, dominantMilli, isOpen, measuredMilli } from './fleet-load.ts';
import type { HostLoad } from './fleet-load.ts';
import type { Demand, FleetContainer } from './fleet-facts.ts';
import { keptInRebalance, stayOf } from './movability.ts';
import { moveCostOf } from './move-cost.ts';
import type { Stay } from './move-plan.ts';
import type { TargetRules } from './move-target.ts';
import { choose, heldHosts, record, replicasMaxOver } from './plan-draft.ts';
import type { PlanDraft } from './plan-draft.ts';

export interface Relief {
  /** By how much hosts stay above `fill` because there is no room elsewhere, in thousandths of a host, added up. */
  readonly lackingMilli: number;
  /** Some host is still hot. */
  readonly isHot: boolean;
}

/** The resources that made the host hot. */
interface Need {
  readonly cpu: boolean;
  readonly memory: boolean;
}

interface Option {
  readonly container: FleetContainer;
  readonly gainMs: number;
  readonly netMs: number;
}

function hotResources(load: HostLoad, highMilli: number): Need {
  const { cpu, memory } = measuredMilli(load);
  return { cpu: cpu > highMilli, memory: memory > highMilli };
}

function aboveFill(load: HostLoad, need: Need, fillMilli: number): { readonly cpu: number; readonly memory: number } {
  const { cpu, memory } = measuredMilli(load);
  return { cpu: need.cpu ? Math.max(0, cpu - fillMilli) : 0, memory: need.memory ? Math.max(0, memory - fillMilli) : 0 };
}

/** What the host is spared, in thousandths of it: no more than it has too much, so that of two that suffice the cheaper one goes. */
function reliefMilli(load: HostLoad, above: { readonly cpu: number; readonly memory: number }, demand: Demand): number {
  const cpu = Math.floor((demand.cpuMilli * 1000) / Math.max(1, load.host.cpuMilli));
  const memory = Math.floor((demand.memoryBytes * 1000) / Math.max(1, load.host.memoryBytes));
  return Math.max(Math.min(cpu, above.cpu), Math.min(memory, above.memory));
}

function optionsFor(
  draft: PlanDraft,
  load: HostLoad,
  {
    movable,
    above,
  }: { readonly movable: ReadonlySet<FleetContainer>; readonly above: { readonly cpu: number; readonly memory: number } },
): readonly Option[] {
  const { policy } = draft;
  return [...movable]
    .map((container) => {
      const milli = reliefMilli(load, above, demandOf(container));
      const gainMs = Math.floor((policy.horizonMs * milli * load.containers.size) / 1000);
      return { container, gainMs, netMs: gainMs - moveCostOf(container, policy).costMs };
    })
    .toSorted(
      (one, other) =>
        other.netMs - one.netMs ||
        dominantMilli(load.host, demandOf(one.container)) - dominantMilli(load.host, demandOf(other.container)) ||
        byText(one.container.id, other.container.id),
    );
}

/** Chooses the best option that can be had, and records it; options that cannot are struck from `movable`, with the reason. */
function moveOne(
  draft: PlanDraft,
  options: readonly Option[],
  { movable, stays, rules, because }: { movable: Set<FleetContainer>; stays: Stay[]; rules: TargetRules; because: string },
): boolean {
  for (const { container, gainMs, netMs } of options) {
    movable.delete(container);
    if (netMs <= 0) {
      stays.push(stayOf(container, 'not-worth', 'its move would cost more than it brings the host'));
      continue;
    }
    const refused = draft.budget.refusedBy([container]);
    if (refused !== undefined) {
      stays.push(stayOf(container, 'budget', refused));
      continue;
    }
    const chosen = choose(draft, container, rules);
    if ('kind' in chosen) {
      stays.push(stayOf(container, chosen.rule, chosen.text));
      continue;
    }
    record(draft, chosen, { rule: 'relieve', gainMs, because });
    return true;
  }
  return false;
}

function heatText(load: HostLoad, highMilli: number): string {
  const { cpu, memory } = measuredMilli(load);
  const parts = [
    ...(cpu > highMilli ? [`${formatPercent(cpu)} of its processors`] : []),
    ...(memory > highMilli ? [`${formatPercent(memory)} of its memory`] : []),
  ];
  return `it uses ${parts.join(' and ')}, above ${formatPercent(highMilli)}`;
}

/** Reasons with their counts, the most frequent first. */
function reasonsOf(stays: readonly Stay[]): string {
  const counts = new Map<string, number>();
  for (const { rule } of stays) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  return [...counts]
    .toSorted(([one, many], [other, more]) => more - many || byText(one, other))
    .map(([rule, count]) => `${rule}: ${String(count)}`)
    .join(', ');
}

/** Relieves one host as far as can be. Returns by how much it lacks room elsewhere. */
function relieveHost(draft: PlanDraft, load: HostLoad, rules: TargetRules): number {
  const { policy, facts } = draft;
  const need = hotResources(load, policy.highMilli);
  const heat = heatText(load, policy.highMilli);
  const stays: Stay[] = [];
  const movable = new Set<FleetContainer>();
  for (const container of load.containers) {
    const kept = keptInRebalance(container, facts.nowMs, policy);
    if (kept === undefined) movable.add(container);
    else stays.push(kept);
  }
  const movesBefore = draft.moves.length;
  let above = aboveFill(load, need, policy.fillMilli);
  while ((above.cpu > 0 || above.memory > 0) && draft.budget.left() > 0) {
    const options = optionsFor(draft, load, { movable, above });
    if (!moveOne(draft, options, { movable, stays, rules, because: `host ${load.host.name} is hot: ${heat}` })) break;
    above = aboveFill(load, need, policy.fillMilli);
  }
  const moved = countOf(draft.moves.length - movesBefore, 'move');
  const still = hotResources(load, policy.highMilli);
  if (!still.cpu && !still.memory) {
    draft.hosts.push({ host: load.host.name, verdict: 'relieved', text: `${heat}; ${moved} end that` });
    return 0;
  }
  draft.stays.push(...stays);
  const why = draft.budget.left() === 0 ? 'the budget of moves is spent' : `its containers stay: ${reasonsOf(stays)}`;
  draft.hosts.push({ host: load.host.name, verdict: 'hot', text: `${heat}; ${moved} do not end that, and ${why}` });
  return stays.some((stay) => stay.rule === 'no-room') ? Math.max(above.cpu, above.memory) : 0;
}

function heatOf(load: HostLoad): number {
  const { cpu, memory } = measuredMilli(load);
  return Math.max(cpu, memory);
}

/** Relieves hot hosts, the hottest first. */
export function relieve(draft: PlanDraft): Relief {
  const { policy, fleet } = draft;
  const hot = fleet.loads
    .filter((load) => isOpen(load) && heatOf(load) > policy.highMilli)
    .toSorted((one, other) => heatOf(other) - heatOf(one) || byText(one.host.name, other.host.name));
  for (const load of hot) load.isSource = true;
  const rules = {
    fillMilli: policy.fillMilli,
    memoryPeakMilli: policy.memoryPeakMilli,
    replicasMax: replicasMaxOver(fleet, heldHosts(fleet).length),
    mayBeEmpty: true,
  };
  let lackingMilli = 0;
  for (const load of hot) lackingMilli += relieveHost(draft, load, rules);
  return { lackingMilli, isHot: draft.hosts.some(({ verdict }) => verdict === 'hot') };
}
