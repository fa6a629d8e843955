/**
 * Does a move survive whatever breaks?
 *
 * Seeded rounds on one node with two hosts: a container that counts requests and writes numbers is moved (or put to sleep, or woken), at a step of
 * that one thing breaks, and then one running copy, one set of books, all files and all memory must be there, and nothing else. `--help` tells the
 * options. JSON at the end; exit code 1 where anything was violated.
 */
import { parseArgs } from 'node:util';
import { reasonOf } from '#errors';
import { openFaultScene } from '../test/support/fault-scene.ts';
import type { FaultScene } from '../test/support/fault-scene.ts';
import type { TestNode } from '../test/support/node.ts';
import { FAULTS } from '../test/support/fault-kinds.ts';
import type { Fault } from '../test/support/fault-kinds.ts';
import { STEPS, faultRound } from '../test/support/fault-round.ts';
import type { RoundPlan, RoundResult, Step } from '../test/support/fault-round.ts';
import { machine, quantile, versions } from './machine.ts';
import { openRandom } from './rebalance/random.ts';

const USAGE = `usage: npm run bench -- migration-faults [options]
  --seed N           of the first round; each further one has the next (default 1)
  --rounds N         (default 200)
  --only N           the one round of that seed
  --steps A,B        of ${STEPS.join(', ')} (default: all)
  --faults A,B       of ${FAULTS.join(', ')} (default: all)
  --log              what the node says that is wrong, after each round
`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '200' },
    only: { type: 'string' },
    steps: { type: 'string', default: STEPS.join(',') },
    faults: { type: 'string', default: FAULTS.join(',') },
    log: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

/** Steps that take long get their blow anywhere in them. */
const LONG_STEPS: ReadonlySet<Step> = new Set(['prepare', 'copy', 'prestart', 'suspend', 'wake', 'snapshot', 'clone']);
/** A clone of three takes seconds. */
const LONGEST_MS: Readonly<Partial<Record<Step, number>>> = { clone: 2_500 };
const LONG_MS = 500;
const SHORT_MS = 80;
/** Only what has a target has these. */
const OF_MOVES: ReadonlySet<Fault> = new Set(['kill target engine', 'kill target sandbox', 'cut target', 'cancel']);

const WITHOUT_TARGET: ReadonlySet<Step> = new Set(['suspend', 'wake', 'snapshot', 'clone']);

interface Pair {
  readonly step: Step;
  readonly fault: Fault;
}

function isSensible({ step, fault }: Pair): boolean {
  return !WITHOUT_TARGET.has(step) || !OF_MOVES.has(fault);
}

function chosen<T extends string>(known: readonly T[], text: string): readonly T[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !known.some((each) => each === name));
  if (unknown !== undefined) throw new Error(`"${unknown}" is none of: ${known.join(', ')}`);
  return known.filter((name) => names.includes(name));
}

/** Every pair once, in an order that has nothing to do with theirs, then again. */
function pairsOf(): readonly Pair[] {
  const faults = chosen(FAULTS, values.faults);
  const random = openRandom(1);
  return chosen(STEPS, values.steps)
    .flatMap((step) => faults.map((fault) => ({ step, fault })))
    .filter((pair) => isSensible(pair))
    .map((pair) => ({ pair, key: random.unit() }))
    .toSorted((one, other) => one.key - other.key)
    .map(({ pair }) => pair);
}

function planOf(pairs: readonly Pair[], seed: number): RoundPlan {
  const pair = pairs[seed % pairs.length];
  if (pair === undefined) throw new Error('no step has such a fault');
  const random = openRandom(seed);
  const delayMs = Math.round(random.between(0, LONGEST_MS[pair.step] ?? (LONG_STEPS.has(pair.step) ? LONG_MS : SHORT_MS)));
  // A cut that outlasts the probe's patience, sometimes.
  const lastsMs = Math.round(pair.fault.startsWith('cut') && random.unit() < 0.25 ? 13_000 : random.between(500, 3_000));
  return { ...pair, delayMs, lastsMs };
}

