/**
 * How long does a client wait while its container moves to another host, and what does it lose?
 *
 * Side by side in one run: `ecluse migrate` there and back, and what people have without it, `docker restart`. Both under the same steady
 * stream of HTTPS requests (open loop). `--rounds N` (default 10 each), `--rate N` requests a second (default 100).
 */
import { parseArgs } from 'node:util';
import { startNode } from '../test/support/node.ts';
import { longestGapMs, startSteadyLoad } from '../test/support/steady-load.ts';
import type { LoadSample } from '../test/support/steady-load.ts';
import { machine, quantile, versions } from './machine.ts';

interface Side {
  readonly rounds: number;
  readonly pauseP50Ms: number;
  readonly pauseWorstMs: number;
  readonly requests: number;
  readonly failed: number;
  readonly repeatedCounts: number;
}

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, rate: { type: 'string', default: '100' } },
});
const rounds = Number(values.rounds);
const rate = Number(values.rate);

await using node = await startNode({ demo: true });
const target = { port: node.ports.https, host: 'hello.localhost', path: '/count', caFile: node.caFile };

/** Counts that were given twice: the container forgot, or a request was sent twice. */
function repeatsIn(samples: readonly LoadSample[]): number {
  const counts = samples.filter((sample) => sample.status === 200).map((sample) => /"count":(\d+)/.exec(sample.body)?.[1]);
  return counts.length - new Set(counts).size;
}

async function measure(act: (round: number) => Promise<void>): Promise<Side> {
  const pauses: number[] = [];
  const all: LoadSample[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const load = startSteadyLoad(target, rate);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await act(round);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const samples = await load.stop();
    pauses.push(longestGapMs(samples.filter((sample) => sample.status === 200)));
    all.push(...samples);
  }
  return {
    rounds,
    pauseP50Ms: Math.round(quantile(pauses, 0.5)),
    pauseWorstMs: Math.round(Math.max(...pauses)),
    requests: all.length,
    failed: all.filter((sample) => sample.status !== 200).length,
    repeatedCounts: repeatsIn(all),
  };
}

const migrate = await measure(async (round) => {
  const moved = await node.ecluse('migrate', 'hello', '--to', round % 2 === 0 ? 'b' : 'a');
  if (moved.exitCode !== 0) throw new Error(moved.stderr);
});
const restart = await measure(async () => {
  const done = await node.docker('demo', ['restart', 'hello']);
  if (done.exitCode !== 0) throw new Error(done.stderr);
});
process.stdout.write(
  `${JSON.stringify({ bench: 'migration', rate, machine: machine(), versions: versions(), migrate, restart, pauseRatio: Number((migrate.pauseP50Ms / restart.pauseP50Ms).toFixed(2)) })}\n`,
);
