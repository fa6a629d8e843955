/**
 * What does our HTTP/1.1 data plane cost beside its peers?
 *
 * The proxy under test runs alone on core 0; origin and load generator share core 1. Rounds alternate between the peers, figures are medians. What
 * is compared is the proxy's CPU per request (exact, from the scheduler), counted by the origin in a window inside the load: a rate would measure
 * the load's core as well. `--help` tells the options.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { machine } from './machine.ts';
import { CASES } from './proxy/cases.ts';
import type { Case } from './proxy/cases.ts';
import { installNodePeers, installPrograms, isInstalled, note, programVersions } from './proxy/install.ts';
import { NODE_PEER_NAMES, PEER_NAMES, PEER_PROGRAMS } from './proxy/peers.ts';
import type { PeerName } from './proxy/peers.ts';
import { profileTable } from './proxy/profile.ts';
import { tableOf } from './proxy/report.ts';
import type { Row } from './proxy/report.ts';
import { runCases, runProfile } from './proxy/scene.ts';
import type { SceneSettings } from './proxy/scene.ts';
import { openFilesMax } from './proxy/stage.ts';

const USAGE = `usage: npm run bench -- proxy [options]
  --cases A,B        of: ${CASES.map(({ name }) => name).join(', ')} (default: all)
  --peers A,B        of: ${PEER_NAMES.join(', ')} (default: all but the last two, which write no access log)
  --rounds N         rounds per case (default 5)
  --seconds N        measured seconds per round (default 4)
  --hosts N          hosts in the routes of Écluse, nginx and HAProxy (default 100000)
  --workers N        workers or threads of each (default 1; 2 share the cores with origin and load)
  --connections N    connections of the load (default 64)
  --rate N           requests a second of the latency case (default: 70 % of nginx's peak)
  --growth           the case small over hosts, connections and workers, instead of the cases
  --json FILE        writes the whole result there; without it, to stdout after the table
  --profile CASE     Écluse alone with V8's profiler: the functions with the most self time
`;
const PROGRAMS_OF_LOAD = ['nginx', 'wrk', 'h2load', 'openssl'];
const PROFILE_ROWS = 40;
/** More connections at once than one endpoint gets from a worker of ours: the app has several. */
const MANY_CONNECTIONS = 1000;
const ENDPOINTS_OF_MANY = 16;
const CONNECTIONS_MAX = 10_000;
/** Left for logs, listeners, and connections of the peer's warm-up that still close. */
const FILES_SPARE = 2_000;

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: CASES.map(({ name }) => name).join(',') },
    peers: { type: 'string', default: PEER_NAMES.filter((name) => !name.endsWith('-nolog')).join(',') },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '4' },
    hosts: { type: 'string', default: '100000' },
    workers: { type: 'string', default: '1' },
    connections: { type: 'string', default: '64' },
    rate: { type: 'string' },
    growth: { type: 'boolean', default: false },
    json: { type: 'string' },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

function chosenCases(names: string): Case[] {
  return names.split(',').map((name) => {
    const found = CASES.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no case ${name}\n${USAGE}`);
    return found;
  });
}

/** The peers that were asked for and can be had. */
async function chosenPeers(names: string): Promise<PeerName[]> {
  const wanted = names.split(',').map((name) => {
    const found = PEER_NAMES.find((one) => one === name);
    if (found === undefined) throw new Error(`no peer ${name}\n${USAGE}`);
    return found;
  });
  await installPrograms([...new Set([...PROGRAMS_OF_LOAD, ...wanted.flatMap((name) => PEER_PROGRAMS[name])])]);
  for (const program of PROGRAMS_OF_LOAD) if (!(await isInstalled(program))) throw new Error(`no measurement without ${program}`);
  const nodePeers = wanted.some((name) => NODE_PEER_NAMES.has(name)) && (await installNodePeers());
  const had: PeerName[] = [];
  for (const name of wanted) {
    const programs = await Promise.all(PEER_PROGRAMS[name].map(isInstalled));
    if (programs.every(Boolean) && (nodePeers || !NODE_PEER_NAMES.has(name))) had.push(name);
    else note(`!! ${name} is left out: it could not be installed`);
  }
  return had;
}

function growthOf(settings: SceneSettings): SceneSettings[] {
  const base = { ...settings, cases: chosenCases('small') };
  const connections = [1, 64, MANY_CONNECTIONS, connectionsMax()];
  return [
    ...[1, 1_000, 100_000].map((hosts) => ({ ...base, hosts })),
    ...connections.map((count) => ({ ...base, connections: count, endpoints: endpointsFor(count) })),
    ...[1, 2].map((workers) => ({ ...base, workers })),
  ];
}

/** Each connection is two open files of the proxy; not every machine lets a process have 20 000. */
function connectionsMax(): number {
  return Math.min(CONNECTIONS_MAX, Math.floor((openFilesMax() - FILES_SPARE) / 2));
}

function endpointsFor(connections: number): number {
  return connections >= MANY_CONNECTIONS ? ENDPOINTS_OF_MANY : 1;
}

async function profile(settings: SceneSettings, name: string): Promise<void> {
  const [what] = chosenCases(name);
  if (what === undefined || what.kind === 'idle') throw new Error(`${name} cannot be profiled`);
  const { sample, functions } = await runProfile(settings, what);
  process.stdout.write(`${profileTable(functions, sample.operations, PROFILE_ROWS)}\n`);
}

async function compare(scenes: readonly SceneSettings[]): Promise<void> {
  const before = machine();
  const rows: Row[] = [];
  for (const scene of scenes) {
    note(`-- ${String(scene.hosts)} hosts, ${String(scene.connections)} connections, ${String(scene.workers)} workers`);
    rows.push(...(await runCases(scene)));
  }
  const result = { bench: 'proxy', argv: process.argv.slice(2), machine: before, versions: await programVersions(), rows };
  process.stdout.write(`${tableOf(rows)}\n`);
  if (values.json === undefined) process.stdout.write(`${JSON.stringify(result)}\n`);
  else await writeFile(values.json, `${JSON.stringify(result, undefined, 1)}\n`);
  if (rows.some(({ valid }) => !valid)) {
    note('!! some rows are invalid, see above');
    process.exitCode = 1;
  }
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
    process.exit(1);
  });
}

if (values.help) {
  process.stdout.write(USAGE);
} else {
  const connections = Math.min(Number(values.connections), connectionsMax());
  const settings: SceneSettings = {
    peers: await chosenPeers(values.profile === undefined ? values.peers : 'ecluse'),
    cases: chosenCases(values.cases),
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    hosts: Number(values.hosts),
    workers: Number(values.workers),
    connections,
    endpoints: endpointsFor(connections),
    rate: values.rate === undefined ? undefined : Number(values.rate),
  };
  if (values.profile === undefined) await compare(values.growth ? growthOf(settings) : [settings]);
  else await profile(settings, values.profile);
}
