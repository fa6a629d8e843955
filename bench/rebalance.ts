/**
 * What does the rebalancer save, what does it cost, and whom does it hurt?
 *
 * In simulation, on made-up traces, the same for all: no rebalancing (containers stay where `place` put them), a descheduler that restarts
 * containers by first fit, and the planner. One line of JSON for each fleet size, with medians over the seeds and the worst of them.
 *
 * `--hosts 10,100` fleet sizes, `--seeds N`, `--days N`, `--pinned N` containers of a thousand that may never move, `--window MINUTES`.
 */
import { parseArgs } from 'node:util';
import { DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import { machine, quantile } from './machine.ts';
import { firstFitRestart, nothing, planner } from './rebalance/contender.ts';
import type { Contender } from './rebalance/contender.ts';
import { simulate } from './rebalance/simulate.ts';
import type { Tally } from './rebalance/tally.ts';
import { makeTrace } from './rebalance/trace.ts';

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '10,100' },
    seeds: { type: 'string', default: '5' },
    days: { type: 'string', default: '2' },
    pinned: { type: 'string', default: '20' },
    window: { type: 'string', default: '60' },
  },
});

const CONTENDERS: Readonly<Record<string, () => Contender>> = {
  'no rebalancing': nothing,
  'first-fit restart': () => firstFitRestart(DEFAULT_POLICY),
  planner: () => planner(DEFAULT_POLICY),
};

/** Figures of one run, all of them worse where they are larger. */
function figuresOf(tally: Tally): Readonly<Record<string, number>> {
  const containerDays = tally.containerMinutes / 1440;
  return {
    hostHoursOverLower: tally.hostMinutes / tally.lowerHostMinutes,
    hostHoursPerDay: tally.hostMinutes / 60 / Number(values.days),
    movesPerContainerDay: (tally.moves + tally.restarts) / containerDays,
    cpuViolationPpm: (tally.cpuViolationMinutes / tally.containerMinutes) * 1e6,
    memoryViolationPpm: (tally.memoryViolationMinutes / tally.containerMinutes) * 1e6,
    waitingPpm: (tally.waitingMinutes / tally.containerMinutes) * 1e6,
    blackoutMsPerContainerDay: tally.blackoutMs / containerDays,
    blackoutWorstMs: tally.blackoutWorstMs,
    restarts: tally.restarts,
    lostTaskMinutes: tally.lostTaskMinutes,
    bootsPerDay: tally.bootedHosts / Number(values.days),
    planMedianMs: tally.planMs.length === 0 ? 0 : quantile(tally.planMs, 0.5),
    planWorstMs: Math.max(0, ...tally.planMs),
    factsMedianMs: tally.factsMs.length === 0 ? 0 : quantile(tally.factsMs, 0.5),
  };
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

function summary(runs: readonly Readonly<Record<string, number>>[]): Readonly<Record<string, { median: number; worst: number }>> {
  const names = Object.keys(runs[0] ?? {});
  return Object.fromEntries(
    names.map((name) => {
      const list = runs.map((run) => run[name] ?? Number.NaN);
      return [name, { median: rounded(quantile(list, 0.5)), worst: rounded(Math.max(...list)) }];
    }),
  );
}

for (const hosts of values.hosts.split(',').map(Number)) {
  const runs = new Map<string, Readonly<Record<string, number>>[]>();
  for (let seed = 1; seed <= Number(values.seeds); seed += 1) {
    const days = Number(values.days);
    const trace = makeTrace({ seed, hosts, days, pinnedMilli: Number(values.pinned) });
    for (const [name, make] of Object.entries(CONTENDERS)) {
      const tally = simulate(trace, make(), { hosts, days, seed, windowMinutes: Number(values.window) });
      runs.set(name, [...(runs.get(name) ?? []), figuresOf(tally)]);
    }
  }
  const contenders = Object.fromEntries([...runs].map(([name, list]) => [name, summary(list)]));
  process.stdout.write(`${JSON.stringify({ bench: 'rebalance', ...values, hosts, machine: machine(), contenders })}\n`);
}
