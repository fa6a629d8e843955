/** Proxies that are reconfigured: ours in its processes, nginx, HAProxy and Caddy of Debian by their own ways of reloading. */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EdgeDocument } from '#routing/operator/schema.ts';
import { freePorts } from '../proxy/stage.ts';
import { documentOfSize, MeasuredEdge } from './edge.ts';

export interface Reconfigured extends AsyncDisposable {
  readonly port: number;
  /** Leads `localhost` to an endpoint; returns when the proxy says that it is done. */
  readonly lead: (endpointPort: number) => Promise<void>;
  /** How it ended by itself; undefined: it runs. */
  readonly ended: () => string | undefined;
}

export interface PeerOptions {
  /** Hosts that are there besides. */
  readonly hosts: number;
  readonly endpointPort: number;
  readonly workers: number;
}

const HOST = 'localhost';

export function urlOf(port: number): string {
  return `http://127.0.0.1:${String(port)}`;
}

function hostNames(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `h${String(index)}.example.com`);
}

/** The body of an answer; undefined: there was none. */
export async function letterAt(port: number): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, path: '/', agent: false, headers: { host: HOST }, timeout: 5000 } as const;
    const outgoing = request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('close', () => {
        resolve(text);
      });
    });
    outgoing.once('error', () => {
      resolve(undefined);
    });
    outgoing.once('timeout', () => outgoing.destroy());
    outgoing.end();
  });
}

export async function startEcluse({ hosts, endpointPort, workers }: PeerOptions): Promise<Reconfigured> {
  const base = documentOfSize(hosts * 5, urlOf(endpointPort));
  const document: EdgeDocument = {
    services: { ...base.services, traffic: { endpoints: [urlOf(endpointPort)] } },
    routes: [...base.routes, { match: { host: HOST }, service: 'traffic' }],
  };
  const edge = await MeasuredEdge.open(document, workers);
  return {
    port: edge.pool.listening.http?.port ?? 0,
    lead: async (port) => {
      await edge.change([{ op: 'put-service', name: 'traffic', service: { endpoints: [urlOf(port)] } }]);
    },
    ended: () => undefined,
    [Symbol.asyncDispose]: async () => {
      await edge[Symbol.asyncDispose]();
    },
  };
}

function nginxText({ hosts, workers }: PeerOptions, folder: string, port: number, endpointPort: number): string {
  const proxied =
    'proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up; proxy_read_timeout 600s; proxy_buffering off;';
  const servers = hostNames(hosts).map(
    (name) =>
      `server { listen 127.0.0.1:${String(port)}; server_name ${name}; location / { proxy_pass http://one; ${proxied} } }`,
  );
  return `daemon off; user root; worker_processes ${String(workers)}; pid ${folder}/nginx.pid; error_log ${folder}/nginx.err error;
events { worker_connections 4096; }
http {
  access_log off; keepalive_timeout 300s; keepalive_requests 1000000; server_names_hash_max_size ${String(4 * hosts + 512)}; server_names_hash_bucket_size 128;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((what) => `${what}_temp_path ${folder}/${what};`).join(' ')}
  map $http_upgrade $up { default upgrade; "" ""; }
  upstream one { server 127.0.0.1:${String(endpointPort)}; keepalive 64; }
  server { listen 127.0.0.1:${String(port)}; server_name ${HOST}; location / { proxy_pass http://one; ${proxied} } }
  ${servers.join('\n  ')}
}
`;
}

function haproxyText({ workers }: PeerOptions, folder: string, port: number, endpointPort: number): string {
  return `global
  nbthread ${String(workers)}
  stats socket ${folder}/haproxy.sock expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
frontend in
  bind 127.0.0.1:${String(port)}
  use_backend %[req.hdr(host),lower,map(${folder}/hosts.map,none)]
backend one
  server one 127.0.0.1:${String(endpointPort)}
backend none
  http-request return status 404
`;
}

function caddyText({ hosts }: PeerOptions, port: number, adminPort: number, endpointPort: number): string {
  const handle = [{ handler: 'reverse_proxy', upstreams: [{ dial: `127.0.0.1:${String(endpointPort)}` }], flush_interval: -1 }];
  const routes = [HOST, ...hostNames(hosts)].map((host) => ({ match: [{ host: [host] }], handle }));
  return JSON.stringify({
    admin: { listen: `127.0.0.1:${String(adminPort)}` },
    logging: { logs: { default: { level: 'ERROR' } } },
    apps: { http: { servers: { one: { listen: [`127.0.0.1:${String(port)}`], automatic_https: { disable: true }, routes } } } },
  });
}

