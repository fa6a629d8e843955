/**
 * Where a container goes: where fewest replicas of its service are, then where it fits closest.
 *
 * The closest fit by the dominant resource leaves large gaps whole for large containers. A host whose processors and memory come out even is
 * preferred a little, because what is left of one resource without the other is left for good.
 */
import { formatPercent } from './fleet-words.ts';
import { cpuMilliWith, demandOf, dominantMilli, isEmpty, isOpen, milliOf, milliWith, replicaKeyOf } from './fleet-load.ts';
import type { FleetLoad, HostLoad } from './fleet-load.ts';
import type { FleetContainer } from './fleet-facts.ts';

export interface TargetRules {
  readonly fillMilli: number;
  readonly memoryPeakMilli: number;
  /** How many replicas of a service, this container included, the target may come to; undefined: fewer are better, any number goes. */
  readonly replicasMax: ((container: FleetContainer) => number) | undefined;
  /** A host that is on and has nothing may be given up as it is. */
  readonly mayBeEmpty: boolean;
}

export type TargetChoice =
  | {
      readonly kind: 'target';
      readonly load: HostLoad;
      readonly replicas: number;
      readonly beforeMilli: number;
      readonly afterMilli: number;
    }
  | { readonly kind: 'none'; readonly rule: 'no-room' | 'replicas'; readonly text: string };

/** The larger, the closer the fit. Skew weighs a quarter: it breaks near ties, and never chooses a much emptier host. */
function fitScore(load: HostLoad, container: FleetContainer, afterMilli: number): number {
  const demand = demandOf(container);
  const cpu = milliOf(cpuMilliWith(load, container), load.host.cpuMilli);
  const memory = milliOf(load.memoryBytes + demand.memoryBytes, load.host.memoryBytes);
  return 4 * afterMilli - Math.abs(cpu - memory);
}

function nowhere(fleet: FleetLoad, container: FleetContainer, rules: TargetRules, isReplicasOnly: boolean): TargetChoice {
  if (isReplicasOnly) {
    return {
      kind: 'none',
      rule: 'replicas',
      text: 'the hosts that have room have as many replicas of its service as they may have',
    };
  }
  const others = fleet.loads.filter((load) => load.host.name !== container.host);
  const open = others.filter((load) => isOpen(load) && !load.isSource);
  const [roomiest] = open.toSorted((one, other) => dominantMilli(one.host, one) - dominantMilli(other.host, other));
  if (roomiest === undefined) return { kind: 'none', rule: 'no-room', text: 'there is no other host that takes containers' };
  const { host } = roomiest;
  const demand = demandOf(container);
  const used = dominantMilli(host, roomiest);
  const asked = dominantMilli(host, demand);
  return {
    kind: 'none',
    rule: 'no-room',
    text:
      `no host has room for it below ${formatPercent(rules.fillMilli)}: the emptiest, ${host.name}, ` +
      `is at ${formatPercent(used)}, and of that host it takes ${formatPercent(asked)}`,
  };
}

interface Rating {
  readonly load: HostLoad;
  readonly replicas: number;
  readonly afterMilli: number;
  readonly score: number;
}

/** What speaks for a host; undefined: it takes no containers, or has no room. */
function rate(load: HostLoad, container: FleetContainer, rules: TargetRules): Rating | undefined {
  if (load.host.name === container.host || load.isSource || !isOpen(load)) return undefined;
  if (!rules.mayBeEmpty && isEmpty(load)) return undefined;
  const afterMilli = milliWith(load, container, rules);
  if (afterMilli === undefined) return undefined;
  return {
    load,
    replicas: load.replicas.get(replicaKeyOf(container)) ?? 0,
    afterMilli,
    score: fitScore(load, container, afterMilli),
  };
}

function isBetter(one: Rating, other: Rating): boolean {
  return one.replicas < other.replicas || (one.replicas === other.replicas && one.score > other.score);
}

/** The best host for a container that leaves its own, or why there is none. Equal scores: the first by name. */
export function chooseTarget(fleet: FleetLoad, container: FleetContainer, rules: TargetRules): TargetChoice {
  const replicasMax = rules.replicasMax?.(container) ?? Number.MAX_SAFE_INTEGER;
  let best: Rating | undefined;
  let isReplicasOnly = false;
  for (const load of fleet.loads) {
    const rating = rate(load, container, rules);
    if (rating === undefined) continue;
    if (rating.replicas >= replicasMax) isReplicasOnly = true;
    else if (best === undefined || isBetter(rating, best)) best = rating;
  }
  if (best === undefined) return nowhere(fleet, container, rules, isReplicasOnly);
  const { load, replicas, afterMilli } = best;
  return { kind: 'target', load, replicas, beforeMilli: dominantMilli(load.host, load), afterMilli };
}
