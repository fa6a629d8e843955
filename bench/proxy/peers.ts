/** Starts the proxies that are compared, each in its own process on the proxy's core. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { runCommand } from '#command';
import { caddyConfig, haproxyConfig, nginxConfig } from './configs.ts';
import type { ProxySpec } from './configs.ts';
import { NODE_PEERS_DIRECTORY } from './install.ts';
import { LOAD_CORE, PROXY_CORE, freePorts, listening } from './stage.ts';
import type { Child, Stage } from './stage.ts';
import { treeOf } from './usage.ts';

export interface Peer {
  readonly name: PeerName;
  readonly httpPort: number;
  readonly httpsPort: number;
  /** The processes whose CPU counts. */
  readonly pids: () => readonly number[];
  /** Processes that belong to it and do not touch requests. */
  readonly helpers: () => readonly number[];
  readonly logs: readonly string[];
  /** What it said on stderr. */
  readonly said: () => string;
}

export const PEER_NAMES = [
  'ecluse',
  'nginx',
  'haproxy',
  'caddy',
  'http-proxy-3',
  'fastify',
  'undici',
  'nginx-nolog',
  'haproxy-nolog',
] as const;
export type PeerName = (typeof PEER_NAMES)[number];

/** Programs that a peer needs on the machine. */
export const PEER_PROGRAMS: Readonly<Record<PeerName, readonly string[]>> = {
  ecluse: [],
  nginx: ['nginx'],
  haproxy: ['haproxy', 'perl'],
  caddy: ['caddy'],
  'http-proxy-3': [],
  fastify: [],
  undici: [],
  'nginx-nolog': ['nginx'],
  'haproxy-nolog': ['haproxy'],
};
export const NODE_PEER_NAMES: ReadonlySet<PeerName> = new Set(['http-proxy-3', 'fastify', 'undici']);

/** What all peers of one scene share. */
export interface Surroundings {
  readonly hosts: readonly string[];
  readonly workers: number;
  readonly endpointPorts: readonly number[];
  readonly websocketPort: number;
  readonly certFile: string;
  readonly keyFile: string;
  readonly pemFile: string;
  readonly tls12?: boolean;
  /** Starts Écluse's workers so that a profiler can attach. */
  readonly inspect: boolean;
}

/** A self-signed ECDSA P-256 certificate, the same for all. */
export async function makeCertificateFiles(stage: Stage): Promise<Pick<Surroundings, 'certFile' | 'keyFile' | 'pemFile'>> {
  const [certFile, keyFile, pemFile] = [stage.path('cert.pem'), stage.path('key.pem'), stage.path('both.pem')];
  const what = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  await runCommand('openssl', [...what, ...name, '-keyout', keyFile, '-out', certFile]);
  await writeFile(pemFile, (await readFile(certFile, 'utf8')) + (await readFile(keyFile, 'utf8')), { mode: 0o600 });
  return { certFile, keyFile, pemFile };
}

export async function startPeer(stage: Stage, name: PeerName, around: Surroundings): Promise<Peer> {
  const directory = stage.path(name);
  await mkdir(directory);
  const [httpPort = 0, httpsPort = 0] = await freePorts(2);
  const accessLog = name.endsWith('-nolog') ? undefined : join(directory, 'access.log');
  const spec: ProxySpec = { ...around, directory, httpPort, httpsPort, accessLog };
  switch (name) {
    case 'ecluse':
      return await startEcluse(stage, spec, around.inspect);
    case 'nginx':
    case 'nginx-nolog':
      return await startNginx(stage, name, spec);
    case 'haproxy':
    case 'haproxy-nolog':
      return await startHaproxy(stage, name, spec);
    case 'caddy':
      return await startCaddy(stage, spec);
    case 'http-proxy-3':
    case 'fastify':
    case 'undici':
      return await startNodePeer(stage, name, spec);
  }
}

function coreOf(spec: ProxySpec): string {
  return spec.workers > 1 ? `${PROXY_CORE},${LOAD_CORE}` : PROXY_CORE;
}