interface Row {
  rounds: number;
  moved: number;
  stayed: number;
  missed: number;
  violated: number;
}

function tableOf(results: readonly RoundResult[], key: (result: RoundResult) => string): Readonly<Record<string, Row>> {
  const rows: Record<string, Row> = {};
  for (const result of results) {
    const row = (rows[key(result)] ??= { rounds: 0, moved: 0, stayed: 0, missed: 0, violated: 0 });
    row.rounds += 1;
    row[result.outcome] += 1;
    if (result.violations.length > 0) row.violated += 1;
  }
  return rows;
}

function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

type Result = RoundResult & { readonly seed: number };

/** Told as they come; what the node said that is wrong is told beside what was violated. */
class Teller {
  readonly #scene: FaultScene;
  #node: TestNode;
  #toldTo = 0;

  constructor(scene: FaultScene) {
    this.#scene = scene;
    this.#node = scene.node();
  }

  told({ seed, step, fault, delayMs, ...result }: Result): void {
    const what = `${fault} ${String(delayMs)} ms into ${step}`;
    note(
      `${String(seed)}: ${what}: ${result.outcome}, in order after ${String(result.settledMs)} ms (${result.said.slice(0, 200)})`,
    );
    for (const violation of result.violations) note(`   VIOLATED: ${violation}`);
    this.nodeSaid(values.log || result.violations.length > 0);
  }

  nodeSaid(isWanted: boolean): void {
    if (this.#node !== this.#scene.node()) [this.#node, this.#toldTo] = [this.#scene.node(), 0];
    const text = this.#node.output();
    const lines = text.slice(this.#toldTo).split('\n');
    this.#toldTo = text.length;
    if (isWanted) for (const line of lines) if (/"level":[456]0|^ecluse: /.test(line)) note(`   ${line.slice(0, 400)}`);
  }
}

function reportOf(results: readonly Result[], failure: string | undefined): object {
  const settled = results.map(({ settledMs }) => settledMs);
  return {
    bench: 'migration-faults',
    argv: process.argv.slice(2),
    machine: machine(),
    versions: versions(),
    rounds: results.length,
    settledMs: { p50: quantile(settled, 0.5), p99: quantile(settled, 0.99), worst: Math.max(...settled) },
    byFault: tableOf(results, ({ fault }) => fault),
    byStep: tableOf(results, ({ step }) => step),
    byPair: tableOf(results, ({ step, fault }) => `${step}: ${fault}`),
    violated: results.filter(({ violations }) => violations.length > 0),
    ...(failure === undefined ? {} : { brokeOff: failure }),
  };
}

async function run(): Promise<void> {
  const first = Number(values.only ?? values.seed);
  const rounds = values.only === undefined ? Number(values.rounds) : 1;
  const pairs = pairsOf();
  const results: Result[] = [];
  let failure: string | undefined;
  await using scene = await openFaultScene();
  const teller = new Teller(scene);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      note('-- the last round; then all is taken away');
      stop.abort();
    });
  }
  for (let seed = first; seed < first + rounds && failure === undefined && !stop.signal.aborted; seed += 1) {
    const plan = planOf(pairs, seed);
    try {
      const result = { seed, ...(await faultRound(scene, plan)) };
      results.push(result);
      teller.told(result);
    } catch (error) {
      failure = `seed ${String(seed)}, ${plan.fault} in ${plan.step}: ${reasonOf(error)}`;
      note(failure);
      teller.nodeSaid(true);
    }
  }
  process.stdout.write(`${JSON.stringify(reportOf(results, failure), undefined, 1)}\n`);
  if (failure !== undefined || results.some(({ violations }) => violations.length > 0)) process.exitCode = 1;
}

if (values.help) process.stdout.write(USAGE);
else await run();
