/** A real admin API on a real socket and store, over a node that has tenants and a change log but moves nothing. */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AdminApi } from '#admin/api.ts';
import { checkPrecondition } from '#admin/entity-tag.ts';
import { LedgerKeeper } from '#caas/ledger-keeper.ts';
import type { MigrationReport } from '#caas/migration/move.ts';
import type { ContainerView, NodeControl, NodeStatus, SnapshotView } from '#admin/node-control.ts';
import type { SnapshotReport } from '#caas/snapshots/snapshots.ts';
import { LedgerOperations } from '../../src/node-metering.ts';
import { PriceOperations } from '../../src/node-prices.ts';
import { QUOTA_DEFAULT } from '../../src/node-tenants.ts';
import { systemClock } from '#clock';
import { EcluseError } from '#errors';
import { ledgerKeyOf } from '#metering/ledger-head.ts';
import { createLog } from '#log';
import { readChanges } from '#state/change-log.ts';
import { openIncarnationWrite } from '#state/ledger.ts';
import type { Incarnation } from '#state/ledger.ts';
import { addLedgerKey } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import { openSqlite } from '#state/sqlite.ts';
import { addTenant, findTenant, listTenants, removeTenant, updateTenant } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';

export const CONTAINER: ContainerView = {
  id: 'c0ffee'.repeat(10).padEnd(64, '0'),
  tenant: 'acme',
  name: 'web',
  image: 'shop:1',
  host: 'a',
  state: 'running',
  status: 'Up 5 minutes',
  createdMs: Date.UTC(2026, 0, 1),
  startedMs: Date.UTC(2026, 0, 1),
  address: '10.90.1.2',
  routes: ['https://web-acme.localhost:8443'],
  incarnation: 1,
  memoryLimitBytes: 64 * 1024 ** 2,
};

/** Beyond 64 bits, and no multiple of a power of two: a double would lose its end. */
export const HUGE = 36_893_488_147_419_103_233n;

const STATUS: NodeStatus = {
  version: '0.1.0',
  pid: process.pid,
  startedMs: Date.UTC(2026, 0, 1),
  dataDir: '/var/lib/ecluse',
  listen: { http: '127.0.0.1:8080', https: '127.0.0.1:8443', docker: undefined, metrics: '127.0.0.1:9180' },
  configVersion: 7,
  workers: [{ pid: 1, version: 7 }],
  generation: 3,
  retiring: [{ pid: 4, generation: 2 }],
  hosts: [
    {
      name: 'a',
      engine: 'managed',
      state: 'up',
      use: 'active',
      engineVersion: '20.10.24',
      containers: 1,
      memoryBytes: 1024 ** 3,
      cpus: 2,
    },
    {
      name: 'b',
      engine: 'managed',
      state: 'down',
      use: 'draining',
      engineVersion: undefined,
      containers: 0,
      memoryBytes: 0,
      cpus: 0,
    },
  ],
};

const REPORT: MigrationReport = {
  container: 'acme/web',
  from: 'a',
  to: 'b',
  totalMs: 2340,
  pausedMs: 312,
  heldMs: 325,
  memoryBytes: 3 * 1024 ** 2,
  imageBytes: 3 * 1024 ** 2,
  bytesPreCopied: 3 * 1024 ** 2,
  bytesAfterFreeze: 64 * 1024,
  cut: 0,
  closedWebSockets: 0,
  endedEventStreams: 0,
  replayed: 0,
  phases: [{ phase: 'restore', tookMs: 200 }],
};

const SNAPSHOT: SnapshotReport = {
  snapshot: '0f3a5b1c-8d2e-4f60-9a7b-1c2d3e4f5a6b',
  container: 'acme/web',
  pausedMs: 80,
  totalMs: 700,
  imageBytes: 3 * 1024 ** 2,
  keptBytes: 5 * 1024 ** 2,
  notes: ['volume cache is in memory, and is not in the snapshot'],
};

const SNAPSHOT_VIEW: SnapshotView = {
  id: SNAPSHOT.snapshot,
  tenant: 'acme',
  name: 'web',
  container: CONTAINER.id,
  host: 'a',
  kind: 'manual',
  createdMs: Date.UTC(2026, 0, 2),
  imageBytes: SNAPSHOT.imageBytes,
  keptBytes: SNAPSHOT.keptBytes,
  runtime: 'release-20260101.0',
};

const LEDGER_KEY = ledgerKeyOf(generateKeyPairSync('ed25519').privateKey);

function notFound(message: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_NOT_FOUND', source: 'usage', message, mend: 'see: ecluse tenant ls', status: 404 });
}

