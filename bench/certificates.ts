/**
 * What do ten and a hundred thousand certificates cost: time until all workers serve, memory of each process, and a handshake for a name that nobody asked for
 * before, and for one that was?
 *
 * A whole node of ours (two workers, one managed engine with nothing in it), nginx with a server block for each certificate, nginx that loads them by the name
 * that a handshake says, and HAProxy with a directory of them, two workers or threads each. Certificates are as public CAs give them (ECDSA P-256, leaf of 900
 * bytes, one intermediate of four). Memory is Pss: pages that processes share are counted once. `--sizes 10000,100000`, `--peers A,B`, `--blocks-max N`: the most
 * server blocks that nginx is given, `--names N`: names that are asked for, `--json FILE`.
 */
import { readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { parseArgs } from 'node:util';
import { freePort, freshDataDir, startNode } from '../test/support/node.ts';
import { fillDataDir } from './certificates/data-dir.ts';
import { makeAuthority, makeLeaf } from './certificates/leaf.ts';
import type { Authority, Leaf } from './certificates/leaf.ts';
import { machine, quantile } from './machine.ts';
import { installPrograms, note, programVersions } from './proxy/install.ts';
import { Stage } from './proxy/stage.ts';
import { treeOf } from './proxy/usage.ts';

const PEERS = ['ecluse', 'nginx-lazy', 'nginx-blocks', 'haproxy'] as const;
type PeerName = (typeof PEERS)[number];

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '10000,100000' },
    peers: { type: 'string', default: PEERS.join(',') },
    'blocks-max': { type: 'string', default: '10000' },
    names: { type: 'string', default: '500' },
    json: { type: 'string' },
  },
});
const CORES = '0,1';
const WORKERS = 2;
const START_LIMIT_MS = 600_000;
/** What a start leaves behind is let go, or is not. */
const SETTLE_MS = 6_000;
const AUTHORITIES = 4;
/** So often that every worker has been asked for it. */
const WARMING = 12;

interface Memory {
  readonly what: string;
  readonly pssMb: number;
  readonly rssMb: number;
}

interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Row {
  readonly peer: PeerName;
  readonly certificates: number;
  readonly startMs: number;
  readonly memory: readonly Memory[];
  readonly pssMb: number;
  readonly rssMb: number;
  readonly cold: Latency | undefined;
  readonly warm: Latency | undefined;
}

interface Running {
  readonly startMs: number;
  readonly port: number;
  readonly pid: number;
  readonly stop: () => Promise<void>;
}

/** The certificates of a size, with all that the peers read them from. */
interface Made {
  readonly directory: string;
  readonly hosts: readonly string[];
  readonly dataDir: string;
}

function hostOf(index: number): string {
  return `app-${String(index)}.customers.example`;
}

async function make(stage: Stage, count: number): Promise<Made> {
  const directory = stage.path(`certificates-${String(count)}`);
  await mkdir(directory, { recursive: true });
  const dataDir = await freshDataDir();
  const authorities = Array.from({ length: AUTHORITIES }, (_, index) => makeAuthority(index + 5));
  const byOf = new Map<string, Authority>();
  const leaves: Leaf[] = [];
  for (let index = 0; index < count; index += 1) {
    const by = authorities[index % AUTHORITIES];
    if (by === undefined) continue;
    const leaf = makeLeaf(hostOf(index), by);
    leaves.push(leaf);
    byOf.set(leaf.host, by);
  }
  const chainOf = ({ host }: Leaf): string => byOf.get(host)?.certPem ?? '';
  for (const leaf of leaves) {
    await writeFile(join(directory, `${leaf.host}.pem`), `${leaf.certPem}${chainOf(leaf)}${leaf.keyPem}`, { mode: 0o600 });
  }
  await fillDataDir(dataDir, leaves, chainOf);
  return { directory, hosts: leaves.map(({ host }) => host), dataDir };
}

