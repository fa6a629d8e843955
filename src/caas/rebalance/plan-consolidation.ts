/**
 * Empties hosts that hold little, so that they can be given up. Pure.
 *
 * A host is emptied whole or not at all: half of it saves nothing. It goes on over several plans where one plan's budget does not suffice: the
 * host that holds least is tried first, and one that was begun holds less than before.
 */
import { countOf, formatPercent } from './fleet-words.ts';
import { byText, dominantMilli, milliOf } from './fleet-load.ts';
import type { HostLoad } from './fleet-load.ts';
import { keptInRebalance, stayOf } from './movability.ts';
import { moveCostOf } from './move-cost.ts';
import type { Stay, StayRule } from './move-plan.ts';
import { largestFirst } from './plan-drain.ts';
import { choose, heldHosts, record, replicasMaxOver, undo } from './plan-draft.ts';
import type { Chosen, PlanDraft } from './plan-draft.ts';
import { allowedMoves } from './policy.ts';

/** Hosts that are tried in one plan. Where so many of the emptiest cannot be emptied, fuller ones cannot either, and a plan stays quick. */
const CANDIDATES_MAX = 64;

/** One of so many hosts may be closed for what it waits for: more would leave placement too few. */
const HOSTS_PER_CLOSING = 20;

/** What keeps a container for some minutes only. */
const PASSING: ReadonlySet<StayRule> = new Set(['unmeasured', 'residence', 'migrating']);

type Trial =
  | { readonly kind: 'chosen'; readonly chosen: readonly Chosen[] }
  | { readonly kind: 'closing'; readonly text: string }
  | { readonly kind: 'kept'; readonly text: string; readonly stay: Stay | undefined };

/** The mean of the hosts that would be left, in thousandths, by the resource of which most is used. */
function meanWithout(held: readonly HostLoad[], given: HostLoad): number {
  const total = { cpuMilli: 0, memoryBytes: 0, cpuMilliHosts: 0, memoryBytesHosts: 0 };
  for (const load of held) {
    total.cpuMilli += load.cpuMilli;
    total.memoryBytes += load.memoryBytes;
    if (load === given) continue;
    total.cpuMilliHosts += load.host.cpuMilli;
    total.memoryBytesHosts += load.host.memoryBytes;
  }
  return Math.max(milliOf(total.cpuMilli, total.cpuMilliHosts), milliOf(total.memoryBytes, total.memoryBytesHosts));
}

/** What speaks against it before room is looked for. */
function objection(
  draft: PlanDraft,
  load: HostLoad,
  held: readonly HostLoad[],
): { readonly text: string; readonly stay: Stay | undefined } | undefined {
  const { policy, facts, budget } = draft;
  if (held.length === 1) return { text: 'it is the last one with containers', stay: undefined };
  const mean = meanWithout(held, load);
  if (mean > policy.fleetFillMilli) {
    return {
      text: `without it the others would come to ${formatPercent(mean)} on average, above ${formatPercent(policy.fleetFillMilli)}`,
      stay: undefined,
    };
  }
  const stays = [...load.containers].flatMap((container) => keptInRebalance(container, facts.nowMs, policy) ?? []);
  const stay = stays.find(({ rule }) => !PASSING.has(rule)) ?? stays[0];
  if (stay !== undefined) return { text: `container ${stay.name} stays: ${stay.text}`, stay };
  const containers = [...load.containers];
  const costMs = containers.reduce((sum, container) => sum + moveCostOf(container, policy).costMs, 0);
  if (costMs >= policy.horizonMs) {
    return { text: `its moves would cost ${String(costMs)} ms of work and pauses, more than the host is worth`, stay: undefined };
  }
  const perHour = allowedMoves(policy.movesPerHour, facts.containers.length);
  if (Math.min(containers.length, perHour) > budget.leftInHour()) {
    return {
      text: `it has ${countOf(containers.length, 'container')}, and of ${countOf(perHour, 'move')} an hour ${String(budget.leftInHour())} are left`,
      stay: undefined,
    };
  }
  const refused = budget.refusedBy(containers);
  return refused === undefined ? undefined : { text: refused, stay: undefined };
}