const noEdge = async (): Promise<never> => await Promise.reject(notFound('this node has no edge'));
const NO_EDGE: NodeControl['edge'] = {
  settings: noEdge,
  apply: noEdge,
  transact: noEdge,
  rollback: noEdge,
  history: noEdge,
  diff: noEdge,
  explain: noEdge,
  lint: noEdge,
  health: noEdge,
};

export function createTestControl(sql: Sql): NodeControl {
  const existing = async (name: string): Promise<Tenant> => {
    const tenant = await findTenant(sql, name);
    if (tenant === undefined) throw notFound(`tenant ${name} does not exist`);
    return tenant;
  };
  let readings = 0;
  return {
    edge: NO_EDGE,
    certificates: { list: async () => ({ certificates: [], waiting: [] }), add: noEdge, remove: noEdge, renew: noEdge },
    ledger: new LedgerOperations({
      clock: systemClock,
      sql,
      key: LEDGER_KEY,
      keys: [{ id: LEDGER_KEY.id, publicKey: LEDGER_KEY.publicKey, sinceMs: 0 }],
    }),
    prices: new PriceOperations({
      clock: systemClock,
      sql,
      keeper: new LedgerKeeper({ log: createLog('silent'), clock: systemClock, sql, key: LEDGER_KEY }),
      changed: () => undefined,
      flush: async () => undefined,
    }),
    status: async () => STATUS,
    reload: async () => ({
      file: '/etc/ecluse/ecluse.yaml',
      applied: ['edge.timeouts.idle'],
      needsRestart: ['workers'],
      unchanged: ['data'],
      workers: [1],
    }),
    upgrade: async () => ({ generation: STATUS.generation, pid: STATUS.pid }),
    tenants: async () => (await listTenants(sql)).map((tenant) => ({ ...tenant, containers: 0 })),
    addTenant: async ({ name, quota, domains }) => {
      const limits = { ...QUOTA_DEFAULT, ...quota };
      const tenant: Tenant = { name, createdMs: Date.now(), state: 'active', quota: limits, domains: domains ?? [], address: '' };
      const outcome = await addTenant(sql, tenant);
      if (outcome.kind === 'done') return { ...tenant, containers: 0 };
      throw new EcluseError({ code: 'ECLUSE_EXISTS', source: 'usage', message: `tenant ${name} exists already`, status: 409 });
    },
    tenant: existing,
    setTenant: async (name, change, ifMatch) => {
      const before = await existing(name);
      checkPrecondition(ifMatch, before, `tenant ${name}`);
      const after: Tenant = { ...before, ...change, quota: { ...before.quota, ...change.quota } };
      await updateTenant(sql, after, Date.now());
      return { ...after, containers: 0 };
    },
    removeTenant: async (name, ifMatch) => {
      checkPrecondition(ifMatch, await existing(name), `tenant ${name}`);
      await removeTenant(sql, name, Date.now());
    },
    tenantEnv: async (name) => {
      await existing(name);
      return { dockerHost: 'tcp://[::1]:2376', certPath: `/tmp/it's ${name}` };
    },
    containers: async ({ all, tenant }) => {
      const containers = all
        ? [CONTAINER, { ...CONTAINER, id: 'f'.repeat(64), name: 'old', state: 'exited', status: 'Exited (0)' } as const]
        : [CONTAINER];
      return containers.filter((container) => tenant === undefined || container.tenant === tenant);
    },
    container: async (container) => {
      if (container !== 'acme/web') throw notFound(`no container is called ${container}`);
      return CONTAINER;
    },
    explainContainer: async (container) => ({ id: container, tenant: 'acme', name: 'web', host: 'a', placement: undefined }),
    readings: async () => {
      readings += 1;
      const { id, tenant, name, host } = CONTAINER;
      return [{ id, tenant, name, host, cpuNs: readings * 250_000_000, memoryBytes: 5 * 1024 ** 2, sampledMs: readings * 1000 }];
    },
    usage: async ({ tenant, sinceMs, untilMs }) => [
      {
        key: CONTAINER.id,
        tenant: tenant ?? 'acme',
        name: 'web',
        fromMs: sinceMs,
        toMs: untilMs,
        cpuNs: 1_500_000_000n,
        memoryByteMs: HUGE,
        requests: 3n,
        ingressBytes: 0n,
        egressBytes: 1024n ** 2n,
        heldMs: 0n,
        snapshotByteMs: 0n,
        diskByteMs: 0n,
        streamMs: 0n,
      },
    ],
    migrate: async (container, { to }, onProgress) => {
      if (container !== 'acme/web') throw notFound(`no container is called ${container}`);
      onProgress({ phase: 'copy', detail: '3 MiB', elapsedMs: 10 });
      if (to === 'broken')
        throw new EcluseError({
          code: 'ECLUSE_MIGRATION_FAILED',
          source: 'runtime',
          message: 'the target died',
          mend: 'try again',
        });
      onProgress({ phase: 'restore', detail: '', elapsedMs: 20 });
      return { ...REPORT, to };
    },
    cancelMigration: async (container) => {
      if (container !== 'acme/web') throw notFound(`no container is called ${container}`);
    },
    suspend: async (container) => ({ container, imageBytes: 3 * 1024 ** 2, totalMs: 420 }),
    wake: async (container) => ({ container, totalMs: 180 }),
    clone: async (container, count) => ({
      container,
      clones: Array.from({ length: count }, (_, index) => `web-${String(index + 2)}`),
      pausedMs: 90,
      totalMs: 1500,
      imageBytes: 3 * 1024 ** 2,
    }),
    host: async (name) => {
      const host = STATUS.hosts.find((one) => one.name === name);
      if (host === undefined) throw notFound(`there is no host ${name}`);
      return { name, engine: host.engine, use: host.use };
    },
    drainHost: async (host, { dryRun }, onProgress) => {
      if (host !== 'a') throw notFound(`there is no host ${host}`);
      const move = { container: 'acme/web', from: 'a', to: 'b', why: 'host a is drained' };
      if (dryRun) return { host, state: 'active', moves: [{ ...move, outcome: 'planned' }], left: [] };
      onProgress({ text: 'acme/web: a to b: host a is drained' });
      const left = { container: 'acme/db', runs: true, why: 'it has the label ecluse.migrate=never', mend: 'ask its tenant' };
      return { host, state: 'draining', moves: [{ ...move, outcome: 'moved', pausedMs: 312, heldMs: 325 }], left: [left] };
    },
    undrainHost: async (host) => ({ host, state: 'active' }),
    rebalance: async () => ({ moves: [], stays: [], hosts: [], hostsWanted: 0 }),
    snapshot: async (container) => ({ ...SNAPSHOT, container }),
    snapshots: async () => [SNAPSHOT_VIEW],
    findSnapshot: async (snapshot) => {
      if (!SNAPSHOT.snapshot.startsWith(snapshot)) throw notFound(`no snapshot is called ${snapshot}`);
      return SNAPSHOT_VIEW;
    },
    removeSnapshot: async (snapshot) => {
      if (!SNAPSHOT.snapshot.startsWith(snapshot)) throw notFound(`no snapshot is called ${snapshot}`);
    },
    restore: async (reference, target) => ({
      container: reference,
      snapshot: SNAPSHOT.snapshot,
      takenMs: SNAPSHOT_VIEW.createdMs,
      from: 'a',
      to: target ?? 'b',
      totalMs: 900,
      imageBytes: SNAPSHOT.imageBytes,
      keptBytes: SNAPSHOT.keptBytes,
      phases: [{ phase: 'restore', tookMs: 300 }],
      notes: [],
    }),
    changes: async (cursor, limit) => await readChanges(sql, cursor, limit),
  };
}

