/**
 * Is what is billed still what was used when things break?
 *
 * Seeded rounds on one node with a container under load: at a random moment the node, the engine, the sandbox or the disk breaks, and when all runs again
 * the books are held against the kernel's own counters: each interval follows the one before, none is negative, the cursor is the counter of the cgroup, what
 * the rows of an incarnation add up to is how far its cursor went, and the chain fits. At the end the node is killed and started three times more, which
 * may change no row, and what all were billed is no more than what the machine counted.
 *
 * `--seed N` (1), `--rounds N` (200), `--faults A,B`. JSON at the end; exit code 1 where anything was violated.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { booksOf } from '../test/support/fault-checks.ts';
import { strike } from '../test/support/fault-kinds.ts';
import type { Fault } from '../test/support/fault-kinds.ts';
import { TENANT, openFaultScene, placeOf } from '../test/support/fault-scene.ts';
import type { FaultScene, Place } from '../test/support/fault-scene.ts';
import { machine, versions } from './machine.ts';
import { openRandom } from './rebalance/random.ts';

const FAULTS: readonly Fault[] = ['kill node', 'stop node', 'kill source engine', 'kill source sandbox', 'full disk'];

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '200' },
    faults: { type: 'string', default: FAULTS.join(',') },
  },
});

const WAIT_MS = 3_000;
const LASTS_MS = 1_500;
const SETTLED_LIMIT_MS = 60_000;
const REPLAYS = 3;
const VERIFIED_EACH = 10;

const sumSchema = z.object({ cpu: z.number(), rows: z.number(), negative: z.number() });
const cursorSchema = z.object({ incarnation: z.number(), cgroup: z.string(), cpu_ns: z.number(), seq: z.number() });
type Cursor = z.infer<typeof cursorSchema>;

function cursorOf(scene: FaultScene, { id }: Place): Cursor {
  const [row] = scene.query(
    `SELECT incarnation, cgroup, cpu_ns, seq FROM incarnation WHERE container = '${id}' ORDER BY incarnation DESC LIMIT 1`,
  );
  return cursorSchema.parse(row);
}

function sumOf(scene: FaultScene, where: string): z.infer<typeof sumSchema> {
  const [row] = scene.query(
    `SELECT COALESCE(SUM(cpu_ns), 0) AS cpu, COUNT(*) AS rows,
       COALESCE(SUM(cpu_ns < 0 OR memory_byte_ms < 0 OR to_ms < from_ms OR requests < 0 OR egress_bytes < 0), 0) AS negative FROM ledger WHERE ${where}`,
  );
  return sumSchema.parse(row);
}

function counterOf(cgroup: string): number {
  return Number(readFileSync(`/sys/fs/cgroup/cpuacct${cgroup}/cpuacct.usage`, 'utf8'));
}

/** A line a violation; empty where all is well. `before`: the books of the round before. */
async function violationsOf(scene: FaultScene, before: Cursor | undefined): Promise<readonly string[]> {
  const place = placeOf(scene);
  const found = [...booksOf(scene, place)];
  const { cgroup } = cursorOf(scene, place);
  const leastNs = counterOf(cgroup);
  const flushed = await scene.node().ecluse('usage', '--json'); // Writes down what there is.
  if (flushed.exitCode !== 0) return [`usage: ${flushed.stderr.trim()}`];
  const after = cursorOf(scene, place);
  const mostNs = counterOf(cgroup);
  if (after.cpu_ns < leastNs || after.cpu_ns > mostNs)
    found.push(
      `the cursor is ${String(after.cpu_ns)}, the kernel counted ${String(leastNs)} before it was written and ${String(mostNs)} after`,
    );
  const own = `container = '${place.id}' AND kind = 'interval'`;
  if (before?.incarnation === after.incarnation) {
    const grown = sumOf(scene, `${own} AND incarnation = ${String(after.incarnation)} AND seq > ${String(before.seq)}`);
    if (grown.cpu !== after.cpu_ns - before.cpu_ns)
      found.push(`rows of ${String(grown.cpu)} ns, a cursor that went ${String(after.cpu_ns - before.cpu_ns)}`);
  }
  const { negative } = sumOf(scene, '1 = 1');
  if (negative > 0) found.push(`${String(negative)} rows are negative`);
  return found;
}

