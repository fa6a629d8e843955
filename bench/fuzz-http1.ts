/**
 * Does our HTTP/1.1 codec read what it takes as Node's own parser does, however the bytes come, and does what it writes say the same?
 *
 * Inputs by grammar and by mutation, from a seed (`fuzz/`). An input is an error where we throw or take a second for it; where a split of its bytes
 * gives another result; where Node's llhttp refuses or reads otherwise what we took, but for the list in `fuzz/compare.ts`; where a head that we write
 * does not say what the one said that came. `--minutes N` (default 10), `--seed N` (default: the time), `--json FILE`: the result there as well.
 * Exit code 1 if there is any.
 */
import { writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { JUSTIFIED } from './fuzz/compare.ts';
import { examine } from './fuzz/examine.ts';
import type { Fault, Verdict } from './fuzz/examine.ts';
import { generate } from './fuzz/grammar.ts';
import { PLAIN } from './fuzz/input.ts';
import type { Input } from './fuzz/input.ts';
import { TABLES, mutated } from './fuzz/mutate.ts';
import { createRandom } from './fuzz/random.ts';
import { shrink } from './fuzz/shrink.ts';
import { startWatchdog } from './fuzz/watchdog.ts';
import { machine, versions } from './machine.ts';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' }, json: { type: 'string' } },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Date.now() % 1_000_000_000);
const BATCH = 64;
/** Odd and large: inputs of neighbouring seeds are others. */
const SEED_STRIDE = 0x9e37_79b1;
const PROGRESS_MS = 60_000;
/** Of each kind of fault that many are made small and shown. */
const SHOWN_MAX = 3;

interface Finding {
  readonly kind: string;
  readonly detail: string;
  readonly input: Omit<Input, 'text'>;
  readonly text: string;
  readonly hex: string;
}

const watch = startWatchdog();
const counts = { inputs: 0, requests: 0, responses: 0, inputsAccepted: 0, messagesAccepted: 0, messagesCompared: 0, faults: 0 };
const justified = new Map<string, number>(JUSTIFIED.map(({ name }) => [name, 0]));
const kinds = new Map<string, number>();
const findings: Finding[] = [];

function inputAt(index: number): Input {
  const row = TABLES[index];
  if (row !== undefined) return { kind: row[0], context: PLAIN, text: row[1] };
  const random = createRandom(Math.imul(seed, SEED_STRIDE) + index);
  return random.once(2) ? generate(random) : mutated(random);
}

async function tryBatch(inputs: readonly Input[]): Promise<void> {
  const verdicts = await examine(inputs, ({ text }) => watch(text));
  for (const [index, verdict] of verdicts.entries()) {
    const input = inputs[index];
    if (input === undefined) continue;
    count(input, verdict);
    // oxlint-disable-next-line no-await-in-loop -- faults are rare and made small one by one
    for (const fault of verdict.faults) await note(input, fault);
  }
}

function count(input: Input, verdict: Verdict): void {
  counts.inputs += 1;
  counts[input.kind === 'request' ? 'requests' : 'responses'] += 1;
  if (verdict.accepted > 0) counts.inputsAccepted += 1;
  counts.messagesAccepted += verdict.accepted;
  counts.messagesCompared += verdict.compared;
  counts.faults += verdict.faults.length;
  for (const name of verdict.justified) justified.set(name, (justified.get(name) ?? 0) + 1);
}

async function note(input: Input, fault: Fault): Promise<void> {
  const seen = (kinds.get(fault.kind) ?? 0) + 1;
  kinds.set(fault.kind, seen);
  if (seen > SHOWN_MAX) return;
  const sameFault = async (smaller: Input): Promise<Fault | undefined> => {
    const [verdict] = await examine([smaller], ({ text }) => watch(text));
    return verdict?.faults.find(({ kind }) => kind === fault.kind);
  };
  const small = await shrink(input, async (smaller) => (await sameFault(smaller)) !== undefined);
  const { detail } = (await sameFault(small)) ?? fault;
  const { text, ...rest } = small;
  findings.push({
    kind: fault.kind,
    detail: detail.slice(0, 2000),
    input: rest,
    text,
    hex: Buffer.from(text, 'latin1').toString('hex'),
  });
  console.error(`fuzz-http1: ${fault.kind}: ${JSON.stringify(text.slice(0, 500))}: ${detail.slice(0, 500)}`);
}

function result(elapsedMs: number): object {
  return {
    bench: 'fuzz-http1',
    ...machine(),
    versions: { ...versions(), llhttp: process.versions['llhttp'] },
    seed,
    minutes: Math.round((elapsedMs / 60_000) * 100) / 100,
    ...counts,
    inputsPerSecond: Math.round(counts.inputs / (elapsedMs / 1000)),
    justified: JUSTIFIED.map(({ name, reason }) => ({ name, reason, count: justified.get(name) ?? 0 })),
    kinds: Object.fromEntries(kinds),
    disagreements: findings,
  };
}

process.on('uncaughtException', (error) => {
  console.error(`fuzz-http1: crashed behind input ${counts.inputs} of seed ${seed}`, error);
  // oxlint-disable-next-line unicorn/no-process-exit -- nothing can go on
  process.exit(1);
});

const startedMs = performance.now();
let saidMs = startedMs;
for (let now = startedMs; now - startedMs < minutes * 60_000; now = performance.now()) {
  // oxlint-disable-next-line no-await-in-loop -- one batch at a time keeps memory bounded
  await tryBatch(Array.from({ length: BATCH }, (_, index) => inputAt(counts.inputs + index)));
  if (now - saidMs < PROGRESS_MS) continue;
  saidMs = now;
  console.error(`fuzz-http1: ${counts.inputs} inputs, ${counts.faults} faults`);
}
const text = JSON.stringify(result(performance.now() - startedMs));
if (values.json !== undefined) writeFileSync(values.json, `${text}\n`);
console.log(text);
process.exitCode = counts.faults > 0 ? 1 : 0;
