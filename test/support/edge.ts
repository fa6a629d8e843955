/** A whole edge for tests: real workers, started through the pool, with an access log in a directory of its own. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Endpoint, RouteConfig } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import type { AccessLogLine } from '#proxy/access-log-schema.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { Issuing } from '#proxy/issuing.ts';
import type { EdgeStart } from '#proxy/committed.ts';
import type { EdgeChange, TrafficDelta, TrustOptions } from '#proxy/protocol.ts';
import { deltaBetween } from '#routing/delta.ts';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { systemClock, waitFor } from '#clock';
import { createLog } from '#log';

/** A whole configuration as plain data. */
export interface PlainEdge {
  readonly config: RouteConfig;
  readonly certificates: readonly EdgeCertificate[];
}

export function edgeOf({ config, certificates }: PlainEdge): EdgeStart {
  return { config, certificates: CertificateIndex.of(certificates) };
}

export interface Edge extends AsyncDisposable {
  readonly pool: WorkerPool;
  /** Changes what was applied last into this. */
  readonly apply: (config: RouteConfig, certificates: readonly EdgeCertificate[], thaw?: readonly string[]) => Promise<void>;
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly accessLogFile: string;
  readonly traffic: readonly TrafficDelta[];
  /** Which endpoints were to be woken, one entry for each time that was said. */
  readonly wakes: readonly (readonly string[])[];
  /** The lines of the access log once there are at least `count`. */
  readonly accessLog: (count: number) => Promise<AccessLogLine[]>;
}

export interface EdgeOptions {
  readonly config: RouteConfig;
  readonly certificates?: readonly EdgeCertificate[];
  readonly workers?: number;
  /** Where they are not the defaults. */
  readonly limits?: Partial<EdgeLimits>;
  readonly trust?: TrustOptions;
  readonly unknownNames?: 'default' | 'alert';
  /** Whether plain HTTP is sent to HTTPS. */
  readonly redirect?: boolean;
  /** TLS session tickets are sealed with them; absent: each worker has its own. */
  readonly ticketKeys?: Uint8Array;
  /** Gives hosts of routes certificates of the internal CA. Absent: they have none. */
  readonly issue?: Issuing;
}

export async function startEdge(options: EdgeOptions): Promise<Edge> {
  const directory = await mkdtemp(join(tmpdir(), 'ecluse-edge-'));
  try {
    return await openEdge(options, directory);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function openEdge(options: EdgeOptions, directory: string): Promise<Edge> {
  const accessLogFile = join(directory, 'access.log');
  const traffic: TrafficDelta[] = [];
  const wakes: (readonly string[])[] = [];
  const pool = await WorkerPool.open(
    { log: createLog('silent'), clock: systemClock },
    {
      workers: options.workers ?? 1,
      workerFile: resolve(import.meta.dirname, '../../src/worker.ts'),
      listen: { http: { host: '127.0.0.1', port: 0 }, https: { host: '127.0.0.1', port: 0 } },
      accessLogFile,
      logLevel: 'error',
      limits: { ...EDGE_LIMITS, ...options.limits },
      ...(options.trust === undefined ? {} : { trust: options.trust }),
      ...(options.unknownNames === undefined ? {} : { unknownNames: options.unknownNames }),
      ...(options.redirect === undefined ? {} : { redirect: options.redirect }),
      ...(options.ticketKeys === undefined ? {} : { ticketKeys: options.ticketKeys }),
      ...(options.issue === undefined ? {} : { issue: options.issue }),
      initial: edgeOf({ config: options.config, certificates: options.certificates ?? [] }),
      onTraffic: ({ deltas }) => {
        traffic.push(...deltas);
      },
      onWake: (endpointIds) => {
        wakes.push(endpointIds);
      },
    },
  );
  let applied: PlainEdge = { config: options.config, certificates: options.certificates ?? [] };
  return {
    pool,
    apply: async (config, certificates, thaw = []) => {
      await pool.change(changeBetween(applied, { config, certificates }), { thaw });
      applied = { config, certificates };
    },
    httpPort: pool.listening.http?.port ?? 0,
    httpsPort: pool.listening.https?.port ?? 0,
    accessLogFile,
    traffic,
    wakes,
    accessLog: async (count) => {
      const lines = await eventually(async () => {
        const found = await readLines(accessLogFile);
        return found.length >= count ? found : undefined;
      });
      return lines.map(parseLine);
    },
    [Symbol.asyncDispose]: async () => {
      await pool[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** All that differs between two whole configurations. */
export function changeBetween(before: PlainEdge, after: PlainEdge): EdgeChange {
  const wanted = new Set(after.certificates.map(({ name }) => name));
  return {
    routes: deltaBetween(before.config, after.config),
    ports: after.config.ports ?? [],
    certificates: after.certificates,
    removedCertificates: before.certificates.map(({ name }) => name).filter((name) => !wanted.has(name)),
  };
}

/** A config with one service `app` of tenant `acme` at host `app.test`. */
export function configOf(endpoints: readonly Endpoint[], version = 1): RouteConfig {
  return {
    version,
    services: [{ id: 'app', tenant: 'acme', endpoints }],
    routes: [{ host: 'app.test', path: '/', serviceId: 'app' }],
  };
}

/** Asks until there is an answer; fails after ten seconds. A worker that starts may take longer on a busy machine. */
export async function eventually<T>(probe: () => Promise<T | undefined> | T | undefined, limitMs = 10_000): Promise<T> {
  const answer = await waitFor(systemClock, probe, { limitMs, stepMs: 10 });
  if (answer === undefined) throw new Error('the awaited condition did not come true');
  return answer;
}

function parseLine(text: string): AccessLogLine {
  const value: unknown = JSON.parse(text);
  if (!isLine(value)) throw new Error(`not a line of the access log: ${text}`);
  return value;
}

function isLine(value: unknown): value is AccessLogLine {
  return typeof value === 'object' && value !== null && 'requestId' in value && 'errorCode' in value;
}

async function readLines(file: string): Promise<string[]> {
  try {
    const text = await readFile(file, 'utf8');
    return text.split('\n').filter((line) => line !== '');
  } catch {
    return []; // The worker has not made it yet.
  }
}
