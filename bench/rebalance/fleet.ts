/** The simulated fleet: hosts that are on or off, containers on them, and windows of what each used. */
import { place } from '#caas/placement.ts';
import type { HostFacts } from '#caas/placement.ts';
import type { FleetContainer, FleetFacts, RecentMove, UsageSummary } from '#caas/rebalance/fleet-facts.ts';
import { USAGE_WINDOW, UsageWindow } from '#caas/rebalance/usage-window.ts';
import type { UsageWindowOptions } from '#caas/rebalance/usage-window.ts';
import { demandAt, HOST_CPU_MILLI, HOST_MEMORY_BYTES } from './trace.ts';
import type { TraceContainer } from './trace.ts';

export const MINUTE_MS = 60_000;

export interface SimHost {
  readonly name: string;
  power: 'on' | 'booting' | 'off';
  /** When it is on; of those that are on, since when nothing has been on it. */
  onAtMinute: number;
  emptySinceMinute: number | undefined;
  readonly containers: Set<SimContainer>;
  /** In the current minute, with what moves take. */
  cpuMilli: number;
  memoryBytes: number;
  promisedBytes: number;
  isEmptying: boolean;
  /** What moves take of it in the current minute. */
  extraCpuMilli: number;
  extraMemoryBytes: number;
}

export interface SimContainer {
  readonly trace: TraceContainer;
  readonly window: UsageWindow;
  host: SimHost;
  sinceMinute: number;
  movedMinute: number | undefined;
  cpuMilli: number;
  memoryBytes: number;
  migratingTo: SimHost | undefined;
}

export interface SimFleet {
  readonly hosts: readonly SimHost[];
  readonly running: Set<SimContainer>;
  readonly recentMoves: RecentMove[];
  readonly windowOptions: UsageWindowOptions;
}

export function openFleet(hosts: number, windowOptions: UsageWindowOptions = USAGE_WINDOW): SimFleet {
  return {
    hosts: Array.from({ length: hosts }, (_, index) => ({
      name: `h${String(index).padStart(4, '0')}`,
      power: 'on' as const,
      onAtMinute: 0,
      emptySinceMinute: undefined,
      containers: new Set<SimContainer>(),
      cpuMilli: 0,
      memoryBytes: 0,
      promisedBytes: 0,
      isEmptying: false,
      extraCpuMilli: 0,
      extraMemoryBytes: 0,
    })),
    running: new Set(),
    recentMoves: [],
    windowOptions,
  };
}

export function put(fleet: SimFleet, container: SimContainer, host: SimHost, minute: number): void {
  container.host = host;
  container.sinceMinute = minute;
  host.containers.add(container);
  host.cpuMilli += container.cpuMilli;
  host.memoryBytes += container.memoryBytes;
  host.promisedBytes += container.trace.limitBytes;
  fleet.running.add(container);
}

export function takeOff(fleet: SimFleet, container: SimContainer): void {
  const { host } = container;
  host.containers.delete(container);
  host.cpuMilli -= container.cpuMilli;
  host.memoryBytes -= container.memoryBytes;
  host.promisedBytes -= container.trace.limitBytes;
  fleet.running.delete(container);
}

function placementFacts(host: SimHost, trace: TraceContainer, outOfService: string | undefined): HostFacts {
  let replicas = 0;
  for (const other of host.containers) if (other.trace.service === trace.service) replicas += 1;
  return {
    name: host.name,
    outOfService,
    memoryBytes: HOST_MEMORY_BYTES,
    cpus: HOST_CPU_MILLI / 1000,
    promisedMemoryBytes: host.promisedBytes,
    usedMemoryBytes: host.memoryBytes,
    usedCpuMilli: host.cpuMilli,
    hasImage: false,
    replicas,
    containers: host.containers.size,
  };
}

/** Starts a container where `place` says; false: no host that is on takes it. Empty hosts and those being emptied come second. */
export function start(fleet: SimFleet, trace: TraceContainer, minute: number): boolean {
  const on = fleet.hosts.filter(({ power }) => power === 'on');
  const isSecond = (host: SimHost): boolean => host.isEmptying || (minute > 0 && host.containers.size === 0);
  for (const hosts of [on.filter((host) => !isSecond(host)), on.filter(isSecond)]) {
    const result = place(
      hosts.map((host) => placementFacts(host, trace, undefined)),
      { memoryBytes: trace.limitBytes, volumeHost: undefined },
      minute * MINUTE_MS,
    );
    const host = result.kind === 'placed' ? hosts.find(({ name }) => name === result.record.host) : undefined;
    if (host === undefined) continue;
    const { cpuMilli, memoryBytes } = demandAt(trace, minute);
    const window = new UsageWindow(fleet.windowOptions, minute * MINUTE_MS);
    put(
      fleet,
      { trace, window, host, sinceMinute: minute, movedMinute: undefined, cpuMilli, memoryBytes, migratingTo: undefined },
      host,
      minute,
    );
    return true;
  }
  return false;
}

/** What each container uses in this minute, on its host and in its window. */
export function step(fleet: SimFleet, minute: number): void {
  for (const host of fleet.hosts) {
    host.cpuMilli = host.extraCpuMilli;
    host.memoryBytes = host.extraMemoryBytes;
    host.extraCpuMilli = 0;
    host.extraMemoryBytes = 0;
  }
  const nowMs = minute * MINUTE_MS;
  for (const container of fleet.running) {
    const { cpuMilli, memoryBytes } = demandAt(container.trace, minute);
    container.cpuMilli = cpuMilli;
    container.memoryBytes = memoryBytes;
    container.host.cpuMilli += cpuMilli;
    container.host.memoryBytes += memoryBytes;
    container.window.add(cpuMilli, memoryBytes, nowMs);
  }
}

export function summaries(fleet: SimFleet, minute: number): ReadonlyMap<SimContainer, UsageSummary | undefined> {
  return new Map([...fleet.running].map((container) => [container, container.window.summary(minute * MINUTE_MS)]));
}

/** The fleet as the planner sees it. Hosts that are off are not part of it. */
export function factsOf(fleet: SimFleet, minute: number): FleetFacts {
  const usages = summaries(fleet, minute);
  const containers = [...fleet.running].map((container): FleetContainer => {
    const { trace } = container;
    return {
      id: trace.id,
      name: trace.id,
      tenant: trace.tenant,
      host: container.host.name,
      service: trace.service,
      label: trace.label,
      stuck: undefined,
      migratingTo: container.migratingTo?.name,
      movedMs: container.movedMinute === undefined ? undefined : container.movedMinute * MINUTE_MS,
      usage: usages.get(container),
      limits: { cpuMilli: undefined, memoryBytes: trace.limitBytes },
      dirtyBytesPerSecond: undefined,
    };
  });
  const hosts = fleet.hosts
    .filter(({ power }) => power === 'on')
    .map(({ name }) => ({
      name,
      state: 'active' as const,
      outOfService: undefined,
      cpuMilli: HOST_CPU_MILLI,
      memoryBytes: HOST_MEMORY_BYTES,
    }));
  return { nowMs: minute * MINUTE_MS, hosts, containers, recentMoves: fleet.recentMoves };
}
