/**
 * What does a TLS handshake cost beside nginx and HAProxy, and is a session resumed by whichever worker it comes to?
 *
 * The proxy under test runs alone on core 0 (four workers share both cores with the load), the load on core 1: by h2load where a rate is asked for, by Node's client
 * elsewhere, which is slower than any of the proxies and so does not measure itself: what is compared is the proxy's CPU for each handshake. All have one ECDSA
 * P-256 certificate, whose name clients say. Rounds alternate between the proxies, figures are medians.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { machine, quantile } from './machine.ts';
import { installPrograms, note, programVersions } from './proxy/install.ts';
import { BENCH_HOST, hostNames } from './proxy/configs.ts';
import { startOrigin } from './proxy/origin.ts';
import type { Origin } from './proxy/origin.ts';
import { makeCertificateFiles, startPeer } from './proxy/peers.ts';
import type { Peer, PeerName } from './proxy/peers.ts';
import { LOAD_CORE, Stage } from './proxy/stage.ts';
import { usageOf } from './proxy/usage.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '4' },
    peers: { type: 'string', default: 'ecluse,nginx,haproxy' },
    cases: { type: 'string', default: '' },
    workers: { type: 'string', default: '4' },
    json: { type: 'string' },
  },
});

interface Case {
  readonly name: string;
  /** Workers or threads; undefined: what `--workers` says. */
  readonly workers: number | undefined;
  readonly version: 'TLSv1.2' | 'TLSv1.3';
  readonly resumes: boolean;
  readonly asks: boolean;
  /** The client knows the key exchange that quantum computers do not break, as browsers do; who does not know it uses X25519, as all do in the other cases. */
  readonly postQuantum?: true;
  /** By h2load, which opens connections at this rate. */
  readonly perSecond?: number;
}

/** More than any of them can do. */
const TOO_MANY = 4_500;
const CASES: readonly Case[] = [
  { name: 'full', workers: 1, version: 'TLSv1.3', resumes: false, asks: false },
  { name: 'full-request', workers: 1, version: 'TLSv1.3', resumes: false, asks: true },
  { name: 'full-post-quantum', workers: 1, version: 'TLSv1.3', resumes: false, asks: true, postQuantum: true },
  { name: 'full-1.2', workers: 1, version: 'TLSv1.2', resumes: false, asks: false },
  { name: 'resumed', workers: 1, version: 'TLSv1.3', resumes: true, asks: false },
  { name: 'resumed-1.2', workers: 1, version: 'TLSv1.2', resumes: true, asks: false },
  { name: 'peak', workers: 1, version: 'TLSv1.3', resumes: false, asks: true, perSecond: TOO_MANY },
  { name: 'resumed-workers', workers: undefined, version: 'TLSv1.3', resumes: true, asks: false },
  { name: 'resumed-workers-1.2', workers: undefined, version: 'TLSv1.2', resumes: true, asks: false },
];
const LANES = 8;

