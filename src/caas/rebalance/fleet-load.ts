/**
 * How full hosts are while a plan is made: facts at the start, and every move that was chosen since.
 *
 * Memory adds up: the 95th percentiles of a host's containers are summed. Processor time does not: bursts of different containers rarely meet,
 * and the sum of percentiles is half as much again as the percentile of the sum. What a host's containers ask of its processors is taken as the
 * sum of their means and, above it, the root of the sum of the squares of what their percentiles are above their means, as it is where they are
 * independent. What they have in common, the time of day, is in the means, because windows are short.
 *
 * INVARIANT: what leaves a host is not given to others by the same plan, because a move that fails leaves the container where it was. So a
 * host that containers leave takes none, and the order in which moves end does not matter.
 */
import { PROMISE_FACTOR } from '#caas/placement.ts';
import type { Demand, FleetContainer, FleetFacts, FleetHost } from './fleet-facts.ts';

export interface HostLoad {
  readonly host: FleetHost;
  /** In the order of their ids. Those that were chosen to leave are gone from here. */
  readonly containers: Set<FleetContainer>;
  /** By tenant and service, those on the way here included. */
  readonly replicas: Map<string, number>;
  /** From the two below. */
  cpuMilli: number;
  cpuMeanMilli: number;
  cpuSpreadSquared: number;
  memoryBytes: number;
  /** The part of both that is a guess, for containers that were not measured: it needs room, but makes no host hot. */
  guessedCpuMilli: number;
  guessedMemoryBytes: number;
  /** The largest of the containers' peaks of memory, above their 95th percentile. */
  memoryPeakAboveBytes: number;
  promisedBytes: number;
  /** A plan sends containers here. */
  isTarget: boolean;
  /** A plan takes containers from here. */
  isSource: boolean;
}

export interface FleetLoad {
  /** In the order of names. */
  readonly loads: readonly HostLoad[];
  readonly byName: ReadonlyMap<string, HostLoad>;
  /** How many replicas there are of a service in the whole fleet. */
  readonly replicas: ReadonlyMap<string, number>;
}

/** What a container without a limit and without measurements is taken to use. */
const UNMEASURED_CPU_MILLI = 1000;

