/**
 * Does a worker under full load keep what it should let go of?
 *
 * For N minutes, against one worker on core 0: answers of all sizes, uploads, TLS, WebSockets, events, pipelining, new connections, clients that go
 * in the middle, endpoints that die, slow clients, and another config every three seconds. Every ten seconds it is asked what it holds, garbage
 * collected. The verdict is the trend of the second half, what is left when the load is gone, and errors that nobody planned. Without growth and
 * errors it ends with 0. `--help` tells the options.
 */
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openFiles } from './endurance/kernel.ts';
import { SoakLoad } from './endurance/soak-load.ts';
import { takeLog } from './endurance/soak-log.ts';
import { handlesOf, returnTable, returnsOf, timersOf, trendTable, trendsOf } from './endurance/soak-report.ts';
import type { Rest, Sample } from './endurance/soak-report.ts';
import { SOAK_LIMITS, startSoakScene } from './endurance/soak-scene.ts';
import type { SoakScene } from './endurance/soak-scene.ts';
import { machine } from './machine.ts';
import { installPrograms, note, programVersions } from './proxy/install.ts';
import { Stage } from './proxy/stage.ts';
import { usageOf } from './proxy/usage.ts';

const USAGE = `usage: npm run bench -- soak [options]
  --minutes N        of full load (default 30); a trend needs 12 samples
  --sample N         seconds between samples (default 10)
  --json FILE        writes the whole result there; without it, to stdout after the tables
`;
/** Limits that end what clients left open, and connections to endpoints. */
const REST_MS = 25_000;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    sample: { type: 'string', default: '10' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

type Counts = Record<string, number>;

interface Watched {
  readonly samples: Sample[];
  readonly planned: Counts;
  readonly unexpected: Counts;
}

function add(to: Counts, more: Readonly<Counts>): void {
  for (const [what, count] of Object.entries(more)) to[what] = (to[what] ?? 0) + count;
}

async function restOf({ edge }: SoakScene): Promise<Rest> {
  await edge.holding('collected'); // What one collection frees is accounted for in the next.
  return { holding: await edge.holding('collected'), files: openFiles([edge.pid]) };
}

async function sampleOf(
  scene: SoakScene,
  load: SoakLoad,
  startMs: number,
  before: Sample | undefined,
): Promise<Sample & { usedUs: number }> {
  const { edge } = scene;
  const usedUs = usageOf([edge.pid]).exactUs;
  const atMs = performance.now() - startMs;
  const was = before !== undefined && 'usedUs' in before && typeof before.usedUs === 'number' ? before.usedUs : usedUs;
  const { requests } = await edge.status();
  return {
    atMs,
    holding: await edge.holding('collected'),
    files: openFiles([edge.pid]),
    requests,
    cores: (usedUs - was) / 1000 / (atMs - (before?.atMs ?? 0)),
    clientConnections: (await edge.metric('ecluse_downstream_connections', 'none'))[''] ?? 0,
    version: load.version,
    usedUs,
  };
}

async function watch(scene: SoakScene, load: SoakLoad): Promise<Watched> {
  const watched: Watched = { samples: [], planned: {}, unexpected: {} };
  const startMs = performance.now();
  while (!load.isOver()) {
    await sleep(Number(values.sample) * 1000);
    if (load.isOver()) break; // A sample without load is none.
    const sample = await sampleOf(scene, load, startMs, watched.samples.at(-1));
    watched.samples.push(sample);
    await countLog(scene, watched);
    const { faults } = await load.actors();
    const { holding, files, requests, cores } = sample;
    const memory = [holding.rss, holding.heapUsed, holding.external].map((bytes) => (bytes / 1024 ** 2).toFixed(0)).join(' / ');
    const counts = `${String(handlesOf(holding))} handles, ${String(timersOf(holding))} timers, ${String(files)} files`;
    const wrong = Object.entries({ ...faults, ...load.faults, ...watched.unexpected }).map(
      ([what, count]) => `${String(count)} × ${what}`,
    );
    note(
      `${(sample.atMs / 1000).toFixed(0)} s: ${String(requests)} requests, ${(100 * cores).toFixed(0)} % of a core, ${memory} MB, ${counts}; ${wrong.join('; ')}`,
    );
  }
  return watched;
}

async function countLog({ edge, logFile }: SoakScene, { planned, unexpected }: Watched): Promise<void> {
  const counts = await takeLog(edge, logFile);
  add(planned, counts.planned);
  add(unexpected, counts.unexpected);
}

async function run(): Promise<void> {
  await installPrograms(['nginx', 'wrk', 'openssl']);
  const on = machine();
  await using stage = await Stage.open();
  const scene = await startSoakScene(stage);
  const { edge } = scene;
  const before = await restOf(scene);
  const load = new SoakLoad(stage, scene, Number(values.minutes) * 60);
  const watched = await watch(scene, load);
  await load.end();
  note(`-- the load is over; ${String(REST_MS / 1000)} s of rest`);
  await sleep(REST_MS);
  const after = await restOf(scene);
  await countLog(scene, watched);
  const { pids, requests } = await edge.status();
  const dead = pids[0] === edge.pid ? {} : { 'the worker died': 1 };
  const said = edge.said() === '' ? {} : { [`the edge said: ${edge.said().slice(0, 1000)}`]: 1 };
  const errors: Counts = { ...load.faults, ...watched.unexpected, ...dead, ...said };
  const [trends, returns] = [trendsOf(watched.samples), returnsOf(before, after)];
  process.stdout.write(`${trendTable(trends)}\n\n${returnTable(returns)}\n\n`);
  process.stdout.write(`${String(requests)} requests, ${String(load.version)} config versions\n`);
  process.stdout.write(
    `planned, as the edge saw it: ${JSON.stringify(watched.planned)}\nunexpected: ${JSON.stringify(errors)}\n`,
  );
  const result = {
    bench: 'soak',
    argv: process.argv.slice(2),
    machine: on,
    versions: await programVersions(),
    limits: SOAK_LIMITS,
    requests,
  };
  const whole = {
    ...result,
    configVersions: load.version,
    done: load.done,
    planned: watched.planned,
    errors,
    trends,
    returns,
    before,
    after,
    samples: watched.samples,
  };
  if (values.json === undefined) process.stdout.write(`${JSON.stringify(whole)}\n`);
  else await writeFile(values.json, `${JSON.stringify(whole, undefined, 1)}\n`);
  const grows = trends.some(({ verdict }) => verdict === 'GROWS') || returns.some(({ returned }) => !returned);
  if (grows || Object.keys(errors).length > 0) process.exitCode = 1;
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
    process.exit(1);
  });
}
if (values.help) process.stdout.write(USAGE);
else await run();
