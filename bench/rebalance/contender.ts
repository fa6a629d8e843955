/** What is done about a fleet every few minutes: nothing, restarts by first fit, or the planner's moves. */
import type { Move } from '#caas/rebalance/move-plan.ts';
import { planRebalance } from '#caas/rebalance/plan-rebalance.ts';
import type { RebalancePolicy } from '#caas/rebalance/policy.ts';
import { factsOf, summaries } from './fleet.ts';
import type { SimContainer, SimFleet, SimHost } from './fleet.ts';
import { HOST_CPU_MILLI, HOST_MEMORY_BYTES } from './trace.ts';
import type { Tally } from './tally.ts';

export interface Restart {
  readonly container: SimContainer;
  readonly to: SimHost;
}

export interface Decision {
  readonly moves: readonly Move[];
  readonly restarts: readonly Restart[];
  readonly emptying: ReadonlySet<string>;
  readonly hostsWanted: number;
}

export type Contender = (fleet: SimFleet, minute: number, tally: Tally) => Decision;

const NOTHING: Decision = { moves: [], restarts: [], emptying: new Set(), hostsWanted: 0 };

/** What there is without a rebalancer: containers stay where `place` put them. */
export function nothing(): Contender {
  return () => NOTHING;
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The planner itself, on the same facts as a real fleet gives it. */
export function planner(policy: RebalancePolicy): Contender {
  return (fleet, minute, tally) => {
    const startMs = cpuMs();
    const facts = factsOf(fleet, minute);
    const factsMs = cpuMs();
    const plan = planRebalance(facts, policy);
    tally.factsMs.push(factsMs - startMs);
    tally.planMs.push(cpuMs() - factsMs);
    return {
      moves: plan.moves,
      restarts: [],
      emptying: new Set(
        plan.hosts.filter(({ verdict }) => verdict === 'emptying' || verdict === 'closing').map(({ host }) => host),
      ),
      hostsWanted: plan.hostsWanted,
    };
  };
}

interface Room {
  readonly host: SimHost;
  cpuMilli: number;
  memoryBytes: number;
  isSource: boolean;
}

export interface FirstFitOptions {
  readonly highMilli: number;
  readonly fillMilli: number;
  readonly lowMilli: number;
}

function milliOf({ cpuMilli, memoryBytes }: { readonly cpuMilli: number; readonly memoryBytes: number }): number {
  return Math.max((cpuMilli * 1000) / HOST_CPU_MILLI, (memoryBytes * 1000) / HOST_MEMORY_BYTES);
}

/**
 * What a descheduler does: hosts above the high mark lose containers until they are below, hosts below the low mark lose all, and each container
 * starts anew on the first host with room. It has the same measurements and the same marks as the planner, and neither costs nor memory of
 * what it did before.
 */
export function firstFitRestart(options: FirstFitOptions): Contender {
  return (fleet, minute) => {
    const usages = summaries(fleet, minute);
    const demandOf = (container: SimContainer): { readonly cpuMilli: number; readonly memoryBytes: number } =>
      usages.get(container)?.p95 ?? { cpuMilli: container.cpuMilli, memoryBytes: container.memoryBytes };
    const rooms = fleet.hosts
      .filter(({ power }) => power === 'on')
      .map((host): Room => {
        const room: Room = { host, cpuMilli: 0, memoryBytes: 0, isSource: false };
        for (const container of host.containers) add(room, demandOf(container));
        return room;
      });
    const restarts: Restart[] = [];
    let hostsWanted = 0;
    const send = (container: SimContainer, from: Room, mayBeEmpty: boolean): Room | undefined => {
      const demand = demandOf(container);
      const to = rooms.find(
        (room) =>
          room !== from &&
          !room.isSource &&
          (mayBeEmpty || room.memoryBytes > 0) &&
          milliOf({ cpuMilli: room.cpuMilli + demand.cpuMilli, memoryBytes: room.memoryBytes + demand.memoryBytes }) <=
            options.fillMilli,
      );
      if (to !== undefined) add(to, demand);
      return to;
    };
    for (const room of rooms.filter((one) => milliOf(one) > options.highMilli)) {
      room.isSource = true;
      for (const container of room.host.containers) {
        if (milliOf(room) <= options.highMilli) break;
        if (container.trace.label === 'never') continue;
        const to = send(container, room, true);
        if (to === undefined) continue;
        subtract(room, demandOf(container));
        restarts.push({ container, to: to.host });
      }
      if (milliOf(room) > options.highMilli) hostsWanted += 1;
    }
    const low = rooms.filter((one) => one.host.containers.size > 0 && milliOf(one) < options.lowMilli);
    for (const room of low.toSorted((one, other) => milliOf(one) - milliOf(other))) {
      if (hostsWanted > 0) break;
      if (room.isSource || restarts.some(({ to }) => to === room.host)) continue;
      emptyByRestart(room, { send, demandOf, restarts });
    }
    return { moves: [], restarts, emptying: new Set(), hostsWanted };
  };
}

function add(room: Room, demand: { readonly cpuMilli: number; readonly memoryBytes: number }): void {
  room.cpuMilli += demand.cpuMilli;
  room.memoryBytes += demand.memoryBytes;
}

function subtract(room: Room, demand: { readonly cpuMilli: number; readonly memoryBytes: number }): void {
  room.cpuMilli -= demand.cpuMilli;
  room.memoryBytes -= demand.memoryBytes;
}

function emptyByRestart(
  room: Room,
  {
    send,
    demandOf,
    restarts,
  }: {
    readonly send: (container: SimContainer, from: Room, mayBeEmpty: boolean) => Room | undefined;
    readonly demandOf: (container: SimContainer) => { readonly cpuMilli: number; readonly memoryBytes: number };
    readonly restarts: Restart[];
  },
): void {
  const containers = [...room.host.containers];
  if (containers.some(({ trace }) => trace.label === 'never')) return;
  const found: { readonly container: SimContainer; readonly to: Room }[] = [];
  for (const container of containers) {
    const to = send(container, room, false);
    if (to === undefined) {
      for (const back of found) subtract(back.to, demandOf(back.container));
      return;
    }
    found.push({ container, to });
  }
  room.isSource = true;
  restarts.push(...found.map(({ container, to }) => ({ container, to: to.host })));
}
