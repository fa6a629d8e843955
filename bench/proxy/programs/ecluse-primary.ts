/** Écluse's edge as the benchmark runs it: a primary with its workers, told by a file, ended by the end of stdin or SIGTERM. */
import cluster from 'node:cluster';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { WorkerPool } from '#proxy/worker-pool.ts';
import type { Route, RouteConfig, Service } from '#routing/route-table.ts';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { CertificateIndex } from '#tls/certificate-index.ts';

/** Routes of a service, and services of a tenant, as they were made up. */
const HOSTS_PER_SERVICE = 20;
const SERVICES_PER_TENANT = 10;
const TICKET_KEYS_BYTES = 48;

const REWRITING = {
  stripPrefix: '/api',
  requestFields: [
    { name: 'x-env', written: 'X-Env', value: 'prod' },
    { name: 'x-debug', written: 'X-Debug', value: undefined },
  ],
  responseFields: [{ name: 'x-frame-options', written: 'X-Frame-Options', value: 'DENY' }],
};

/** What this program needs of `ProxySpec`. */
const SPEC = z.object({
  httpPort: z.int(),
  httpsPort: z.int(),
  certFile: z.string(),
  keyFile: z.string(),
  accessLog: z.string().optional(),
  hosts: z.array(z.string()),
  workers: z.int(),
  endpointPorts: z.array(z.int()),
  websocketPort: z.int(),
  inspect: z.boolean(),
});

const spec = SPEC.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')));
// The pool's own settings are merged into these.
if (spec.inspect) cluster.setupPrimary({ execArgv: ['--inspect=127.0.0.1:0'], inspectPort: 0 });

let requests = 0;
const certPem = readFileSync(spec.certFile, 'utf8');
const keyPem = readFileSync(spec.keyFile, 'utf8');
const [benchHost = ''] = spec.hosts;
const certificate = { name: benchHost, hosts: [benchHost], notAfterMs: 0, leafPem: certPem, chain: { pem: '' }, keyPem };
const pool = await WorkerPool.open(
  { log: createLog('error'), clock: systemClock },
  {
    workers: spec.workers,
    workerFile: resolve(import.meta.dirname, '../../../src/worker.ts'),
    listen: { http: { host: '127.0.0.1', port: spec.httpPort }, https: { host: '127.0.0.1', port: spec.httpsPort } },
    accessLogFile: spec.accessLog ?? '/dev/null',
    logLevel: 'error',
    ticketKeys: randomBytes(TICKET_KEYS_BYTES),
    initial: { config: configOf(spec), certificates: CertificateIndex.of([certificate]) },
    onTraffic: ({ deltas }) => {
      for (const delta of deltas) requests += delta.requests;
    },
    onWake: () => undefined,
  },
);
process.stdout.write(
  `${JSON.stringify({ http: spec.httpPort, https: spec.httpsPort, workers: pool.status().map(({ pid }) => pid) })}\n`,
);

let ending = false;
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  await pool[Symbol.asyncDispose]();
  process.stdout.write(`${JSON.stringify({ accountedRequests: requests })}\n`);
  // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end: stdin may stay open
  process.exit(0);
}
process.on('SIGTERM', () => void end());
process.on('SIGINT', () => void end());
process.stdin.on('end', () => void end()).resume();

function configOf({ hosts, endpointPorts, websocketPort }: z.infer<typeof SPEC>): RouteConfig {
  const services: Service[] = [
    {
      id: 'bench',
      tenant: 'tenant-0',
      endpoints: endpointPorts.map((port, index) => endpointOf(`bench-${String(index)}`, port)),
    },
    { id: 'bench-ws', tenant: 'tenant-0', endpoints: [endpointOf('bench-ws-0', websocketPort)] },
  ];
  const routes: Route[] = [
    { host: benchHost, path: '/', serviceId: 'bench' },
    { host: benchHost, path: '/ws', serviceId: 'bench-ws' },
    { host: benchHost, path: '/api', serviceId: 'bench', actions: REWRITING },
  ];
  for (const [index, host] of hosts.entries()) {
    if (index === 0) continue;
    const number = Math.floor(index / HOSTS_PER_SERVICE);
    const id = `service-${String(number)}`;
    if (services.at(-1)?.id !== id) {
      const tenant = `tenant-${String(Math.floor(number / SERVICES_PER_TENANT))}`;
      services.push({ id, tenant, endpoints: [endpointOf(`${id}-0`, endpointPorts[0] ?? 0)] });
    }
    routes.push({ host, path: '/', serviceId: id });
  }
  return { version: 1, services, routes };
}

function endpointOf(id: string, port: number): Service['endpoints'][number] {
  return { id, address: '127.0.0.1', port, hostName: 'a', generation: 1 };
}
