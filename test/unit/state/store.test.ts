/** The store on real SQLite files: conflicts, faults, and what must never change behind somebody's back. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readChanges } from '#state/change-log.ts';
import {
  bindEngine,
  containerEdition,
  deleteContainer,
  setResume,
  findByIdPrefix,
  insertContainer,
  listContainersOf,
  updateLife,
} from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import { takeHostNetwork } from '#state/hosts.ts';
import { countHolders, dropImage, dropReference, listImages, putImage } from '#state/images.ts';
import { findIncarnation, openIncarnationWrite, readNamedRows } from '#state/ledger.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Incarnation } from '#state/ledger.ts';
import { beginMigration, commitMigration, listOpenMigrations, setMigrationState } from '#state/migrations.ts';
import type { MigrationRow } from '#state/migrations.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { addTenant, addTenantCertificate, tenantOfCertificate, updateTenant } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';

const TENANT: Tenant = {
  name: 'acme',
  createdMs: 1,
  state: 'active',
  quota: { containersMax: 1, memoryBytesMax: 2, imagesMax: 3, networksMax: 4, volumesMax: 5, portsMax: 6, cpuMilliMax: 7 },
  address: '127.0.0.2',
  domains: ['example.com'],
};

const ROW: ContainerRow = {
  id: 'ab'.repeat(32),
  tenant: 'acme',
  name: 'web',
  host: 'a',
  engineId: '',
  incarnation: 1,
  state: 'creating',
  createdMs: 10,
  startedMs: undefined,
  finishedMs: undefined,
  restartCount: 0,
  address: '',
  resume: false,
  carriedStart: '',
  memoryBytes: 64,
  lanAddress: '',
  placement: '',
  snapshot: '',
  spec: '{}',
};

const AT: Incarnation = {
  container: ROW.id,
  incarnation: 1,
  tenant: 'acme',
  host: 'a',
  name: 'web',
  cgroup: '/x',
  cgroupIdentity: 'boot:1',
  openedMs: 100,
  closedMs: undefined,
  seq: 0,
  meteredToMs: 100,
  cpuNs: 0,
  memoryBytes: 0,
};

const INTERVAL = {
  toMs: 200,
  cpuNs: 5,
  memoryByteMs: 2n ** 60n,
  requests: 1,
  ingressBytes: 2,
  egressBytes: 3,
  heldMs: 4,
  streamMs: 5,
};

describe('store', () => {
  let folder: string;
  let file: string;
  let sql: Sql;

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/store-');
    file = join(folder, 'ecluse.db');
    sql = openSqlite(file);
    await addTenant(sql, TENANT);
  });

  afterEach(async () => {
    await sql[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test('openSqlite() finds everything again after a restart', async () => {
    await insertContainer(sql, ROW);
    await sql[Symbol.asyncDispose]();
    sql = openSqlite(file);
    expect(await listContainersOf(sql, 'acme')).toEqual([ROW]);
    expect((await readChanges(sql, 0, 10)).map((change) => change.kind)).toEqual(['tenant.added', 'container.created']);
  });

  test('openSqlite() refuses a file of a newer version and leaves every byte of it', async () => {
    await sql[Symbol.asyncDispose]();
    const newer = join(folder, 'newer.db');
    const database = new DatabaseSync(newer);
    database.exec('CREATE TABLE future (x); PRAGMA user_version = 999');
    database.close();
    const before = await readFile(newer);
    expect(() => openSqlite(newer)).toThrow(/newer ecluse \(schema 999/);
    expect(await readFile(newer)).toEqual(before);
    sql = openSqlite(file);
  });

  test('openSqlite() says what is wrong with a file that is no database', async () => {
    const garbage = join(folder, 'garbage.db');
    await writeFile(garbage, 'no database at all, but long enough to be looked at as one'.repeat(20));
    expect(() => openSqlite(garbage)).toThrow(expect.objectContaining({ code: 'ECLUSE_STATE_CORRUPT' }));
    expect(() => openSqlite(join(folder, 'absent', 'x.db'))).toThrow(
      expect.objectContaining({ code: 'ECLUSE_STATE_UNREADABLE' }),
    );
  });

  test('write() undoes the whole batch when one write meets the wrong number of rows', async () => {
    const outcome = await sql.write([
      { sql: `UPDATE tenant SET state = 'suspended' WHERE name = ?`, values: ['acme'], expectRows: 1 },
      { sql: `UPDATE tenant SET state = 'suspended' WHERE name = ?`, values: ['nobody'], expectRows: 1 },
    ]);
    expect(outcome).toEqual({ kind: 'conflict', index: 1 });
    expect((await sql.read('SELECT state FROM tenant', []))[0]).toMatchObject({ state: 'active' });
  });

  test('a container name is taken once in a tenant and free in another', async () => {
    await addTenant(sql, { ...TENANT, name: 'other' });
    expect((await insertContainer(sql, ROW)).kind).toBe('done');
    expect((await insertContainer(sql, { ...ROW, id: 'cd'.repeat(32) })).kind).toBe('conflict');
    expect((await insertContainer(sql, { ...ROW, id: 'ef'.repeat(32), tenant: 'other' })).kind).toBe('done');
  });

  test('findByIdPrefix() stays inside the tenant', async () => {
    await addTenant(sql, { ...TENANT, name: 'other' });
    await insertContainer(sql, ROW);
    expect(await findByIdPrefix(sql, 'acme', 'abab')).toEqual([ROW]);
    expect(await findByIdPrefix(sql, 'other', 'abab')).toEqual([]);
    expect(await findByIdPrefix(sql, 'acme', 'abac')).toEqual([]);
    expect(await findByIdPrefix(sql, 'acme', ROW.id)).toEqual([ROW]);
  });

  test('the edition of containers is another one after whatever happened to one of them, and only then', async () => {
    const editions = [await containerEdition(sql)];
    const after = async (change: Promise<unknown>): Promise<void> => {
      await change;
      editions.push(await containerEdition(sql));
    };
    await after(insertContainer(sql, ROW));
    await after(bindEngine(sql, ROW.id, 'engine'));
    await after(setResume(sql, ROW.id, true));
    await after(deleteContainer(sql, { ...ROW, engineId: 'engine' }, 20));
    expect(new Set(editions).size).toBe(5);
    const last = editions.at(-1);
    await sql.write([openIncarnationWrite(AT)]);
    expect(await sql.write([{ sql: 'UPDATE container SET resume = 1', values: [], expectRows: 1 }])).toMatchObject({
      kind: 'conflict',
    });
    expect(await containerEdition(sql)).toBe(last);
  });

  test('updateLife() and deleteContainer() do nothing for a container that moved', async () => {
    await insertContainer(sql, ROW);
    await bindEngine(sql, ROW.id, 'new-engine');
    const stale = { ...ROW, engineId: 'old-engine' };
    expect((await updateLife(sql, stale, { ...ROW, state: 'exited' }, 20)).kind).toBe('conflict');
    expect((await deleteContainer(sql, stale, 20)).kind).toBe('conflict');
    expect((await listContainersOf(sql, 'acme'))[0]?.state).toBe('created');
  });

  test('a ledger interval is appended once, and the cursor goes with it', async () => {
    await sql.write([openIncarnationWrite(AT)]);
    const now = { cpuNs: 5, memoryBytes: 7, cgroupIdentity: 'boot:1' };
    const ledger = new LedgerWriter(sql);
    expect((await ledger.append(AT, INTERVAL, now)).kind).toBe('done');
    expect((await ledger.append(AT, INTERVAL, now)).kind).toBe('conflict');
    expect(await findIncarnation(sql, ROW.id, 1)).toMatchObject({ seq: 1, meteredToMs: 200, cpuNs: 5 });
    const [row, ...rest] = await readNamedRows(sql, { tenant: 'acme', fromMs: 0, untilMs: 1000 }, 'all');
    expect(rest).toEqual([]);
    expect(row).toMatchObject({ seq: 1, fromMs: 100, toMs: 200, cpuNs: 5, memoryByteMs: 2n ** 60n, name: 'web' });
  });

  test('commitMigration() flips container, journal and incarnations together, or nothing', async () => {
    await insertContainer(sql, ROW);
    await bindEngine(sql, ROW.id, 'source-engine');
    await sql.write([openIncarnationWrite(AT)]);
    const journal: MigrationRow = {
      id: 'm1',
      container: ROW.id,
      sourceHost: 'a',
      targetHost: 'b',
      sourceEngineId: 'source-engine',
      targetEngineId: undefined,
      state: 'preparing',
    };
    expect((await beginMigration(sql, journal, 1)).kind).toBe('done');
    expect((await beginMigration(sql, { ...journal, id: 'm2' }, 1)).kind).toBe('conflict');
    const target = {
      engineId: 'target-engine',
      address: '10.1.1.2',
      lanAddress: '10.1.1.2',
      carriedStart: 't',
      incarnation: { ...AT, incarnation: 2, host: 'b' },
      nowMs: 300,
      more: [],
    };
    // Not paused yet: the batch must not go through.
    expect((await commitMigration(sql, journal, target)).kind).toBe('conflict');
    expect((await listContainersOf(sql, 'acme'))[0]?.host).toBe('a');
    expect(await findIncarnation(sql, ROW.id, 2)).toBeUndefined();
    await setMigrationState(sql, journal, 'paused', 2);
    expect((await commitMigration(sql, journal, target)).kind).toBe('done');
    expect((await listContainersOf(sql, 'acme'))[0]).toMatchObject({ host: 'b', engineId: 'target-engine', incarnation: 2 });
    expect((await findIncarnation(sql, ROW.id, 1))?.closedMs).toBe(300);
    expect((await commitMigration(sql, journal, target)).kind).toBe('conflict');
    expect((await listOpenMigrations(sql)).map((open) => open.state)).toEqual(['committed']);
  });

  test('a certificate speaks for an active tenant until it expires', async () => {
    await addTenantCertificate(sql, { fingerprint: 'f', tenant: 'acme', notAfterMs: 100 });
    expect((await tenantOfCertificate(sql, 'f', 99))?.name).toBe('acme');
    expect(await tenantOfCertificate(sql, 'f', 100)).toBeUndefined();
    await updateTenant(sql, { ...TENANT, state: 'suspended' }, 1);
    expect(await tenantOfCertificate(sql, 'f', 99)).toBeUndefined();
  });

  test('references of one tenant are not those of another, and the last holder counts', async () => {
    await addTenant(sql, { ...TENANT, name: 'other' });
    await putImage(sql, { tenant: 'acme', imageId: 'sha256:1', reference: 'x:latest', nowMs: 1 });
    await putImage(sql, { tenant: 'acme', imageId: 'sha256:2', reference: 'x:latest', nowMs: 2 });
    await putImage(sql, { tenant: 'other', imageId: 'sha256:1', reference: undefined, nowMs: 3 });
    expect(await listImages(sql, 'acme')).toEqual([
      { imageId: 'sha256:2', createdMs: 2, references: ['x:latest'], digests: [] },
      { imageId: 'sha256:1', createdMs: 1, references: [], digests: [] },
    ]);
    expect(await countHolders(sql, 'sha256:1')).toBe(2);
    expect((await dropReference(sql, 'other', 'x:latest')).kind).toBe('conflict');
    await dropImage(sql, 'acme', 'sha256:1');
    expect(await countHolders(sql, 'sha256:1')).toBe(1);
  });

  test('takeHostNetwork() gives a tenant one number a host, and the lowest free one', async () => {
    expect(await takeHostNetwork(sql, 'a', 'acme')).toBe(1);
    expect(await takeHostNetwork(sql, 'a', 'other')).toBe(2);
    expect(await takeHostNetwork(sql, 'a', 'acme')).toBe(1);
    expect(await takeHostNetwork(sql, 'b', 'other')).toBe(1);
  });
});
