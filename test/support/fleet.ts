/** Fleets for the planner: built by hand, and arbitrary ones. */
import * as fc from 'fast-check';
import type { Demand, FleetContainer, FleetFacts, FleetHost, RecentMove, UsageSummary } from '#caas/rebalance/fleet-facts.ts';
import type { MovePlan } from '#caas/rebalance/move-plan.ts';

export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;
export const MINUTE_MS = 60_000;
export const NOW_MS = 100 * 60 * MINUTE_MS;

export function hostOf(name: string, change: Partial<FleetHost> = {}): FleetHost {
  return { name, state: 'active', outOfService: undefined, cpuMilli: 4000, memoryBytes: 16 * GIB, ...change };
}

export function measured(cpuMilli: number, memoryBytes: number, peakBytes = memoryBytes): UsageSummary {
  return {
    mean: { cpuMilli, memoryBytes },
    p95: { cpuMilli, memoryBytes },
    peak: { cpuMilli, memoryBytes: peakBytes },
    coveredMs: 60 * MINUTE_MS,
  };
}

/** The same with a mean that is below the percentile. */
export function spread(usage: UsageSummary, part: number): UsageSummary {
  return { ...usage, mean: { ...usage.mean, cpuMilli: Math.ceil(usage.p95.cpuMilli / (1 + part)) } };
}

export function containerOf(id: string, host: string, change: Partial<FleetContainer> = {}): FleetContainer {
  return {
    id,
    name: id,
    tenant: 't',
    host,
    service: id,
    label: 'any',
    stuck: undefined,
    migratingTo: undefined,
    movedMs: undefined,
    usage: measured(100, 256 * MIB),
    limits: { cpuMilli: undefined, memoryBytes: 512 * MIB },
    dirtyBytesPerSecond: undefined,
    ...change,
  };
}

export function factsOf(
  hosts: readonly FleetHost[],
  containers: readonly FleetContainer[],
  recentMoves: readonly RecentMove[] = [],
): FleetFacts {
  return { nowMs: NOW_MS, hosts, containers, recentMoves };
}

/** The facts after every move of the plan has been made. */
export function applied(facts: FleetFacts, plan: MovePlan, nowMs: number): FleetFacts {
  const targets = new Map(plan.moves.map((move) => [move.container, move.to]));
  return {
    ...facts,
    nowMs,
    containers: facts.containers.map((container) => {
      const to = targets.get(container.id);
      return to === undefined ? container : { ...container, host: to, movedMs: nowMs };
    }),
    recentMoves: [...facts.recentMoves, ...plan.moves.map(({ tenant }) => ({ tenant, atMs: facts.nowMs }))],
  };
}

/** The sum of the means, and the root of the summed squares of what is above them. */
function cpuMilliOf(containers: readonly FleetContainer[]): number {
  let mean = 0;
  let squares = 0;
  for (const { usage, limits } of containers) {
    mean += usage?.mean.cpuMilli ?? limits.cpuMilli ?? 1000;
    squares += usage === undefined ? 0 : (usage.p95.cpuMilli - usage.mean.cpuMilli) ** 2;
  }
  return mean + Math.ceil(Math.sqrt(squares));
}

/** What the containers of a host ask of it together, those on their way there included. */
export function demandOn(
  facts: FleetFacts,
  host: string,
): Demand & { readonly peakBytes: number; readonly promisedBytes: number } {
  const here = facts.containers.filter((container) => container.host === host || container.migratingTo === host);
  const sum = (of: (container: FleetContainer) => number): number => here.reduce((total, container) => total + of(container), 0);
  const memoryBytes = sum(({ usage, limits }) => usage?.p95.memoryBytes ?? limits.memoryBytes);
  const above = here.map(({ usage }) => (usage === undefined ? 0 : usage.peak.memoryBytes - usage.p95.memoryBytes));
  return {
    cpuMilli: cpuMilliOf(here),
    memoryBytes,
    peakBytes: memoryBytes + Math.max(0, ...above),
    promisedBytes: sum(({ limits }) => limits.memoryBytes),
  };
}

const HOST_NAMES = ['a', 'b', 'c', 'd', 'e', 'f'];

const anyHost = fc.record({
  state: fc.oneof(
    { weight: 8, arbitrary: fc.constant('active' as const) },
    fc.constantFrom('draining' as const, 'drained' as const),
  ),
  outOfService: fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, fc.constant('it is away')),
  cpuMilli: fc.constantFrom(2000, 4000, 8000),
  memoryBytes: fc.constantFrom(8 * GIB, 16 * GIB),
});

