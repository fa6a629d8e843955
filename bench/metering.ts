/**
 * Is what is billed what was used, and what does it cost to know?
 *
 * A real node and containers in gVisor. Beside it readers that know nothing of the meter: of the kernel's counters when a container has ended and before it
 * is removed (`short`), and every 10 ms for as long as it lives (`long`). The ledger is read from the node's store. `cost`: CPU of the node's primary with
 * 100 containers that do nothing, and with none; and of the meter and the books alone over the same cgroups, in a process of their own. `moves`: one container that is moved to and fro: is there a gap, an overlap, a counter that falls?
 *
 * `--parts short,long,cost,moves`, `--short N` (default 1000), `--seconds N` of long lives (default 75), `--idle N` (100), `--moves N` (50), `--json FILE`.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import * as z from 'zod';
import { machine, quantile, versions } from './machine.ts';
import { StoredLedger } from './metering/ledger.ts';
import type { StoredRow } from './metering/ledger.ts';
import { MeteringScene } from './metering/scene.ts';
import type { ContainerPlan } from './metering/scene.ts';
import { openRandom } from './rebalance/random.ts';

const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'short,long,cost,moves' },
    short: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '75' },
    idle: { type: 'string', default: '100' },
    moves: { type: 'string', default: '50' },
    json: { type: 'string' },
  },
});

const LANES = 3;
const READ_PERIOD_MS = 10;
const SETTLE_MS = 3_000;
const LONG_MS = 60_000;
/** Until nothing is sampled often any more, and each disk was looked at for the first time. */
const YOUNG_MS = 45_000;
const COST_MS = 60_000;
const ALONE_ROUNDS = 3;
const CHANGING = 10;
const TICK_MS = 10;
/** What an instant's error is taken of: less was hardly used at all. */
const COUNTED_FROM_NS = 2_000_000_000;
/** A span with a start and an end is off by one sample at each; shorter lives are not asked for. */
const SHORTEST_MS = 500;

