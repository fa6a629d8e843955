/** What nothing is signed of, and bills are made from, is compared with what is signed. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { verifyChains } from '#caas/ledger-proof.ts';
import type { ChainVerdict } from '#caas/ledger-proof.ts';
import type { Incarnation } from '#state/ledger.ts';
import { dropRows, listChains, listHeads } from '#state/ledger-heads.ts';
import { DAY_MS, fillLedger, meter, openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

let folder: string;
let store: LedgerStore;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-sums-'));
  store = await openLedgerStore(folder);
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function change(...statements: readonly string[]): Promise<void> {
  expect(await store.sql.write(statements.map((sql) => ({ sql, values: [] })))).toEqual({ kind: 'done' });
}

async function verify(tenant?: string, sql = store.sql): Promise<readonly ChainVerdict[]> {
  return await verifyChains({ ...store, sql }, { tenant, fromDay: undefined, toDay: undefined }, () => undefined);
}

async function faults(tenant?: string): Promise<readonly string[]> {
  return (await verify(tenant)).flatMap(({ tenant: of, fault }) => (fault === null ? [] : [`${of}: ${fault.text}`]));
}

const OF_CONTAINER = "SELECT id FROM usage_subject WHERE tenant = 'acme' AND container <> ''";
const OF_ALL = "SELECT id FROM usage_subject WHERE tenant = 'acme' AND container = ''";

describe('sums', () => {
  beforeEach(async () => {
    await fillLedger(store);
    await store.keeper.roll();
    expect(await faults()).toEqual([]);
  });

  const summed = String.raw`\(rows up to \d+ are said to be in the sums\)`;
  test.each([
    ['hours', 'UPDATE usage_hour SET cpu_ns = cpu_ns * 3', /^acme: usage_hour: cpu_ns of its containers adds up to/],
    [
      'days of containers',
      `UPDATE usage_day SET disk_rest = disk_rest + 1 WHERE subject IN (${OF_CONTAINER})`,
      /^acme: usage_day: disk_byte_ms of its containers/,
    ],
    [
      'hours of the tenant on a host',
      `UPDATE usage_hour SET memory_gib_ms = memory_gib_ms - 1 WHERE subject = (SELECT MAX(id) FROM (${OF_ALL}))`,
      /^acme: usage_hour: memory_byte_ms of all that it used adds up to/,
    ],
    [
      'days of both kinds and hours alike',
      `UPDATE usage_hour SET requests = requests + 24 WHERE start_ms = (SELECT MIN(start_ms) FROM usage_hour)`,
      /^acme: usage_hour: requests of its containers adds up to \d+, and by the chain to \d+ .*; requests of everything on a is \d+ in usage_hour and \d+ in usage_day$/,
    ],
    [
      'what is summed up, so that it would be again',
      'UPDATE ledger_chain SET rolled = 0',
      /^acme: usage_hour: cpu_ns of its containers adds up to \d+, and by the chain to 0 \(rows up to 0 are said/,
    ],
    [
      'one row of what is summed up',
      'UPDATE ledger_chain SET rolled = rolled - 1',
      new RegExp(`^acme: usage_hour: cpu_ns of its containers adds up to \\d+, and by the chain to \\d+ ${summed}$`),
    ],
    [
      'what is summed up, so that some is never',
      'UPDATE ledger_chain SET rolled = rolled + 5',
      /^acme: rows up to \d+ are said to be in the sums, and the chain ends at \d+$/,
    ],
    ['a container', `DELETE FROM usage_subject WHERE id = (SELECT MAX(id) FROM (${OF_CONTAINER}))`, /^acme: usage_hour: cpu_ns/],
  ])('that were changed are found: %s', async (_what, statement, said) => {
    await change(statement);
    const [found] = await faults('acme');
    expect(found).toMatch(said);
    const [verdict] = await verify('acme');
    expect(verdict?.fault?.mend).toMatch(/^issue no invoice of it/);
  });

  test('that were moved from a container to another are found where hours and days differ', async () => {
    const at = (order: string): string => `subject = (SELECT ${order}(id) FROM (${OF_CONTAINER}))`;
    const one = (order: string): string =>
      `${at(order)} AND start_ms = (SELECT MAX(start_ms) FROM usage_hour WHERE ${at(order)})`;
    await change(
      `UPDATE usage_hour SET cpu_ns = cpu_ns - 5 WHERE ${one('MIN')}`,
      `UPDATE usage_hour SET cpu_ns = cpu_ns + 5 WHERE ${one('MAX')}`,
    );
    expect(await faults('acme')).toEqual([
      expect.stringMatching(
        /^acme: the sums do not fit: cpu_ns of [0-9a-f]{12} on [ab] is \d+ in usage_hour and \d+ in usage_day$/,
      ),
    ]);
  });

  test('that have rows twice, because they were summed up again, are found', async () => {
    await change('UPDATE ledger_chain SET rolled = 0');
    await store.keeper.roll();
    expect(await faults()).toEqual([
      expect.stringMatching(/^acme: usage_hour: cpu_ns of its containers adds up to/),
      expect.stringMatching(/^other: usage_hour: cpu_ns of its containers adds up to/),
    ]);
  });

  test('of a part of a chain are not looked at', async () => {
    await change('UPDATE usage_hour SET cpu_ns = cpu_ns * 3');
    const verdicts = await verifyChains(store, { tenant: 'acme', fromDay: '2026-11-02', toDay: undefined }, () => undefined);
    expect(verdicts).toMatchObject([{ fault: null }]);
  });
});

test('sums that rows are added to while they are read fit, and rows that wait to be', async () => {
  let running: readonly Incarnation[] = await Promise.all(
    Array.from({ length: 30 }, async (_none, index) => await store.container('acme', index % 2 === 0 ? 'a' : 'b', START_MS)),
  );
  let seed = 0;
  const use = async (): Promise<void> => {
    running = await Promise.all(running.map(async (at) => await meter(store, at, 3_000_000, (seed += 1) % 100)));
  };
  await use();
  await store.keeper.roll();
  await use();
  let pages = 0;
  const sql: LedgerStore['sql'] = {
    read: async (text, values) => {
      if (text.includes('LEFT JOIN')) {
        pages += 1;
        running = [...running, await store.container('acme', 'c', START_MS)];
        await use();
        if (pages !== 2) await store.keeper.roll();
      }
      return await store.sql.read(text, values);
    },
    write: async (writes) => await store.sql.write(writes),
    [Symbol.asyncDispose]: async () => undefined,
  };
  const [verdict] = await verify('acme', sql);
  expect(verdict).toMatchObject({ fault: null });
  expect(pages).toBeGreaterThan(2);
  const [chain] = await listChains(store.sql);
  expect(verdict?.rows).toBe(chain?.number);
  await change(`UPDATE usage_hour SET requests = requests + 1 WHERE subject = (SELECT MIN(id) FROM (${OF_CONTAINER}))`);
  expect(await verify('acme', sql)).toMatchObject([
    { fault: { text: expect.stringMatching(/^usage_hour: requests/) as unknown } },
  ]);
});

describe('rows that are gone as if they were old', () => {
  test('are found where they are younger than what is kept', async () => {
    await fillLedger(store);
    const last = (await listHeads(store.sql, 'acme')).at(-1)?.number ?? 0;
    await change(
      `DELETE FROM ledger WHERE tenant = 'acme' AND number <= ${String(last)}`,
      `UPDATE ledger_chain SET dropped = ${String(last)} WHERE tenant = 'acme'`,
    );
    expect(await faults()).toEqual([
      `acme: rows up to ${String(last)} are gone as if they were old, and only those up to 0 are older than 40 days`,
    ]);
  });

  test('are none where they were old, up to the head before, while they are dropped and before they are summed up', async () => {
    await fillLedger(store);
    const [first] = await listHeads(store.sql, 'acme');
    const number = first?.number ?? 0;
    store.clock.setMs(START_MS + 41 * DAY_MS);
    expect(await dropRows(store.sql, 'acme', { from: 0, to: number - 9 })).toEqual({ kind: 'done' });
    expect(await faults()).toEqual([]);
    store.clock.setMs(START_MS + 39 * DAY_MS);
    expect(await faults()).toEqual([
      `acme: rows up to ${String(number - 9)} are gone as if they were old, and only those up to 0 are older than 40 days`,
    ]);
  });

  test('leave sums that fit, also where those before the next head are not summed up yet', async () => {
    let at = await store.container('acme', 'a', START_MS);
    at = await meter(store, at, 30_000_000, 1);
    await store.keeper.roll();
    const [half] = await listChains(store.sql);
    await meter(store, at, 50_000_000, 2);
    store.clock.setMs(START_MS + DAY_MS + 120_000);
    // A round signs what it has summed up: the cursor and the sums are put back to where they were.
    const tables = ['usage_subject', 'usage_hour', 'usage_day'];
    const kept = tables.map((table) => `CREATE TABLE kept_${table} AS SELECT * FROM ${table}`);
    await change(...kept);
    await store.keeper.round();
    await change(
      ...tables.flatMap((table) => [`DELETE FROM ${table}`, `INSERT INTO ${table} SELECT * FROM kept_${table}`]),
      `UPDATE ledger_chain SET rolled = ${String(half?.number)}`,
    );
    store.clock.setMs(START_MS + 50 * DAY_MS);
    expect(await dropRows(store.sql, 'acme', { from: 0, to: half?.number ?? 0 })).toEqual({ kind: 'done' });
    expect(await verify()).toMatchObject([{ fault: null, rows: 0 }]);
    // The rest is summed up and dropped after the sums were read.
    const [head] = await listHeads(store.sql, 'acme');
    let isDone = false;
    const sql: LedgerStore['sql'] = {
      write: async (writes) => await store.sql.write(writes),
      [Symbol.asyncDispose]: async () => undefined,
      read: async (text, values) => {
        const rows = await store.sql.read(text, values);
        if (!text.includes('LEFT JOIN') || isDone) return rows;
        isDone = true;
        await store.keeper.roll();
        expect(await dropRows(store.sql, 'acme', { from: half?.number ?? 0, to: head?.number ?? 0 })).toEqual({ kind: 'done' });
        return rows;
      },
    };
    expect(await verify('acme', sql)).toMatchObject([{ fault: null, rows: 0, dropped: head?.number }]);
  });
});

describe('a tenant without a chain', () => {
  const removed = ['ledger', 'ledger_head', 'ledger_chain', 'usage_subject', 'incarnation'];
  test.each([
    ['ledger', removed.toSpliced(0, 1)],
    ['ledger_head', removed.toSpliced(1, 1)],
    ['usage_subject', removed.toSpliced(3, 1)],
    ['incarnation', removed.toSpliced(4, 1)],
  ])('of whom there is something in %s is found', async (table, tables) => {
    await fillLedger(store);
    await change(...tables.map((name) => `DELETE FROM ${name} WHERE tenant = 'acme'`));
    const text = `the table ${table} has something of it, and there is no chain: its rows were removed with their chain`;
    expect(await verify()).toMatchObject([
      { tenant: 'other', fault: null },
      { tenant: 'acme', rows: 0, fault: { text, mend: 'restore the store from a backup that has them' } },
    ]);
    expect(await faults('acme')).toEqual([`acme: ${text}`]);
    expect(await faults('other')).toEqual([]);
  });

  const disk = (tenant: string, bytes: number, meteredMs: number): string =>
    `INSERT INTO disk_use (id, tenant, name, host, bytes, metered_ms) VALUES ('volume/${tenant}', '${tenant}', 'v', 'a', ${String(bytes)}, ${String(meteredMs)})`;

  test('of whom nothing was metered yet is none', async () => {
    await store.container('fresh', 'a', START_MS);
    await change(disk('empty', 0, START_MS), disk('found', 5, START_MS + 60_000));
    expect(await verify()).toEqual([]);
    await expect(verify('fresh')).rejects.toMatchObject({ code: 'ECLUSE_LEDGER_EMPTY' });
    await change(disk('counted', 5, START_MS));
    expect(await faults()).toEqual([expect.stringMatching(/^counted: the table disk_use has something of it/)]);
  });

  test('is found behind however much there is of others', async () => {
    const at = await meter(store, await store.container('acme', 'a', START_MS), 1000, 1);
    const many = (container: string, tenant: string, incarnations: number): string =>
      `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ${String(incarnations)})
       INSERT INTO incarnation SELECT ${container}, i, '${tenant}', host, name, cgroup, cgroup_identity, opened_ms, closed_ms, 1, metered_to_ms, cpu_ns, memory_bytes
       FROM incarnation, n WHERE container = '${at.container}' AND incarnation = 1`;
    await change(many(`'${at.container}'`, 'acme', 4500), many(`'z' || i`, 'acme', 2500), many(`'zz'`, 'gone', 2));
    expect(await faults()).toEqual([expect.stringMatching(/^gone: the table incarnation has something of it/)]);
  });
});