async function handshakeMs(port: number, servername: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const startMs = performance.now();
  const socket = connect({ host: '127.0.0.1', port, servername, rejectUnauthorized: false });
  socket.on('error', reject);
  socket.on('secureConnect', () => {
    const tookMs = performance.now() - startMs;
    const { subject } = socket.getPeerCertificate();
    socket.destroy();
    if (subject.CN === servername) resolve(tookMs);
    else reject(new Error(`${servername} was answered by ${String(subject.CN)}`));
  });
  return await promise;
}

async function untilServes(port: number, name: string, isRunning: () => boolean, said: () => string): Promise<void> {
  const endMs = performance.now() + START_LIMIT_MS;
  for (;;) {
    try {
      await handshakeMs(port, name);
      return;
    } catch {
      if (!isRunning() || performance.now() > endMs) throw new Error(`it does not serve: ${said().slice(-1000)}`);
      await sleep(20);
    }
  }
}

async function startEcluse({ dataDir }: Pick<Made, 'dataDir'>): Promise<Running> {
  const startMs = performance.now();
  const node = await startNode({ dataDir, hosts: ['a'], config: { workers: WORKERS } });
  // A run that is broken off leaves no node: its supervisor ends with it, and its engine with that.
  process.once('exit', () => node.process.kill());
  return {
    startMs: performance.now() - startMs,
    port: node.ports.https,
    pid: node.process.pid ?? 0,
    stop: async () => {
      await node.stop();
    },
  };
}

function nginxConfig(directory: string, port: number, servers: string): string {
  return `daemon off; user root; worker_processes ${String(WORKERS)}; pid ${directory}/nginx.pid; error_log ${directory}/nginx.err error;
events { worker_connections 4096; }
http {
  access_log off; server_names_hash_max_size 1048576; server_names_hash_bucket_size 128;
  ssl_session_cache shared:SSL:10m; ssl_protocols TLSv1.2 TLSv1.3;
${servers.replaceAll('PORT', String(port))}
}
`;
}

async function startChild(stage: Stage, argv: readonly string[], port: number, name: string): Promise<Running> {
  const startMs = performance.now();
  const child = stage.start({ core: CORES, argv });
  await untilServes(port, name, child.running, child.err);
  return { startMs: performance.now() - startMs, port, pid: child.pid, stop: child.stop };
}

async function start(stage: Stage, peer: PeerName, made: Made): Promise<Running> {
  if (peer === 'ecluse') return await startEcluse(made);
  const { directory, hosts } = made;
  const [first = '', last = ''] = [hosts[0], hosts.at(-1)];
  const port = await freePort();
  const file = stage.path(`${peer}.conf`);
  if (peer === 'haproxy') {
    const bind = `bind 127.0.0.1:${String(port)} ssl crt ${directory}/ alpn http/1.1`;
    const text = `global\n  nbthread ${String(WORKERS)}\ndefaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\nfrontend f\n  ${bind}\n  http-request return status 200\n`;
    await writeFile(file, text);
    return await startChild(stage, ['haproxy', '-db', '-f', file], port, last);
  }
  const served = (name: string, pem: string): string =>
    `  server { listen 127.0.0.1:PORT ssl; server_name ${name}; ssl_certificate ${directory}/${pem}.pem; ssl_certificate_key ${directory}/${pem}.pem; return 204; }`;
  const servers = peer === 'nginx-lazy' ? served('_', '$ssl_server_name') : hosts.map((host) => served(host, host)).join('\n');
  await writeFile(file, nginxConfig(stage.directory, port, servers));
  return await startChild(
    stage,
    ['nginx', '-e', stage.path('start.err'), '-c', file],
    port,
    peer === 'nginx-lazy' ? first : last,
  );
}

/** Of processes that are ours to count: a node's engine is not. */
function memoryOf(pid: number): readonly Memory[] {
  return treeOf(pid).flatMap((one) => {
    try {
      const command = readFileSync(`/proc/${String(one)}/cmdline`, 'utf8')
        .split('\0')
        .join(' ');
      const kind = /src\/(main|worker|node-certificate-reading)\.ts/.exec(command)?.[1] ?? /(nginx|haproxy)/.exec(command)?.[1];
      const text = readFileSync(`/proc/${String(one)}/smaps_rollup`, 'utf8');
      const mb = (name: string): number => (Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1]) * 1024) / 1e6;
      return kind === undefined ? [] : [{ what: kind, pssMb: mb('Pss'), rssMb: mb('Rss') }];
    } catch {
      return []; // It ended just now.
    }
  });
}

