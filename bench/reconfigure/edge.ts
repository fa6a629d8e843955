/** An edge with its store and no containers, driven as the admin API drives it: operations in, acknowledged version out. */
import { mkdtemp, readFile, rm, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { routeOf, serviceIdOf, serviceOf } from '#routing/operator/compile-settings.ts';
import type { EdgeDocument, Operation } from '#routing/operator/schema.ts';
import { inverseOf, NO_SETTINGS, patchOfOperations, patchToDocument, settingsWith } from '#routing/operator/settings.ts';
import type { EdgePatch, EdgeSettings } from '#routing/operator/settings.ts';
import { writeConfigVersion } from '#state/edge-settings.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';

export interface WorkerMeasure {
  readonly stallMs: number;
  readonly stallP99Ms: number;
  /** The most that the thread worked at a stretch: a stall that is longer was a wait for a processor. */
  readonly longestWorkMs: number;
  readonly heapUsed: number;
  readonly rss: number;
}

const measureSchema = z.object({
  stallMs: z.number(),
  stallP99Ms: z.number(),
  longestWorkMs: z.number(),
  heapUsed: z.number(),
  rss: z.number(),
});

export class MeasuredEdge implements AsyncDisposable {
  readonly pool: WorkerPool;
  readonly coldStartMs: number;
  #settings: EdgeSettings;
  readonly #sql: Sql;
  readonly #folder: string;

  private constructor(parts: { pool: WorkerPool; coldStartMs: number; settings: EdgeSettings; sql: Sql; folder: string }) {
    this.pool = parts.pool;
    this.coldStartMs = parts.coldStartMs;
    this.#settings = parts.settings;
    this.#sql = parts.sql;
    this.#folder = parts.folder;
  }

  static async open(document: EdgeDocument, workers: number): Promise<MeasuredEdge> {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-reconfigure-'));
    process.env['ECLUSE_BENCH_FOLDER'] = folder;
    const sql = openSqlite(join(folder, 'state.db'));
    const reading = patchToDocument(NO_SETTINGS, document);
    if (reading.kind === 'refused') throw new Error(JSON.stringify(reading.problems));
    const settings = settingsWith(NO_SETTINGS, reading.patch);
    await persist(sql, { version: 1, patch: reading.patch, inverse: inverseOf(NO_SETTINGS, reading.patch) });
    const startMs = performance.now();
    const pool = await WorkerPool.open(
      { log: createLog('warn'), clock: systemClock },
      {
        workers,
        workerFile: resolve(import.meta.dirname, 'programs/measured-worker.ts'),
        listen: { http: { host: '127.0.0.1', port: 0 }, https: undefined },
        accessLogFile: join(folder, 'access.log'),
        logLevel: 'warn',
        initial: {
          config: {
            version: 1,
            services: [...settings.services.entries()].map(([name, service]) => serviceOf(name, service)),
            routes: [...settings.hosts.values()].flatMap((list) => list.map(routeOf)),
          },
          certificates: CertificateIndex.of([]),
        },
        onTraffic: () => undefined,
        onWake: () => undefined,
      },
    );
    return new MeasuredEdge({ pool, coldStartMs: performance.now() - startMs, settings, sql, folder });
  }

  /** From operations to the acknowledgement of all workers; milliseconds. */
  async change(operations: readonly Operation[]): Promise<number> {
    const startMs = performance.now();
    const before = this.#settings;
    const reading = patchOfOperations(before, operations);
    if (reading.kind === 'refused') throw new Error(JSON.stringify(reading.problems));
    const { patch } = reading;
    const after = settingsWith(before, patch);
    const services = Object.entries(patch.services);
    const base = this.pool.version;
    await this.pool.change(
      {
        routes: {
          base,
          version: base + 1,
          services: services.flatMap(([name, service]) => (service === null ? [] : [serviceOf(name, service)])),
          removedServices: services.filter(([, service]) => service === null).map(([name]) => serviceIdOf(name)),
          hosts: Object.entries(patch.hosts).map(([host, list]) => ({ host, routes: list.map(routeOf) })),
        },
        ports: undefined,
        certificates: [],
        removedCertificates: [],
      },
      {
        persist: async () => {
          await persist(this.#sql, { version: base + 1, patch, inverse: inverseOf(before, patch) });
        },
      },
    );
    this.#settings = after;
    return performance.now() - startMs;
  }

  /** What each worker's event loop and memory were since the last call. */
  async measure(): Promise<readonly WorkerMeasure[]> {
    const files = this.pool.status().map(({ pid }) => ({ pid, file: join(this.#folder, `${String(pid)}.json`) }));
    return await Promise.all(
      files.map(async ({ pid, file }) => {
        process.kill(pid, 'SIGUSR2');
        for (;;) {
          await sleep(20);
          const text = await readFile(file, 'utf8').catch(() => '');
          if (text === '') continue;
          await unlink(file);
          return measureSchema.parse(JSON.parse(text));
        }
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
    await this.#sql[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

async function persist(
  sql: Sql,
  { version, patch, inverse }: { version: number; patch: EdgePatch; inverse: EdgePatch },
): Promise<void> {
  const row = { version, atMs: Date.now(), note: '', patch: JSON.stringify(patch), inverse: JSON.stringify(inverse) };
  await writeConfigVersion(
    sql,
    { ...row, cause: 'transaction' },
    {
      services: Object.entries(patch.services).map(([name, body]) => [name, body === null ? null : JSON.stringify(body)]),
      hosts: Object.entries(patch.hosts).map(([host, list]) => [host, list.length === 0 ? null : JSON.stringify(list)]),
      caBundles: [],
    },
  );
}

/** `routes` routes over a fifth as many hosts, each host with a service of its own. */
export function documentOfSize(routes: number, endpoint: string): EdgeDocument {
  const document: EdgeDocument = { services: {}, routes: [] };
  for (let index = 0; index < routes; index += 1) {
    const number = Math.floor(index / 5);
    const service = `s${String(number)}`;
    document.services[service] ??= { endpoints: [endpoint] };
    document.routes.push({
      match: { host: `h${String(number)}.example.com`, path: ['/', '/api', '/api/v1', '=/health', '/static'][index % 5] ?? '/' },
      service,
    });
  }
  return document;
}
