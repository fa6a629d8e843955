/**
 * Does a change of routes survive the death of whoever makes it?
 *
 * Seeded rounds on one edge with a real store and two workers, under requests: some changes, one in which the primary or a worker is killed at a step of it,
 * and some more. Afterwards the store and both workers must be of one version, nothing that was acknowledged may be lost, and every line of the access log
 * must name the endpoint that its version leads to. `--rounds N` (200), `--seed N` (1). JSON at the end; exit code 1 where anything was violated.
 */
import { parseArgs } from 'node:util';
import { STEPS, TransactionScene, VICTIMS } from '../test/support/transaction-round.ts';
import type { RoundOutcome } from '../test/support/transaction-round.ts';
import { machine, versions } from './machine.ts';
import { openRandom } from './rebalance/random.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' } } });
const random = openRandom(Number(values.seed));
const CHANGES_MAX = 10;
/** Each scene begins with an empty log, so that what is read again after each round stays small. */
const ROUNDS_A_SCENE = 25;

function below(limit: number): number {
  return Math.floor(random.unit() * limit);
}

const outcomes: RoundOutcome[] = [];
const startMs = performance.now();
for (let left = Number(values.rounds); left > 0; left -= ROUNDS_A_SCENE) {
  await using scene = await TransactionScene.open();
  for (let round = 0; round < Math.min(left, ROUNDS_A_SCENE); round += 1) {
    const blow = { step: STEPS[below(STEPS.length)] ?? 'ready', victim: VICTIMS[below(VICTIMS.length)] ?? 'primary' };
    const outcome = await scene.round(blow, below(CHANGES_MAX), below(CHANGES_MAX));
    outcomes.push(outcome);
    for (const violation of outcome.violations) process.stderr.write(`${JSON.stringify(outcome.blow)}: ${violation}\n`);
  }
}
const byBlow = Object.fromEntries(
  VICTIMS.flatMap((victim) =>
    STEPS.map((step) => [
      `${step}: kill ${victim}`,
      outcomes.filter(({ blow }) => blow.step === step && blow.victim === victim).length,
    ]),
  ),
);
const violations = outcomes.flatMap((outcome) => outcome.violations);
process.stdout.write(
  `${JSON.stringify(
    {
      bench: 'transaction-faults',
      machine: machine(),
      versions: versions(),
      seed: Number(values.seed),
      rounds: outcomes.length,
      tookMs: Math.round(performance.now() - startMs),
      changes: outcomes.reduce((sum, { changes }) => sum + changes, 0),
      answers: outcomes.reduce((sum, { answers }) => sum + answers, 0),
      byBlow,
      violations,
    },
    undefined,
    2,
  )}\n`,
);
if (violations.length > 0) process.exitCode = 1;