export function byText(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

export function replicaKeyOf(container: FleetContainer): string {
  return `${container.tenant}\n${container.service}`;
}

export function demandOf(container: FleetContainer): Demand {
  return (
    container.usage?.p95 ?? {
      cpuMilli: container.limits.cpuMilli ?? UNMEASURED_CPU_MILLI,
      memoryBytes: container.limits.memoryBytes,
    }
  );
}

/** The 95th percentile of what containers use of processors together. */
function togetherMilli(meanMilli: number, spreadSquared: number): number {
  return meanMilli + Math.ceil(Math.sqrt(spreadSquared));
}

/** A container's mean and how far its 95th percentile is above it. Of one that was not measured, all is mean: guesses do not cancel out. */
function processorsOf(container: FleetContainer): { readonly meanMilli: number; readonly spreadSquared: number } {
  const { cpuMilli } = demandOf(container);
  const meanMilli = Math.min(cpuMilli, container.usage?.mean.cpuMilli ?? cpuMilli);
  return { meanMilli, spreadSquared: (cpuMilli - meanMilli) ** 2 };
}

function addProcessors(load: HostLoad, container: FleetContainer, sign: 1 | -1): void {
  const { meanMilli, spreadSquared } = processorsOf(container);
  load.cpuMeanMilli += sign * meanMilli;
  load.cpuSpreadSquared += sign * spreadSquared;
  load.cpuMilli = togetherMilli(load.cpuMeanMilli, load.cpuSpreadSquared);
}

/** What a host's containers would use of its processors with one more. */
export function cpuMilliWith(load: HostLoad, container: FleetContainer): number {
  const { meanMilli, spreadSquared } = processorsOf(container);
  return togetherMilli(load.cpuMeanMilli + meanMilli, load.cpuSpreadSquared + spreadSquared);
}

function peakAboveOf(container: FleetContainer): number {
  return container.usage === undefined ? 0 : Math.max(0, container.usage.peak.memoryBytes - container.usage.p95.memoryBytes);
}

export function milliOf(part: number, whole: number): number {
  if (whole <= 0) return part > 0 ? Number.MAX_SAFE_INTEGER : 0;
  return Math.ceil((part * 1000) / whole);
}

/** The resource of which most is used decides: room in the other one is no room. */
export function dominantMilli(host: FleetHost, demand: Demand): number {
  return Math.max(milliOf(demand.cpuMilli, host.cpuMilli), milliOf(demand.memoryBytes, host.memoryBytes));
}

/** What is known to be used, in thousandths of the host. */
export function measuredMilli(load: HostLoad): { readonly cpu: number; readonly memory: number } {
  return {
    cpu: milliOf(load.cpuMilli - load.guessedCpuMilli, load.host.cpuMilli),
    memory: milliOf(load.memoryBytes - load.guessedMemoryBytes, load.host.memoryBytes),
  };
}

function emptyLoad(host: FleetHost): HostLoad {
  return {
    host,
    containers: new Set(),
    replicas: new Map(),
    cpuMilli: 0,
    cpuMeanMilli: 0,
    cpuSpreadSquared: 0,
    memoryBytes: 0,
    guessedCpuMilli: 0,
    guessedMemoryBytes: 0,
    memoryPeakAboveBytes: 0,
    promisedBytes: 0,
    isTarget: false,
    isSource: false,
  };
}

/** Takes room for a container that is there or comes. */
export function occupy(load: HostLoad, container: FleetContainer): void {
  const demand = demandOf(container);
  const key = replicaKeyOf(container);
  addProcessors(load, container, 1);
  load.memoryBytes += demand.memoryBytes;
  if (container.usage === undefined) {
    load.guessedCpuMilli += demand.cpuMilli;
    load.guessedMemoryBytes += demand.memoryBytes;
  }
  load.promisedBytes += container.limits.memoryBytes;
  load.memoryPeakAboveBytes = Math.max(load.memoryPeakAboveBytes, peakAboveOf(container));
  load.replicas.set(key, (load.replicas.get(key) ?? 0) + 1);
}

/** The reverse of `occupy`, but for the largest peak, which stays: a host that containers leave takes none. */
export function vacate(load: HostLoad, container: FleetContainer): void {
  const demand = demandOf(container);
  const key = replicaKeyOf(container);
  addProcessors(load, container, -1);
  load.memoryBytes -= demand.memoryBytes;
  if (container.usage === undefined) {
    load.guessedCpuMilli -= demand.cpuMilli;
    load.guessedMemoryBytes -= demand.memoryBytes;
  }
  load.promisedBytes -= container.limits.memoryBytes;
  load.replicas.set(key, (load.replicas.get(key) ?? 0) - 1);
}

/** A container on the way counts on both hosts: it is on either, and nobody knows yet on which. */
export function fleetLoadOf(facts: FleetFacts): FleetLoad {
  const loads = facts.hosts.toSorted((one, other) => byText(one.name, other.name)).map(emptyLoad);
  const byName = new Map(loads.map((load) => [load.host.name, load]));
  const replicas = new Map<string, number>();
  for (const container of facts.containers.toSorted((one, other) => byText(one.id, other.id))) {
    const key = replicaKeyOf(container);
    replicas.set(key, (replicas.get(key) ?? 0) + 1);
    const load = byName.get(container.host);
    if (load !== undefined) {
      occupy(load, container);
      load.containers.add(container);
    }
    const next = container.migratingTo === undefined ? undefined : byName.get(container.migratingTo);
    if (next !== undefined) occupy(next, container);
  }
  return { loads, byName, replicas };
}

/** Whether a host may be given containers at all. */
export function isOpen(load: HostLoad): boolean {
  return load.host.state === 'active' && load.host.outOfService === undefined;
}

/** Nothing is there, and nothing is on the way. */
export function isEmpty(load: HostLoad): boolean {
  return load.containers.size === 0 && load.replicas.size === 0;
}

/** How full the host would be with the container, in thousandths; undefined: it has no room below the limits. */
export function milliWith(
  load: HostLoad,
  container: FleetContainer,
  limits: { readonly fillMilli: number; readonly memoryPeakMilli: number },
): number | undefined {
  const { host } = load;
  const demand = demandOf(container);
  const memoryBytes = load.memoryBytes + demand.memoryBytes;
  const milli = dominantMilli(host, { cpuMilli: cpuMilliWith(load, container), memoryBytes });
  if (milli > limits.fillMilli) return undefined;
  const peakBytes = memoryBytes + Math.max(load.memoryPeakAboveBytes, peakAboveOf(container));
  if (milliOf(peakBytes, host.memoryBytes) > limits.memoryPeakMilli) return undefined;
  if (load.promisedBytes + container.limits.memoryBytes > host.memoryBytes * PROMISE_FACTOR) return undefined;
  return milli;
}