/** Meters the container once: an hour of half a processor, and some traffic, in January 1970. */
export async function meterOnce(sql: Sql): Promise<void> {
  const at: Incarnation = {
    container: CONTAINER.id,
    incarnation: 1,
    tenant: 'acme',
    host: 'a',
    name: 'web',
    cgroup: '/x',
    cgroupIdentity: '',
    openedMs: 0,
    closedMs: undefined,
    seq: 0,
    meteredToMs: 0,
    cpuNs: 0,
    memoryBytes: 0,
  };
  await sql.write([openIncarnationWrite(at)]);
  const used = {
    cpuNs: 1_800_000_000_000,
    memoryByteMs: HUGE / 64n,
    requests: 1,
    ingressBytes: 2,
    egressBytes: 3_000_000_000,
    heldMs: 0,
    streamMs: 0,
  };
  await new LedgerWriter(sql).append(at, { ...used, toMs: 3_600_000 }, { cpuNs: used.cpuNs, memoryBytes: 1, cgroupIdentity: '' });
}

export interface TestAdmin extends AsyncDisposable {
  readonly socketPath: string;
  readonly folder: string;
  readonly sql: Sql;
  readonly control: NodeControl;
  readonly api: AdminApi;
}

/** `change`: methods that behave otherwise. */
export async function startAdmin(change: Partial<NodeControl> = {}): Promise<TestAdmin> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-admin-'));
  const sql = openSqlite(join(folder, 'state.db'));
  await addLedgerKey(sql, LEDGER_KEY, Date.now());
  const control = { ...createTestControl(sql), ...change };
  const socketPath = join(folder, 'run', 'admin.sock');
  const api = await AdminApi.open({ control, log: createLog('silent') }, { socketPath });
  return {
    socketPath,
    folder,
    sql,
    control,
    api,
    [Symbol.asyncDispose]: async () => {
      await api[Symbol.asyncDispose]();
      await sql[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