interface Sample {
  readonly handshakes: number;
  readonly perSecond: number;
  readonly cpuUs: number;
  /** Of the proxy's core. */
  readonly utilisation: number;
  /** Of the sessions that clients offered. */
  readonly resumedShare: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const CLIENT = z.object({
  count: z.int(),
  offered: z.int(),
  resumed: z.int(),
  p50Ms: z.number().nullable(),
  p99Ms: z.number().nullable(),
  errors: z.array(z.string()),
});

async function byNode(stage: Stage, peer: Peer, what: Case, seconds: number): Promise<Sample> {
  const { version, resumes, asks, postQuantum } = what;
  // P-256 as well: by TLS 1.2 that is said of certificates, too.
  const groups = postQuantum === true ? 'X25519MLKEM768:X25519:P-256' : 'X25519:P-256';
  const spec = { port: peer.httpsPort, host: BENCH_HOST, seconds, lanes: LANES, version, groups, resumes, asks };
  const program = join(import.meta.dirname, 'handshakes', 'programs', 'client.ts');
  const before = usageOf(peer.pids());
  const said = await stage.run({ core: LOAD_CORE, argv: [process.execPath, program, JSON.stringify(spec)] });
  const after = usageOf(peer.pids());
  const { count, offered, resumed, p50Ms, p99Ms, errors } = CLIENT.parse(JSON.parse(said));
  if (errors.length > 0) throw new Error(`${peer.name}: ${errors.join('; ')}`);
  const cpu = after.exactUs - before.exactUs;
  return {
    handshakes: count,
    perSecond: count / seconds,
    cpuUs: cpu / count,
    utilisation: cpu / 1e6 / seconds,
    resumedShare: offered === 0 ? 0 : resumed / offered,
    p50Ms: p50Ms ?? Number.NaN,
    p99Ms: p99Ms ?? Number.NaN,
  };
}

async function byH2load(stage: Stage, peer: Peer, rate: number, seconds: number): Promise<Sample> {
  const count = Math.round(rate * seconds);
  const how = ['--h1', '-t1', '-n', String(count), '-c', String(count), '-r', String(rate / 100), '--rate-period=10ms'];
  const to = [`--connect-to=127.0.0.1:${String(peer.httpsPort)}`, '-H', 'connection: close', `https://${BENCH_HOST}/`];
  const before = usageOf(peer.pids());
  const said = await stage.run({ core: LOAD_CORE, argv: ['h2load', ...how, ...to] });
  const after = usageOf(peer.pids());
  const done = Number(/(\d+) succeeded/.exec(said)?.[1]);
  const perSecond = Number(/([\d.]+) req\/s/.exec(said)?.[1]);
  if (done !== count) throw new Error(`${peer.name}: ${String(done)} of ${String(count)}: ${said.slice(0, 500)}`);
  const cpu = after.exactUs - before.exactUs;
  const none = { resumedShare: 0, p50Ms: Number.NaN, p99Ms: Number.NaN };
  return { handshakes: done, perSecond, cpuUs: cpu / done, utilisation: (cpu / 1e6 / done) * perSecond, ...none };
}

async function measure(stage: Stage, peer: Peer, what: Case, seconds: number): Promise<Sample> {
  const sample =
    what.perSecond === undefined
      ? await byNode(stage, peer, what, seconds)
      : await byH2load(stage, peer, what.perSecond, seconds / 2);
  await sleep(200); // What is left of its connections.
  return sample;
}

function medianOf(samples: readonly Sample[]): Sample {
  const middle = (field: (sample: Sample) => number): number => quantile(samples.map(field), 0.5);
  return {
    handshakes: middle((sample) => sample.handshakes),
    perSecond: middle((sample) => sample.perSecond),
    cpuUs: middle((sample) => sample.cpuUs),
    utilisation: middle((sample) => sample.utilisation),
    resumedShare: middle((sample) => sample.resumedShare),
    p50Ms: middle((sample) => sample.p50Ms),
    p99Ms: middle((sample) => sample.p99Ms),
  };
}

interface Row {
  readonly case: string;
  readonly peer: PeerName;
  readonly workers: number;
  readonly median: Sample;
  readonly samples: readonly Sample[];
}

async function scene(origin: Origin, stage: Stage, workers: number, cases: readonly Case[]): Promise<Row[]> {
  const around = {
    ...(await makeCertificateFiles(stage)),
    hosts: hostNames(1000),
    workers,
    endpointPorts: origin.ports.slice(0, 1),
    websocketPort: origin.websocketPort,
    inspect: false,
    tls12: true,
  };
  const names = values.peers.split(',').map((name) => z.enum(['ecluse', 'nginx', 'haproxy']).parse(name));
  const peers: Peer[] = [];
  for (const name of names) peers.push(await startPeer(stage, name, around));
  const rows: Row[] = [];
  for (const what of cases) {
    const samples = new Map<PeerName, Sample[]>(peers.map(({ name }) => [name, []]));
    for (const peer of peers) await measure(stage, peer, what, 1);
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const peer of peers) samples.get(peer.name)?.push(await measure(stage, peer, what, Number(values.seconds)));
    }
    for (const [peer, list] of samples) rows.push({ case: what.name, peer, workers, median: medianOf(list), samples: list });
    for (const row of rows.filter((one) => one.case === what.name)) note(lineOf(row));
  }
  return rows;
}

function lineOf({ case: name, peer, workers, median }: Row): string {
  const { cpuUs, perSecond, utilisation, resumedShare, p50Ms, p99Ms } = median;
  const parts = [
    name.padEnd(20),
    peer.padEnd(8),
    String(workers),
    `${cpuUs.toFixed(0)} µs`,
    `${perSecond.toFixed(0)}/s`,
    `${(100 * utilisation).toFixed(0)} %`,
    `resumed ${(100 * resumedShare).toFixed(1)} %`,
    ...(Number.isNaN(p50Ms) ? ['–', '–'] : [`p50 ${p50Ms.toFixed(2)} ms`, `p99 ${p99Ms.toFixed(2)} ms`]),
  ];
  return `| ${parts.join(' | ')} |`;
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
    process.exit(1);
  });
}

await installPrograms(['nginx', 'haproxy', 'h2load', 'openssl']);
const before = machine();
const chosen = CASES.filter(({ name }) => values.cases === '' || values.cases.split(',').includes(name));
const rows: Row[] = [];
for (const workers of new Set(chosen.map((what) => what.workers))) {
  await using stage = await Stage.open();
  const cases = chosen.filter((what) => what.workers === workers);
  rows.push(...(await scene(await startOrigin(stage), stage, workers ?? Number(values.workers), cases)));
}
const result = { bench: 'handshakes', argv: process.argv.slice(2), machine: before, versions: await programVersions(), rows };
if (values.json === undefined) process.stdout.write(`${JSON.stringify(result)}\n`);
else await writeFile(values.json, `${JSON.stringify(result, undefined, 1)}\n`);