async function untilInOrder(scene: FaultScene, before: Cursor | undefined): Promise<readonly string[]> {
  const endMs = performance.now() + SETTLED_LIMIT_MS;
  for (;;) {
    const found = await attempt(scene, before);
    if (found.length === 0 || performance.now() > endMs) return found;
    await sleep(500);
  }
}

async function attempt(scene: FaultScene, before: Cursor | undefined): Promise<readonly string[]> {
  try {
    if ((await scene.load.ask()) === undefined) return ['the edge has no good answer'];
    return await violationsOf(scene, before);
  } catch (error) {
    return [String(error)];
  }
}

async function verified(scene: FaultScene): Promise<readonly string[]> {
  const { exitCode, stderr } = await scene.node().ecluse('ledger', 'verify');
  return exitCode === 0 ? [] : [`ledger verify: ${stderr.trim()}`];
}

const results: { readonly seed: number; readonly fault: Fault; readonly hit: boolean; readonly violations: readonly string[] }[] =
  [];
const atTheEnd: string[] = [];
let billedMs = 0;
let countedMs = 0;
let rows = 0;
let incarnations = 0;
{
  // The machine's own: cgroups of a node are made anew when it was stopped.
  const beganNs = counterOf('');
  await using scene = await openFaultScene();
  const faults = FAULTS.filter((fault) => values.faults.split(',').includes(fault));
  let before: Cursor | undefined;
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const seed = Number(values.seed) + round;
    const random = openRandom(seed);
    const fault = faults[Math.floor(random.unit() * faults.length)] ?? 'kill node';
    await sleep(random.unit() * WAIT_MS);
    const struck = await strike(scene, fault, { source: placeOf(scene).host, lastsMs: LASTS_MS });
    await struck.lift();
    scene.load.run(true);
    const violations = [...(await untilInOrder(scene, before)), ...(round % VERIFIED_EACH === 0 ? await verified(scene) : [])];
    before = cursorOf(scene, placeOf(scene));
    results.push({ seed, fault, hit: struck.hit, violations });
    process.stderr.write(
      `round ${String(round)}: ${fault}${struck.hit ? '' : ' (nothing to break)'}: ${violations.join('; ') || 'in order'}\n`,
    );
  }
  for (let replay = 0; replay < REPLAYS; replay += 1) {
    const { id } = placeOf(scene);
    const cursor = cursorOf(scene, placeOf(scene));
    const known = `container = '${id}' AND (incarnation < ${String(cursor.incarnation)} OR seq <= ${String(cursor.seq)})`;
    const sum = sumOf(scene, known);
    const struck = await strike(scene, 'kill node', { source: placeOf(scene).host, lastsMs: 0 });
    await struck.lift();
    atTheEnd.push(...(await untilInOrder(scene, cursor)));
    const again = sumOf(scene, known);
    if (again.cpu !== sum.cpu || again.rows !== sum.rows)
      atTheEnd.push(`replay ${String(replay)}: ${JSON.stringify(sum)} became ${JSON.stringify(again)}`);
  }
  atTheEnd.push(...(await verified(scene)));
  const all = sumOf(scene, `tenant = '${TENANT}'`);
  billedMs = all.cpu / 1e6;
  countedMs = (counterOf('') - beganNs) / 1e6;
  rows = all.rows;
  incarnations = cursorOf(scene, placeOf(scene)).incarnation;
  if (billedMs > countedMs) atTheEnd.push(`${String(billedMs)} ms were billed, ${String(countedMs)} used`);
}

const violated = results.filter(({ violations }) => violations.length > 0);
const byFault = Object.fromEntries(
  FAULTS.map((fault) => [fault, results.filter((one) => one.fault === fault && one.hit).length]),
);
process.stdout.write(
  `${JSON.stringify({ bench: 'metering-faults', argv: process.argv.slice(2), machine: machine(), versions: versions(), rounds: results.length, byFault, violations: violated.length + atTheEnd.length, violated, atTheEnd, rows, incarnations, billedMs, countedMs })}\n`,
);
process.exitCode = violated.length + atTheEnd.length > 0 ? 1 : 0;