/** From a container's parent cgroup to its end, as the kernel has it after everything in it has ended. */
async function shortLives(scene: MeteringScene): Promise<Readonly<Record<string, unknown>>> {
  const random = openRandom(1);
  const count = Number(values.short);
  const off: { readonly id: string; readonly billedNs: number; readonly usedNs: number }[] = [];
  const livedMs: number[] = [];
  const usedMs: number[] = [];
  let begun = 0;
  const lane = async (): Promise<void> => {
    using ledger = new StoredLedger(scene.node.dataDir);
    while (begun < count) {
      begun += 1;
      const liveMs = Math.round(random.between(20, 500));
      const loops = Math.round(random.between(0, 3_000));
      const script = `i=0; while [ $i -lt ${String(loops)} ]; do i=$((i+1)); done; usleep ${String(liveMs * 1000)}`;
      const id = await scene.create({ script });
      await scene.start(id);
      await scene.wait(id);
      const [incarnation] = ledger.incarnations(id);
      if (incarnation === undefined) throw new Error(`${id} is in no incarnation`);
      const usedNs = await lastCounter(scene, incarnation.cgroup, scene.remove(id));
      const billedNs = ledger.rows(id).reduce((sum, { cpu_ns }) => sum + cpu_ns, 0);
      if (billedNs !== usedNs) off.push({ id, billedNs, usedNs });
      livedMs.push(liveMs);
      usedMs.push(usedNs / 1e6);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const lostNs = off.map(({ billedNs, usedNs }) => usedNs - billedNs);
  return {
    part: 'short',
    containers: livedMs.length,
    livedMs: { p50: quantile(livedMs, 0.5), least: Math.min(...livedMs), most: Math.max(...livedMs) },
    usedMs: { p50: quantile(usedMs, 0.5), sum: usedMs.reduce((sum, one) => sum + one, 0) },
    notExact: off.length,
    lostMs: {
      p50: quantile(lostNs, 0.5) / 1e6,
      most: Math.max(0, ...lostNs) / 1e6,
      sum: lostNs.reduce((a, b) => a + b, 0) / 1e6,
    },
    examples: off.slice(0, 5),
  };
}

/** The last that the kernel shows of a cgroup while its container is removed. */
async function lastCounter(scene: MeteringScene, cgroup: string, removing: Promise<void>): Promise<number> {
  let last: number | undefined;
  const state = { isRemoved: false };
  const removed = removing.finally(() => {
    state.isRemoved = true;
  });
  const watched = async (): Promise<void> => {
    last = (await scene.cpuNs(cgroup)) ?? last;
    await sleep(1);
    if (!state.isRemoved) await watched();
  };
  await Promise.all([removed, watched()]);
  if (last === undefined) throw new Error(`nobody saw ${cgroup}`);
  return last;
}

const sampleSchema = z.tuple([z.number(), z.number(), z.number()]);
type Sample = z.infer<typeof sampleSchema>;
/** By the container's id. */
const seenSchema = z.record(z.string(), z.array(sampleSchema));

interface Life {
  readonly what: string;
  readonly liveMs: number;
  readonly plan: ContainerPlan;
}

function fill(mib: number): string {
  return `dd if=/dev/zero of=/m/x bs=1048576 count=${String(mib)} 2>/dev/null`;
}

function lives(): readonly Life[] {
  const random = openRandom(2);
  const longMs = Number(values.seconds) * 1000;
  const wave = (halfMs: number): string =>
    `while :; do ${fill(64)}; usleep ${String(halfMs * 1000)}; rm /m/x; usleep ${String(halfMs * 1000)}; done`;
  const long: readonly Life[] = [
    { what: 'level', liveMs: longMs, plan: { script: `${fill(100)}; sleep 1000`, memoryMib: 128 } },
    { what: 'square wave of 6 s', liveMs: longMs, plan: { script: wave(3000), memoryMib: 128 } },
    { what: 'square wave of 1.4 s', liveMs: longMs, plan: { script: wave(700), memoryMib: 128 } },
    { what: 'square wave of 0.3 s', liveMs: longMs, plan: { script: wave(150), memoryMib: 128 } },
    {
      what: 'growing',
      liveMs: longMs,
      plan: {
        script: 'i=0; while :; do i=$((i+1)); dd if=/dev/zero of=/m/$i bs=1048576 count=1 2>/dev/null; sleep 1; done',
        memoryMib: 128,
      },
    },
    {
      what: 'busy',
      liveMs: longMs,
      plan: { script: 'while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; usleep 30000; done' },
    },
  ];
  const short = Array.from({ length: 18 }, (_, index): Life => {
    const liveMs = Math.round(random.between(1_000, 10_000));
    const scripts = [`${fill(60)}; sleep 1000`, wave(250), `usleep ${String(Math.round(liveMs * 400))}; ${fill(90)}; sleep 1000`];
    return {
      what: ['level', 'square wave of 0.5 s', 'a step'][index % 3] ?? '',
      liveMs,
      plan: { script: scripts[index % 3] ?? '', memoryMib: 128 },
    };
  });
  return [...long, ...short];
}

interface Measured {
  readonly what: string;
  readonly livedMs: number;
  readonly memoryError: number;
  readonly cpuErrorAtInstants: number;
  readonly instants: number;
  readonly cpuMs: number;
}

function worst(some: readonly Measured[], of: (one: Measured) => number): number {
  return Math.max(...some.map((one) => Math.abs(of(one))));
}

function isLong({ livedMs }: Measured): boolean {
  return livedMs >= LONG_MS;
}

async function longLives(scene: MeteringScene): Promise<Readonly<Record<string, unknown>>> {
  const plans = lives();
  const readings = join(scene.folder, 'readings.json');
  const program = join(import.meta.dirname, 'metering', 'programs', 'reader.ts');
  // The first container tells where they all are.
  const first = await scene.create({ script: 'true' });
  using ledger = new StoredLedger(scene.node.dataDir);
  const parent = dirname(ledger.incarnations(first)[0]?.cgroup ?? '');
  const reader = spawn(process.execPath, [program, String(READ_PERIOD_MS), readings, parent], { stdio: 'inherit' });
  await sleep(SETTLE_MS);
  const lived: Lived[] = [];
  const long = plans.filter(({ liveMs }) => liveMs >= LONG_MS);
  lived.push(...(await Promise.all(long.map(async (life) => await liveOne(scene, ledger, life)))));
  const short = plans.filter((life) => !long.includes(life));
  for (let at = 0; at < short.length; at += LANES)
    lived.push(...(await Promise.all(short.slice(at, at + LANES).map(async (life) => await liveOne(scene, ledger, life)))));
  reader.kill('SIGTERM');
  await once(reader, 'exit');
  const seen = seenSchema.parse(JSON.parse(await readFile(readings, 'utf8')));
  const measured = lived.map(({ what, id, rows }) => compare(what, rows, seen[id] ?? []));
  return {
    part: 'long',
    worstMemoryErrorFrom60s: worst(measured.filter(isLong), ({ memoryError }) => memoryError),
    worstMemoryErrorTo10s: worst(
      measured.filter((one) => !isLong(one)),
      ({ memoryError }) => memoryError,
    ),
    worstCpuErrorAtInstants: worst(
      measured.filter(({ instants }) => instants > 0),
      ({ cpuErrorAtInstants }) => cpuErrorAtInstants,
    ),
    instants: measured.reduce((sum, { instants }) => sum + instants, 0),
    measured,
  };
}

interface Lived {
  readonly what: string;
  readonly id: string;
  readonly rows: readonly StoredRow[];
}

async function liveOne(scene: MeteringScene, ledger: StoredLedger, { what, liveMs, plan }: Life): Promise<Lived> {
  const id = await scene.create(plan);
  await scene.start(id);
  await sleep(liveMs);
  await scene.call('POST', `/containers/${id}/kill`);
  await scene.wait(id);
  await scene.remove(id);
  return { what, id, rows: ledger.rows(id) };
}

/** Over the life that the ledger knows: before the first sample of the reader there was no cgroup, and so nothing in it. */
function compare(what: string, rows: readonly StoredRow[], samples: readonly Sample[]): Measured {
  const [first] = samples;
  const lastMs = rows.at(-1)?.to_ms ?? 0;
  const firstMs = rows[0]?.from_ms ?? 0;
  if (first === undefined || lastMs - firstMs < SHORTEST_MS) throw new Error(`nothing was seen of ${what}`);
  let used = 0;
  let [beforeMs, before] = [firstMs, 0];
  for (const [atMs, , bytes] of samples) {
    const untilMs = Math.min(Math.max(atMs, firstMs), lastMs);
    used += (untilMs - beforeMs) * before;
    [beforeMs, before] = [untilMs, bytes];
  }
  used += (lastMs - beforeMs) * before;
  const billed = rows.reduce((sum, { memory_byte_ms: byteMs }) => sum + byteMs, 0);
  let cpuNs = 0;
  const errors: number[] = [];
  for (const row of rows) {
    cpuNs += row.cpu_ns;
    const usedNs = counterAt(samples, row.to_ms);
    if (usedNs !== undefined && usedNs >= COUNTED_FROM_NS) errors.push(cpuNs / usedNs - 1);
  }
  return {
    what,
    livedMs: lastMs - firstMs,
    memoryError: billed / used - 1,
    cpuErrorAtInstants: errors.reduce((most, one) => (Math.abs(one) > Math.abs(most) ? one : most), 0),
    instants: errors.length,
    cpuMs: cpuNs / 1e6,
  };
}

/** Between two samples, as far as the moment lies between them; undefined: outside of what was seen. */
function counterAt(samples: readonly Sample[], atMs: number): number | undefined {
  const index = samples.findIndex(([ms]) => ms >= atMs);
  const [before, after] = [samples[index - 1], samples[index]];
  if (before === undefined || after === undefined) return undefined;
  const share = (atMs - before[0]) / Math.max(0.001, after[0] - before[0]);
  return before[1] + share * (after[1] - before[1]);
}

async function cost(scene: MeteringScene): Promise<Readonly<Record<string, unknown>>> {
  const asked = Number(values.idle);
  const without = await primaryCpuShare(scene);
  const ids: string[] = [];
  let begun = 0;
  const lane = async (): Promise<void> => {
    while (begun < asked) {
      begun += 1;
      const id = await scene.create({ script: 'sleep 100000', memoryMib: 16 });
      ids.push(id);
      await scene.start(id);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  await sleep(YOUNG_MS);
  const withThem = await primaryCpuShare(scene);
  const count = ids.length;
  const cgroups = cgroupsOf(scene, ids);
  if (cgroups.length !== ids.length) throw new Error(`${String(cgroups.length)} of ${String(ids.length)} containers are metered`);
  // In turns: the machine is not the same from minute to minute.
  const alone: { readonly none: MeterAlone; readonly all: MeterAlone }[] = [];
  for (let round = 0; round < ALONE_ROUNDS; round += 1)
    alone.push({ none: await meterAlone([]), all: await meterAlone(cgroups) });
  const removing = async (): Promise<void> => {
    for (let id = ids.pop(); id !== undefined; id = ids.pop()) await scene.remove(id);
  };
  await Promise.all(Array.from({ length: LANES }, removing));
  const changing = await costOfChange(scene);
  return {
    part: 'cost',
    containers: count,
    withoutPercent: 100 * without,
    withPercent: 100 * withThem,
    percentOfACoreFor100: ((100 * (withThem - without)) / count) * 100,
    meteringAlone: alone,
    meteringAlonePercentFor100:
      (100 *
        100 *
        quantile(
          alone.map(({ none, all }) => all.share - none.share),
          0.5,
        )) /
      count,
    changing,
  };
}

interface MeterAlone {
  readonly share: number;
  readonly rows: number;
}

function cgroupsOf(scene: MeteringScene, ids: readonly string[]): readonly string[] {
  using ledger = new StoredLedger(scene.node.dataDir);
  return ids.flatMap((id) => ledger.incarnations(id).map(({ cgroup }) => cgroup));
}

async function meterAlone(cgroups: readonly string[]): Promise<MeterAlone> {
  const program = fileURLToPath(new URL('metering/programs/meter-alone.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [program, String(YOUNG_MS), String(COST_MS / 2), ...cgroups]);
  const alone = z.object({ share: z.number(), rows: z.number(), metered: z.number() }).parse(JSON.parse(stdout));
  if (alone.metered !== cgroups.length)
    throw new Error(`${String(alone.metered)} of ${String(cgroups.length)} cgroups were read`);
  return alone;
}

/** What a container costs whose memory never stands still: it is looked at twenty times a second. */
async function costOfChange(scene: MeteringScene): Promise<Readonly<Record<string, unknown>>> {
  const script = `while :; do ${fill(8)}; usleep 200000; rm -f /m/*; usleep 200000; done`;
  const ids: string[] = [];
  for (let index = 0; index < CHANGING; index += 1) {
    const id = await scene.create({ script, memoryMib: 16 });
    ids.push(id);
    await scene.start(id);
  }
  const none = await meterAlone([]);
  const all = await meterAlone(cgroupsOf(scene, ids));
  for (const id of ids) await scene.remove(id);
  return { containers: CHANGING, none, all, percentOfACoreFor100: (100 * 100 * (all.share - none.share)) / CHANGING };
}

/** Of one core, over a minute: by utime and stime, all threads. */
async function primaryCpuShare({ node }: MeteringScene): Promise<number> {
  const ticks = async (): Promise<number> => {
    const stat = await readFile(`/proc/${String(node.process.pid)}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };
  const [before, startMs] = [await ticks(), performance.now()];
  await sleep(COST_MS);
  return (((await ticks()) - before) * TICK_MS) / (performance.now() - startMs);
}

/** Is what one container used of one piece, wherever it was? */
async function moves(scene: MeteringScene): Promise<Readonly<Record<string, unknown>>> {
  const count = Number(values.moves);
  using ledger = new StoredLedger(scene.node.dataDir);
  const id = await scene.create({
    script: `${fill(40)}; while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; usleep 20000; done`,
  });
  await scene.start(id);
  const counted: number[] = [];
  const failed: string[] = [];
  for (let round = 0; round < count; round += 1) {
    await sleep(1_000);
    const to = ledger.incarnations(id).at(-1)?.host === 'a' ? 'b' : 'a';
    const moved = await scene.node.ecluse('migrate', id, '--to', to);
    if (moved.exitCode !== 0) failed.push(moved.stderr.trim());
    await scene.node.ecluse('usage', '--json'); // Writes down what there is.
    counted.push(ledger.rows(id).reduce((sum, { cpu_ns: cpuNs }) => sum + cpuNs, 0));
  }
  await scene.remove(id);
  const rows = ledger.rows(id);
  const between = rows.slice(1).map((row, index) => row.from_ms - (rows[index]?.to_ms ?? 0));
  const lifeMs = (rows.at(-1)?.to_ms ?? 0) - (rows[0]?.from_ms ?? 0);
  return {
    part: 'moves',
    moves: ledger.incarnations(id).length - 1,
    failed,
    rows: rows.length,
    lifeMs,
    gaps: between.filter((ms) => ms > 0).length,
    overlaps: between.filter((ms) => ms < 0).length,
    coveredMs: rows.reduce((sum, row) => sum + row.to_ms - row.from_ms, 0),
    negative: rows.filter((row) => row.cpu_ns < 0 || row.to_ms < row.from_ms || row.memory_byte_ms < 0).length,
    fell: counted.slice(1).filter((one, index) => one < (counted[index] ?? 0)).length,
    billedMs: (counted.at(-1) ?? 0) / 1e6,
  };
}

const PARTS: Readonly<Record<string, (scene: MeteringScene) => Promise<Readonly<Record<string, unknown>>>>> = {
  short: shortLives,
  long: longLives,
  cost,
  moves,
};

const results: Readonly<Record<string, unknown>>[] = [];
for (const name of values.parts.split(',')) {
  const part = PARTS[name];
  if (part === undefined) throw new Error(`no part ${name}: it is one of ${Object.keys(PARTS).join(', ')}`);
  await using scene = await MeteringScene.open(name === 'moves' ? ['a', 'b'] : ['a']);
  const result = await part(scene).catch((error: unknown) => {
    console.error(error); // Before the clean-up, which may fail as well.
    throw error;
  });
  process.stderr.write(`${JSON.stringify(result)}\n`);
  results.push(result);
}
const whole = JSON.stringify({
  bench: 'metering',
  argv: process.argv.slice(2),
  machine: machine(),
  versions: versions(),
  results,
});
if (values.json === undefined) process.stdout.write(`${whole}\n`);
else await writeFile(values.json, whole);