/** Takes room for all of its containers, or for none. */
function takeRoom(draft: PlanDraft, load: HostLoad, hosts: number): Exclude<Trial, { readonly kind: 'closing' }> {
  const { policy, fleet } = draft;
  const rules = {
    fillMilli: policy.fillMilli,
    memoryPeakMilli: policy.memoryPeakMilli,
    replicasMax: replicasMaxOver(fleet, hosts),
    mayBeEmpty: false,
  };
  const chosen: Chosen[] = [];
  load.isSource = true;
  for (const container of largestFirst(load)) {
    const next = choose(draft, container, rules);
    if (!('kind' in next)) {
      chosen.push(next);
      continue;
    }
    undo(chosen);
    load.isSource = false;
    const stay = stayOf(container, next.rule, next.text);
    return { kind: 'kept', text: `container ${container.name} stays: ${next.text}`, stay };
  }
  return { kind: 'chosen', chosen };
}

function tryEmptying(draft: PlanDraft, load: HostLoad): Trial {
  const held = heldHosts(draft.fleet).filter((other) => !other.isSource || other.containers.size > 0);
  const against = objection(draft, load, held);
  if (against === undefined) return takeRoom(draft, load, held.length - 1);
  if (against.stay === undefined || !PASSING.has(against.stay.rule)) return { kind: 'kept', ...against };
  // Those that stay for now count as if they were to move later: by their limits where they are not measured.
  const trial = takeRoom(draft, load, held.length - 1);
  if (trial.kind === 'kept') return trial;
  undo(trial.chosen);
  load.isSource = false;
  return { kind: 'closing', text: against.text };
}

function emptyHost(draft: PlanDraft, load: HostLoad, chosen: readonly Chosen[]): void {
  const { policy, budget } = draft;
  const { name } = load.host;
  const because = `host ${name} is at ${formatPercent(dominantMilli(load.host, load))}, below ${formatPercent(policy.lowMilli)}, and can be given up`;
  const gainMs = Math.floor(policy.horizonMs / chosen.length);
  // Room stays taken for the rest: the next plan moves them there, so nothing else may be promised it by this one.
  let rest = 0;
  for (const one of chosen) {
    one.target.load.isTarget = true;
    if (budget.left() === 0 || budget.refusedBy([one.container]) !== undefined) rest += 1;
    else record(draft, one, { rule: 'consolidate', gainMs, because });
  }
  const text = rest === 0 ? 'and then it is empty' : `and ${String(rest)} more in plans to come`;
  draft.hosts.push({ host: name, verdict: 'emptying', text: `${because}: ${countOf(chosen.length - rest, 'move')}, ${text}` });
}

/** Empties what can be emptied, the host that holds least first. */
export function consolidate(draft: PlanDraft): void {
  const { policy, fleet, budget } = draft;
  const candidates = heldHosts(fleet)
    .filter(
      (load) => !load.isSource && !load.isTarget && load.containers.size > 0 && dominantMilli(load.host, load) < policy.lowMilli,
    )
    .toSorted(
      (one, other) =>
        dominantMilli(one.host, one) - dominantMilli(other.host, other) ||
        one.containers.size - other.containers.size ||
        byText(one.host.name, other.host.name),
    );
  let closings = Math.ceil(heldHosts(fleet).length / HOSTS_PER_CLOSING);
  for (const load of candidates.slice(0, CANDIDATES_MAX)) {
    if (budget.left() === 0) return;
    // One that was chosen a moment ago for another host's containers.
    if (load.isTarget) continue;
    const trial = tryEmptying(draft, load);
    const host = load.host.name;
    if (trial.kind === 'chosen') emptyHost(draft, load, trial.chosen);
    else if (trial.kind === 'kept') {
      draft.hosts.push({ host, verdict: 'kept', text: trial.text });
      if (trial.stay !== undefined) draft.stays.push(trial.stay);
    } else {
      // What is about to be emptied is given nothing, neither by placement nor by this plan.
      load.isSource = closings > 0;
      draft.hosts.push({ host, verdict: closings > 0 ? 'closing' : 'kept', text: trial.text });
      closings -= 1;
    }
  }
}