const anyUsage = fc.oneof(
  {
    weight: 9,
    arbitrary: fc
      .record({
        cpuMilli: fc.integer({ min: 0, max: 900 }),
        meanPercent: fc.integer({ min: 0, max: 100 }),
        memoryMib: fc.integer({ min: 4, max: 3000 }),
        aboveMib: fc.integer({ min: 0, max: 1000 }),
        coveredMinutes: fc.integer({ min: 0, max: 60 }),
      })
      .map(({ cpuMilli, meanPercent, memoryMib, aboveMib, coveredMinutes }) => ({
        mean: { cpuMilli: Math.ceil((cpuMilli * meanPercent) / 100), memoryBytes: memoryMib * MIB },
        p95: { cpuMilli, memoryBytes: memoryMib * MIB },
        peak: { cpuMilli: 2 * cpuMilli, memoryBytes: (memoryMib + aboveMib) * MIB },
        coveredMs: coveredMinutes * MINUTE_MS,
      })),
  },
  fc.constant(undefined),
);

const anyContainer = fc.record({
  tenant: fc.constantFrom('t', 'u', 'v'),
  service: fc.constantFrom('web', 'db', 'job', 'one', 'two', 'three', 'four'),
  hostIndex: fc.nat(HOST_NAMES.length - 1),
  targetIndex: fc.oneof({ weight: 12, arbitrary: fc.constant(undefined) }, fc.nat(HOST_NAMES.length - 1)),
  label: fc.oneof({ weight: 8, arbitrary: fc.constant('any' as const) }, fc.constantFrom('drain' as const, 'never' as const)),
  stuck: fc.oneof({ weight: 12, arbitrary: fc.constant(undefined) }, fc.constant('it has volumes')),
  ageMinutes: fc.option(fc.integer({ min: 0, max: 200 }), { nil: undefined }),
  usage: anyUsage,
  limits: fc.record({
    cpuMilli: fc.option(fc.integer({ min: 100, max: 2000 }), { nil: undefined }),
    memoryBytes: fc.constantFrom(512 * MIB, GIB, 2 * GIB),
  }),
  dirtyBytesPerSecond: fc.option(fc.integer({ min: 0, max: 600 * MIB }), { nil: undefined }),
});

/** Fleets of one to six hosts with everything that can be in the way. */
const awkwardFleet: fc.Arbitrary<FleetFacts> = fc
  .record({
    hosts: fc.array(anyHost, { minLength: 1, maxLength: HOST_NAMES.length }),
    containers: fc.array(anyContainer, { maxLength: 40 }),
    recent: fc.array(fc.record({ tenant: fc.constantFrom('t', 'u', 'v'), minutesAgo: fc.nat(90) }), { maxLength: 6 }),
  })
  .map(({ hosts, containers, recent }) => {
    const nameAt = (index: number): string => HOST_NAMES[index % hosts.length] ?? 'a';
    return {
      nowMs: NOW_MS,
      hosts: hosts.map((host, index) => ({ name: nameAt(index), ...host })),
      containers: containers.map(({ hostIndex, targetIndex, ageMinutes, ...rest }, index) => {
        const host = nameAt(hostIndex);
        const target = targetIndex === undefined ? undefined : nameAt(targetIndex);
        return {
          ...rest,
          id: `c${String(index).padStart(3, '0')}`,
          name: `n${String(index)}`,
          host,
          migratingTo: target === host ? undefined : target,
          movedMs: ageMinutes === undefined ? undefined : NOW_MS - ageMinutes * MINUTE_MS,
        };
      }),
      recentMoves: recent.map(({ tenant, minutesAgo }) => ({ tenant, atMs: NOW_MS - minutesAgo * MINUTE_MS })),
    };
  });

/** The same with hosts that answer and containers that may move, so that plans have many moves. */
const willingFleet = awkwardFleet.map((facts) => ({
  ...facts,
  hosts: facts.hosts.map((host) => ({ ...host, state: 'active' as const, outOfService: undefined })),
  containers: facts.containers.map((container, index) => {
    const cpuMilli = (container.usage?.p95.cpuMilli ?? 0) >> (index % 3);
    const memoryBytes = Math.ceil((container.usage?.p95.memoryBytes ?? MIB) / 4);
    return {
      ...container,
      label: index % 17 === 16 ? container.label : ('any' as const),
      stuck: undefined,
      migratingTo: undefined,
      movedMs: undefined,
      usage: spread(measured(cpuMilli, memoryBytes, memoryBytes + (index % 5) * 64 * MIB), index % 4),
      limits: { cpuMilli: undefined, memoryBytes: GIB },
    };
  }),
}));

export const anyFleet: fc.Arbitrary<FleetFacts> = fc.oneof(awkwardFleet, willingFleet);