async function startProgram(
  program: string,
  args: readonly string[],
  port: number,
  env: NodeJS.ProcessEnv = {},
): Promise<ChildProcess> {
  const child = spawn(program, [...args], { stdio: ['ignore', 'ignore', 'ignore'], env: { ...process.env, ...env } });
  for (let tries = 0; tries < 500; tries += 1) {
    if ((await letterAt(port)) !== undefined) return child;
    if (child.exitCode !== null) throw new Error(`${program} ended with ${String(child.exitCode)}`);
    await sleep(20);
  }
  throw new Error(`${program} does not answer`);
}

function endOf({ exitCode, signalCode }: ChildProcess): string | undefined {
  return exitCode === null && signalCode === null ? undefined : `exit ${String(exitCode)}, signal ${String(signalCode)}`;
}

async function endProgram(child: ChildProcess, folder: string): Promise<void> {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  clearTimeout(timer);
  await rm(folder, { recursive: true, force: true });
}

export async function startNginx(options: PeerOptions): Promise<Reconfigured> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-nginx-'));
  const [port = 0] = await freePorts(1);
  const file = join(folder, 'nginx.conf');
  await writeFile(file, nginxText(options, folder, port, options.endpointPort));
  const child = await startProgram('nginx', ['-c', file], port);
  return {
    port,
    lead: async (endpointPort) => {
      await writeFile(file, nginxText(options, folder, port, endpointPort));
      child.kill('SIGHUP');
    },
    ended: () => endOf(child),
    [Symbol.asyncDispose]: async () => {
      await endProgram(child, folder);
    },
  };
}

export async function startHaproxy(options: PeerOptions): Promise<Reconfigured> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-haproxy-'));
  const [port = 0] = await freePorts(1);
  const file = join(folder, 'haproxy.cfg');
  await writeFile(join(folder, 'hosts.map'), [HOST, ...hostNames(options.hosts)].map((name) => `${name} one\n`).join(''));
  await writeFile(file, haproxyText(options, folder, port, options.endpointPort));
  // Master and worker: SIGUSR2 starts a new worker, which is given the sockets of the old one.
  const child = await startProgram('haproxy', ['-W', '-q', '-f', file], port);
  return {
    port,
    lead: async (endpointPort) => {
      await writeFile(file, haproxyText(options, folder, port, endpointPort));
      child.kill('SIGUSR2');
    },
    ended: () => endOf(child),
    [Symbol.asyncDispose]: async () => {
      await endProgram(child, folder);
    },
  };
}

/** Caddy's admin listener starts anew with its configuration, and may close the connection instead of answering: what it serves then tells. */
async function post(port: number, path: string, body: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const outgoing = request({ host: '127.0.0.1', port, path, method: 'POST', agent: false, headers }, (response) => {
      response.resume();
      if (response.statusCode === 200) resolve();
      else reject(new Error(`caddy answered ${String(response.statusCode)}`));
    });
    outgoing.once('error', () => {
      resolve();
    });
    outgoing.end(body);
  });
}

export async function startCaddy(options: PeerOptions): Promise<Reconfigured> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-caddy-'));
  const [port = 0, adminPort = 0] = await freePorts(2);
  const file = join(folder, 'caddy.json');
  await writeFile(file, caddyText(options, port, adminPort, options.endpointPort));
  const env = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder, GOMAXPROCS: String(options.workers) };
  const child = await startProgram('caddy', ['run', '--config', file], port, env);
  return {
    port,
    lead: async (endpointPort) => {
      await post(adminPort, '/load', caddyText(options, port, adminPort, endpointPort));
    },
    ended: () => endOf(child),
    [Symbol.asyncDispose]: async () => {
      await endProgram(child, folder);
    },
  };
}

export const PEERS = { ecluse: startEcluse, nginx: startNginx, haproxy: startHaproxy, caddy: startCaddy } as const;
export type PeerName = keyof typeof PEERS;

export function isInstalled(name: PeerName): boolean {
  return name === 'ecluse' || spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
}