async function peerOf(name: PeerName, spec: ProxySpec, child: Child): Promise<Peer> {
  await listening(spec.httpPort, child);
  return {
    name,
    httpPort: spec.httpPort,
    httpsPort: spec.httpsPort,
    pids: () => treeOf(child.pid),
    helpers: () => [],
    logs: spec.accessLog === undefined ? [] : [spec.accessLog],
    said: child.err,
  };
}

async function startNginx(stage: Stage, name: PeerName, spec: ProxySpec): Promise<Peer> {
  const file = join(spec.directory, 'nginx.conf');
  await writeFile(file, nginxConfig(spec));
  const argv = ['nginx', '-e', join(spec.directory, 'start.err'), '-c', file];
  return await peerOf(name, spec, stage.start({ core: coreOf(spec), argv }));
}

async function startHaproxy(stage: Stage, name: PeerName, spec: ProxySpec): Promise<Peer> {
  const file = join(spec.directory, 'haproxy.cfg');
  const hostsFile = join(spec.directory, 'hosts.map');
  const reader = spec.accessLog === undefined ? undefined : await startLogReader(stage, spec.accessLog);
  await writeFile(hostsFile, `${spec.hosts.map((host) => `${host} app`).join('\n')}\n`);
  await writeFile(file, haproxyConfig(spec, reader?.port, hostsFile));
  const peer = await peerOf(name, spec, stage.start({ core: coreOf(spec), argv: ['haproxy', '-db', '-f', file] }));
  return reader === undefined ? peer : { ...peer, helpers: () => [reader.pid] };
}

interface LogReader {
  readonly port: number;
  readonly pid: number;
}

async function startLogReader(stage: Stage, file: string): Promise<LogReader> {
  const [port = 0] = await freePorts(1);
  const program = join(import.meta.dirname, 'log-reader.pl');
  const child = stage.start({ core: LOAD_CORE, argv: ['perl', program, String(port), file] });
  await listening(port, child);
  return { port, pid: child.pid };
}

async function startCaddy(stage: Stage, spec: ProxySpec): Promise<Peer> {
  const file = join(spec.directory, 'Caddyfile');
  await writeFile(file, caddyConfig(spec));
  const home = spec.directory;
  const env = { GOMAXPROCS: String(spec.workers), HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home };
  const argv = ['caddy', 'run', '--adapter', 'caddyfile', '--config', file];
  return await peerOf('caddy', spec, stage.start({ core: coreOf(spec), argv, env }));
}

async function startNodePeer(stage: Stage, name: PeerName, spec: ProxySpec): Promise<Peer> {
  const program = join(import.meta.dirname, 'programs', 'node-peer.ts');
  const { httpPort, endpointPorts, websocketPort } = spec;
  const told = { name, packages: NODE_PEERS_DIRECTORY, httpPort, originPort: endpointPorts[0], websocketPort };
  const argv = [process.execPath, program, JSON.stringify(told)];
  const peer = await peerOf(name, spec, stage.start({ core: PROXY_CORE, argv, env: { NODE_ENV: 'production' } }));
  return { ...peer, httpsPort: 0, logs: [] };
}

const ECLUSE_PORTS = z.object({ http: z.int(), https: z.int(), workers: z.array(z.int()) });

async function startEcluse(stage: Stage, spec: ProxySpec, inspect: boolean): Promise<Peer> {
  const program = join(import.meta.dirname, 'programs', 'ecluse-primary.ts');
  const specFile = join(spec.directory, 'spec.json');
  await writeFile(specFile, JSON.stringify({ ...spec, inspect }));
  const child = stage.start({ core: LOAD_CORE, argv: [process.execPath, program, specFile] });
  while (!child.out().includes('\n')) {
    if (!child.running()) throw new Error(`it ended at start: ${child.err().slice(-2000)}`);
    await sleep(50);
  }
  const ports = ECLUSE_PORTS.parse(JSON.parse(child.out().split('\n')[0] ?? ''));
  for (const pid of ports.workers) await runCommand('taskset', ['-acp', coreOf(spec), String(pid)]);
  return {
    name: 'ecluse',
    httpPort: ports.http,
    httpsPort: ports.https,
    pids: () => ports.workers,
    helpers: () => [child.pid],
    logs: spec.accessLog === undefined ? [] : [spec.accessLog],
    said: child.err,
  };
}
