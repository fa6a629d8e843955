/**
 * How long does a plan take?
 *
 * A fleet at noon, spread evenly and with an hour of measurements: the facts are read from the windows, the first plan after that (the most work:
 * every host may be given up), and the drain of each of some hosts. Processor time and wall time. `--hosts N` (default 1000, 20 containers each),
 * `--rounds N` (default 9).
 */
import { parseArgs } from 'node:util';
import { planDrain } from '#caas/rebalance/plan-drain.ts';
import { planRebalance } from '#caas/rebalance/plan-rebalance.ts';
import { DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import { machine, quantile } from './machine.ts';
import { factsOf, openFleet, put, step } from './rebalance/fleet.ts';
import { UsageWindow } from '#caas/rebalance/usage-window.ts';
import { makeTrace } from './rebalance/trace.ts';

const { values } = parseArgs({
  options: { hosts: { type: 'string', default: '1000' }, rounds: { type: 'string', default: '9' } },
});
const NOON_MINUTE = 720;
const hosts = Number(values.hosts);
const rounds = Number(values.rounds);

const fleet = openFleet(hosts);
const running = makeTrace({ seed: 1, hosts, days: 1, pinnedMilli: 20 }).filter(
  ({ arriveMinute, departMinute }) => arriveMinute < NOON_MINUTE - 60 && departMinute > NOON_MINUTE,
);
for (const [index, trace] of running.entries()) {
  const host = fleet.hosts[index % hosts];
  if (host === undefined) throw new Error('a fleet needs a host');
  const window = new UsageWindow(fleet.windowOptions, (NOON_MINUTE - 60) * 60_000);
  put(
    fleet,
    { trace, window, host, sinceMinute: 0, movedMinute: undefined, cpuMilli: 0, memoryBytes: 0, migratingTo: undefined },
    host,
    0,
  );
}
for (let minute = NOON_MINUTE - 60; minute <= NOON_MINUTE; minute += 1) step(fleet, minute);

/** Milliseconds of the processor and of the clock for each round. */
function time(act: (round: number) => void): Readonly<Record<string, number>> {
  const cpu: number[] = [];
  const wall: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const before = process.cpuUsage();
    const startMs = performance.now();
    act(round);
    wall.push(performance.now() - startMs);
    const { user, system } = process.cpuUsage(before);
    cpu.push((user + system) / 1000);
  }
  return {
    cpuMedianMs: Math.round(quantile(cpu, 0.5)),
    cpuWorstMs: Math.round(Math.max(...cpu)),
    wallMedianMs: Math.round(quantile(wall, 0.5)),
    wallWorstMs: Math.round(Math.max(...wall)),
  };
}

const facts = factsOf(fleet, NOON_MINUTE);
const plan = planRebalance(facts, DEFAULT_POLICY);
const readFacts = time(() => factsOf(fleet, NOON_MINUTE));
const rebalance = time(() => planRebalance(facts, DEFAULT_POLICY));
const drain = time((round) => planDrain(fleet.hosts[round % hosts]?.name ?? '', facts, DEFAULT_POLICY));
process.stdout.write(
  `${JSON.stringify({ bench: 'rebalance-planner', hosts, containers: facts.containers.length, moves: plan.moves.length, rounds, readFacts, rebalance, drain, machine: machine() })}\n`,
);
