/** What a simulated fleet cost and what its containers suffered, minute by minute. */
import type { SimFleet, SimHost } from './fleet.ts';
import { HOST_CPU_MILLI, HOST_MEMORY_BYTES } from './trace.ts';

export interface Tally {
  hostMinutes: number;
  /** The hosts that a perfect packing of the same minute's demand would need at least. */
  lowerHostMinutes: number;
  containerMinutes: number;
  cpuViolationMinutes: number;
  memoryViolationMinutes: number;
  /** Containers that waited for a host to come on. */
  waitingMinutes: number;
  /** Begun moves, also those that failed; and stops with a start elsewhere. */
  moves: number;
  failedMoves: number;
  restarts: number;
  blackoutMs: number;
  blackoutWorstMs: number;
  /** Of tasks that had to begin again: what they had done. */
  lostTaskMinutes: number;
  bootedHosts: number;
  /** Processor time of each plan, and of reading the windows for it: other work on the machine does not count. */
  planMs: number[];
  factsMs: number[];
}

export function openTally(): Tally {
  return {
    hostMinutes: 0,
    lowerHostMinutes: 0,
    containerMinutes: 0,
    cpuViolationMinutes: 0,
    memoryViolationMinutes: 0,
    waitingMinutes: 0,
    moves: 0,
    failedMoves: 0,
    restarts: 0,
    blackoutMs: 0,
    blackoutWorstMs: 0,
    lostTaskMinutes: 0,
    bootedHosts: 0,
    planMs: [],
    factsMs: [],
  };
}

/** Containers that get less processor than they ask for, where the host shares fairly: the small ones get all, the large ones the same. */
function throttledOn(host: SimHost): number {
  if (host.cpuMilli <= HOST_CPU_MILLI) return 0;
  const demands = [...host.containers].map(({ cpuMilli }) => cpuMilli).toSorted((one, other) => one - other);
  let left = HOST_CPU_MILLI - (host.cpuMilli - demands.reduce((sum, demand) => sum + demand, 0));
  for (const [index, demand] of demands.entries()) {
    const share = left / (demands.length - index);
    if (demand > share) return demands.length - index;
    left -= demand;
  }
  return 0;
}

export function count(tally: Tally, fleet: SimFleet, waiting: number): void {
  let cpuMilli = 0;
  let memoryBytes = 0;
  for (const container of fleet.running) {
    cpuMilli += container.cpuMilli;
    memoryBytes += container.memoryBytes;
  }
  for (const host of fleet.hosts) {
    if (host.power !== 'off') tally.hostMinutes += 1;
    tally.cpuViolationMinutes += throttledOn(host);
    // Whom the kernel ends is its choice: all of them are at risk.
    if (host.memoryBytes > HOST_MEMORY_BYTES) tally.memoryViolationMinutes += host.containers.size;
  }
  tally.lowerHostMinutes += Math.ceil(Math.max(cpuMilli / HOST_CPU_MILLI, memoryBytes / HOST_MEMORY_BYTES));
  tally.containerMinutes += fleet.running.size;
  tally.waitingMinutes += waiting;
}