async function latencies(port: number, names: readonly string[], times: number): Promise<Latency> {
  const all: number[] = [];
  for (const name of names) for (let time = 0; time < times; time += 1) all.push(await handshakeMs(port, name));
  return { p50Ms: quantile(all, 0.5), p99Ms: quantile(all, 0.99) };
}

async function measure(stage: Stage, peer: PeerName, made: Made): Promise<Row> {
  const running = await start(stage, peer, made);
  try {
    await sleep(SETTLE_MS);
    const memory = memoryOf(running.pid);
    const { hosts } = made;
    const count = Math.min(hosts.length, Number(values.names));
    // Spread over all, and none of those that a start was looked at by.
    const names = Array.from({ length: count }, (_, index) => hosts[1 + Math.floor((index * (hosts.length - 2)) / count)] ?? '');
    const cold = count === 0 ? undefined : await latencies(running.port, names, 1);
    const few = names.slice(0, Math.ceil(count / WARMING));
    if (count > 0) await latencies(running.port, few, WARMING);
    const warm = count === 0 ? undefined : await latencies(running.port, few, WARMING);
    const sum = (field: (one: Memory) => number): number => memory.reduce((total, one) => total + field(one), 0);
    return {
      peer,
      certificates: hosts.length,
      startMs: running.startMs,
      memory,
      pssMb: sum(({ pssMb }) => pssMb),
      rssMb: sum(({ rssMb }) => rssMb),
      cold,
      warm,
    };
  } finally {
    await running.stop();
  }
}

function latencyText(one: Latency | undefined): string {
  return one === undefined ? '–' : `${one.p50Ms.toFixed(1)} · ${one.p99Ms.toFixed(1)}`;
}

function lineOf({ peer, certificates, startMs, memory, pssMb, rssMb, cold, warm }: Row): string {
  const each = memory.map((one) => `${one.what} ${one.pssMb.toFixed(0)}`).join(', ');
  const cells = [
    peer,
    String(certificates),
    (startMs / 1000).toFixed(1),
    pssMb.toFixed(0),
    rssMb.toFixed(0),
    each,
    latencyText(cold),
    latencyText(warm),
  ];
  return `| ${cells.join(' | ')} |`;
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
    process.exit(1);
  });
}

await installPrograms(['nginx', 'haproxy']);
const before = machine();
const rows: Row[] = [];
await using stage = await Stage.open();
const peers = PEERS.filter((name) => values.peers.split(',').includes(name));

async function take(peer: PeerName, made: Made): Promise<void> {
  try {
    const row = await measure(stage, peer, made);
    rows.push(row);
    note(lineOf(row));
  } catch (error) {
    note(`!! ${peer} with ${String(made.hosts.length)} certificates: ${String(error)}`);
    process.exitCode = 1;
  }
}

if (peers.includes('ecluse')) {
  // What a node is without any; its second start, as the others are.
  const dataDir = await freshDataDir();
  await (await startEcluse({ dataDir })).stop();
  await take('ecluse', { directory: '', hosts: [], dataDir });
  await rm(dataDir, { recursive: true, force: true });
}
for (const size of values.sizes.split(',').map(Number)) {
  const made = await make(stage, size);
  note(`-- ${String(size)} certificates made`);
  if (peers.includes('ecluse')) await (await startEcluse(made)).stop();
  for (const peer of peers) if (peer !== 'nginx-blocks' || size <= Number(values['blocks-max'])) await take(peer, made);
  await rm(made.directory, { recursive: true, force: true });
  await rm(made.dataDir, { recursive: true, force: true });
}
const result = { bench: 'certificates', argv: process.argv.slice(2), machine: before, versions: await programVersions(), rows };
if (values.json === undefined) process.stdout.write(`${JSON.stringify(result)}\n`);
else await writeFile(values.json, `${JSON.stringify(result, undefined, 1)}\n`);
