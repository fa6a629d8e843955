/** Whatever is done to a ledger or to an export of it is found, and what is found is named. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verifyChains } from '#caas/ledger-proof.ts';
import type { ChainVerdict } from '#caas/ledger-proof.ts';
import { signEnd, signHead } from '#metering/ledger-head.ts';
import { listChains, listHeads } from '#state/ledger-heads.ts';
import { SCHEMA_VERSIONS } from '#state/schema.ts';
import { openSqlite } from '#state/sqlite.ts';
import { DAY_MS, exportText, fillLedger, meter, newLedgerKey, openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';
import { VERIFIER, verifyText } from '../../support/verify-ledger.ts';

const FIXTURES = fileURLToPath(new URL('../../fixtures', import.meta.url));
/** The schema of the store that is in them. */
const VERSIONS_BEFORE = 12;

/** A line with its signature as bytes: a Base64 text has bits at its end that mean nothing. */
function unpacked(line: string): unknown {
  try {
    return JSON.parse(line, (key, value: unknown) =>
      key === 'signature' && typeof value === 'string' ? Buffer.from(value, 'base64').toString('hex') : value,
    );
  } catch {
    return line;
  }
}

let folder: string;
let store: LedgerStore;
let whole: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-proof-'));
  store = await openLedgerStore(folder);
  await fillLedger(store);
  whole = await exportText(store, 'acme');
}, 30_000);

afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** What is found in a copy of the store that something was done to. */
async function verifyCopy(spoil: (database: DatabaseSync) => void): Promise<readonly ChainVerdict[]> {
  const file = join(folder, 'copy.db');
  for (const end of ['', '-wal', '-shm']) await rm(`${file}${end}`, { force: true });
  await store.sql.read('PRAGMA wal_checkpoint(TRUNCATE)', []);
  await copyFile(store.file, file);
  const database = new DatabaseSync(file);
  database.exec('PRAGMA foreign_keys = OFF');
  spoil(database);
  database.close();
  await using sql = openSqlite(file);
  return await verifyChains({ ...store, sql }, { tenant: undefined, fromDay: undefined, toDay: undefined }, () => undefined);
}

async function faultOf(spoil: (database: DatabaseSync) => void): Promise<string | undefined> {
  return (await verifyCopy(spoil)).find(({ fault }) => fault !== null)?.fault?.text;
}

/** Two letters that a column does not begin with: one of these. */
function another(column: string, one: string, other: string): string {
  return `CASE WHEN substr(${column}, 1, 2) = '${one}' THEN '${other}' ELSE '${one}' END`;
}

describe('the store', { timeout: 30_000 }, () => {
  test('fits as it is, with its heads, its corrections and every row', async () => {
    const verdicts = await verifyCopy(() => undefined);
    expect(verdicts.map(({ tenant, fault, heads, corrections }) => ({ tenant, fault, heads, corrections }))).toEqual([
      { tenant: 'acme', fault: null, heads: 3, corrections: 1 },
      { tenant: 'other', fault: null, heads: 3, corrections: 0 },
    ]);
    const [rows] = await store.sql.read('SELECT COUNT(*) AS rows FROM ledger', []);
    expect(verdicts.reduce((sum, { rows: count }) => sum + count, 0)).toBe(Number(rows?.['rows']));
  });

  test('says how far it is when it takes over a second', async () => {
    let ms = 0;
    const clock = { ...store.clock, monotonicMs: () => (ms += 1500) };
    const told: unknown[] = [];
    await verifyChains({ ...store, clock }, { tenant: 'acme', fromDay: undefined, toDay: undefined }, (progress) => {
      told.push(progress);
    });
    const [chain] = await listChains(store.sql);
    expect(told).toEqual([
      { tenant: 'acme', what: 'sums', rows: 4, of: 4 },
      { tenant: 'acme', what: 'rows', rows: chain?.number, of: chain?.number },
    ]);
  });

  test('any field of any row that is changed is found, at that row', async () => {
    const { number: last } = (await listChains(store.sql)).find(({ tenant }) => tenant === 'acme') ?? { number: 0 };
    const numbers = ['incarnation', 'seq', 'from_ms', 'to_ms', 'cpu_ns', 'memory_byte_ms', 'requests', 'ingress_bytes'];
    const sums = ['egress_bytes', 'held_ms', 'snapshot_byte_ms', 'disk_byte_ms', 'stream_ms'];
    const columns = [...numbers, ...sums, 'container', 'host', 'reason', 'hash', 'kind'];
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: last }), fc.constantFrom(...columns), async (number, column) => {
        const change = [...numbers, ...sums].includes(column) ? `${column} + 1000000` : `${column} || 'x'`;
        const fault = await faultOf((database) => {
          database.prepare(`UPDATE ledger SET ${column} = ${change} WHERE tenant = 'acme' AND number = ?`).run(number);
        });
        expect(fault).toMatch(new RegExp(`^row ${String(number)}: its hash is not that of its fields`));
      }),
      { numRuns: 40 },
    );
  }, 60_000);

  test('a row that is removed is found, also the last one', async () => {
    const { number: last } = (await listChains(store.sql)).find(({ tenant }) => tenant === 'acme') ?? { number: 0 };
    const remove = (number: number) => (database: DatabaseSync) => {
      database.prepare(`DELETE FROM ledger WHERE tenant = 'acme' AND number = ?`).run(number);
    };
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: last - 1 }), async (number) => {
        expect(await faultOf(remove(number))).toBe(`row ${String(number + 1)}: row ${String(number)} is missing before it`);
      }),
      { numRuns: 10 },
    );
    expect(await faultOf(remove(last))).toMatch(/rows after \d+ (?:up to \d+ )?are missing/);
  }, 30_000);

  test('rows that are swapped, and one that is moved to another tenant, are found', async () => {
    const swapped = await faultOf((database) => {
      database.exec(`UPDATE ledger SET number = -1 WHERE tenant = 'acme' AND number = 4;
        UPDATE ledger SET number = 4 WHERE tenant = 'acme' AND number = 9; UPDATE ledger SET number = 9 WHERE tenant = 'acme' AND number = -1`);
    });
    expect(swapped).toMatch(/^row 4: its hash is not/);
    const moved = await faultOf((database) => {
      database.exec(`UPDATE ledger SET tenant = 'other', number = 999 WHERE tenant = 'acme' AND number = 4`);
    });
    expect(moved).toBe('row 5: row 4 is missing before it');
  });

  test('a head that is changed, replaced, or signed by another key is found and named', async () => {
    const [head] = await listHeads(store.sql, 'acme');
    if (head === undefined) throw new Error('there is no head');
    for (const column of ['day', 'number', 'hash', 'totals', 'signed_ms', 'key', 'signature']) {
      const fault = await faultOf((database) => {
        const value = {
          day: `'2026-10-31'`,
          totals: `replace(totals, '"requests":"', '"requests":"9')`,
          signature: `${another('signature', 'AA', 'BB')} || substr(signature, 3)`,
          number: '-1',
          signed_ms: 'signed_ms + 1',
        }[column];
        database.exec(
          `UPDATE ledger_head SET ${column} = ${value ?? `${another(column, 'ff', '00')} || substr(${column}, 3)`} WHERE tenant = 'acme' AND day = '${head.day}'`,
        );
      });
      expect(fault, column).toMatch(
        /^head of 2026-1[01]-\d\d: it(?:s signature is not of what it says| is signed by another key)/,
      );
    }
    const forged = signHead({ ...head, totals: { ...head.totals, requests: 0n } }, newLedgerKey());
    expect(
      await faultOf((database) => {
        database
          .prepare(
            `UPDATE ledger_head SET totals = replace(totals, '"requests":"', '"requests":"9'), key = ?, signature = ? WHERE tenant = 'acme' AND day = ?`,
          )
          .run(forged.key, forged.signature, head.day);
      }),
    ).toBe(
      `head of ${head.day}: it is signed by another key (${forged.key.slice(0, 16)}), which is none that this node has signed with`,
    );
    // A true head of another moment, in the place of this one.
    expect(
      await faultOf((database) => {
        const early = signHead({ ...head, number: 1 }, store.key);
        database
          .prepare(`UPDATE ledger_head SET number = 1, signature = ? WHERE tenant = 'acme' AND day = ?`)
          .run(early.signature, head.day);
      }),
    ).toBe(`head of ${head.day}: the chain had another row 1 when it was signed`);
  });

  test('a head that is removed is found, the first, the last and all; and one that was renumbered', async () => {
    const heads = await listHeads(store.sql, 'acme');
    expect(heads.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    const removed = async (where: string): Promise<string | undefined> =>
      await faultOf((database) => database.exec(`DELETE FROM ledger_head WHERE tenant = 'acme' AND ${where}`));
    expect(await removed('sequence = 1')).toBe(
      `head of ${heads[1]?.day ?? ''}: it is head 2 of the chain, and there are 0 before it`,
    );
    expect(await removed('sequence = 2')).toBe(
      `head of ${heads[2]?.day ?? ''}: it is head 3 of the chain, and there are 1 before it`,
    );
    expect(await removed('sequence = 3')).toBe('the chain has 3 heads, and 2 of them are there');
    expect(await removed('sequence > 0')).toBe('the chain has 3 heads, and 0 of them are there');
    const renumbered = `DELETE FROM ledger_head WHERE tenant = 'acme' AND sequence = 1;
      UPDATE ledger_head SET sequence = sequence - 1 WHERE tenant = 'acme'; UPDATE ledger_chain SET heads = 2 WHERE tenant = 'acme'`;
    expect(await faultOf((database) => database.exec(renumbered))).toMatch(/its signature is not of what it says/);
  });

  test('a chain whose end or sums were written over is found', async () => {
    expect(
      await faultOf((database) => database.exec(`UPDATE ledger_chain SET number = number + 3 WHERE tenant = 'acme'`)),
    ).toMatch(/are missing$/);
    expect(
      await faultOf((database) => database.exec(`UPDATE ledger_chain SET totals = replace(totals, '"rows":"', '"rows":"1')`)),
    ).toMatch(/sums are not those of the rows$/);
  });
});

/** A store that a program wrote before disks and streams were counted, some of it before heads were: it is brought up to date when it is opened. */
describe('a store from before', { timeout: 30_000 }, () => {
  async function openOld(name: string): Promise<LedgerStore> {
    return await openLedgerStore(folder, undefined, async (file) => {
      const database = new DatabaseSync(file);
      for (const statement of SCHEMA_VERSIONS.slice(0, VERSIONS_BEFORE).flat()) database.exec(statement);
      database.exec(`PRAGMA user_version = ${String(VERSIONS_BEFORE)}`);
      database.exec(await readFile(join(FIXTURES, `${name}.sql`), 'utf8'));
      database.close();
    });
  }
  const everything = { tenant: undefined, fromDay: undefined, toDay: undefined };

  test('fits as it was written, and goes on; its sums are what they were', async () => {
    await using old = await openOld('ledger-before-disks');
    const heads = await listHeads(old.sql, 'acme');
    expect(heads.map(({ format, sequence }) => [format, sequence])).toEqual([
      [1, 0],
      [2, 2],
      [2, 3],
    ]);
    const [verdict] = await verifyChains(old, everything, () => undefined);
    expect(verdict).toMatchObject({ fault: null, rows: 7, heads: 3, corrections: 1 });
    const span = { tenant: 'acme', sinceMs: 0, untilMs: START_MS + 30 * DAY_MS, by: 'tenant' } as const;
    const [before] = await old.keeper.usage(span);
    expect(before).toMatchObject({ cpuNs: 356_356n, snapshotByteMs: 810_647_932_926_689_298n, diskByteMs: 0n, streamMs: 0n });

    // Containers are numbered: the store has acme's first three.
    for (let made = 0; made < 3; made += 1) await old.container('other', 'a', START_MS);
    const at = await old.container('acme', 'a', START_MS + 4 * DAY_MS - 3_000_000);
    await meter(old, at, 600_000, 5);
    old.clock.setMs(START_MS + 4 * DAY_MS + 120_000);
    await old.keeper.round();
    const [after] = await old.keeper.usage(span);
    expect(after).toMatchObject({ diskByteMs: 5n * 2n ** 53n + 5n, streamMs: 185n });
    const [grown] = await verifyChains(old, everything, () => undefined);
    expect(grown).toMatchObject({ fault: null, rows: 8, heads: 4 });
    const text = await exportText(old, 'acme');
    expect(await verifyText(text, old.key.id)).toMatchObject({ fits: true, rows: 8 });
    const lastDay = await exportText(old, 'acme', '2026-11-04');
    expect(await verifyText(lastDay, old.key.id)).toMatchObject({ fits: true, rows: 1 });
  });

  test('a row or head of it that says more than its format covers is found, in the store and in an export', async () => {
    const spoilt = async (change: string): Promise<readonly (string | undefined)[]> => {
      await using old = await openOld('ledger-before-disks');
      await old.sql.write([{ sql: change, values: [] }]);
      const [verdict] = await verifyChains(old, everything, () => undefined);
      return [verdict?.fault?.text, (await verifyText(await exportText(old, 'acme'), old.key.id)).why];
    };
    expect(await spoilt('UPDATE ledger SET disk_byte_ms = 1 WHERE number = 2')).toEqual([
      'row 2: it has something that rows of its format have not: a field of it was changed',
      'row 2: its format has no diskByteMs, and it says one',
    ]);
    expect(await spoilt('UPDATE ledger SET format = 2 WHERE number = 2')).toEqual([
      expect.stringMatching(/^row 2: its hash is not that of its fields/),
      'row 2: its hash is not that of its fields and the hash before it',
    ]);
    expect(await spoilt('UPDATE ledger SET format = 7 WHERE number = 2')).toEqual([
      'row 2: it is of the unknown format 7',
      'row 2: it is of an unknown format',
    ]);
    const totals = `json_set(totals, '$.streamMs', '5')`;
    expect(await spoilt(`UPDATE ledger_head SET totals = ${totals} WHERE day = '2026-11-02'`)).toEqual([
      expect.stringMatching(/^head of 2026-11-02: its signature is not of what it says/),
      'head of 2026-11-02: its format has no streamMs, and it says one',
    ]);
    expect(await spoilt(`UPDATE ledger_head SET format = 2 WHERE day = '2026-11-01'`)).toEqual([
      expect.stringMatching(/^head of 2026-11-01: its signature is not of what it says/),
      expect.stringMatching(/^head of 2026-11-01: its signature is not of what it says/),
    ]);
    expect(await spoilt(`UPDATE ledger_head SET sequence = 1 WHERE day = '2026-11-01'`)).toEqual([
      expect.stringMatching(/^head of 2026-11-01: its signature is not of what it says/),
      'head of 2026-11-01: it is of an unknown format',
    ]);
  });

  test('of its heads none can be left out', async () => {
    await using old = await openOld('ledger-before-disks');
    await old.sql.write([{ sql: `DELETE FROM ledger_head WHERE day = '2026-11-01'`, values: [] }]);
    const [verdict] = await verifyChains(old, everything, () => undefined);
    expect(verdict?.fault?.text).toBe('head of 2026-11-02: it is head 2 of the chain, and there are 0 before it');
  });

  test('an export that was made then fits as it did, and is not taken for one of today', async () => {
    const text = await readFile(join(FIXTURES, 'ledger-before-disks.jsonl'), 'utf8');
    expect(await verifyText(text)).toMatchObject({ fits: true, rows: 7 });
    const changed = text.replace('"heldMs":"4"', '"heldMs":"5"');
    expect(changed).not.toBe(text);
    expect((await verifyText(changed)).why).toMatch(/^row \d: its hash is not/);
    expect(await verifyText(text.replace('export-1"', 'export-3"'))).toMatchObject({ fits: false });
  });
});

describe('an export', { timeout: 60_000 }, () => {
  test('fits, as a whole and by days, and says what is in it', async () => {
    expect(await verifyText(whole, store.key.id)).toMatchObject({ fits: true });
    const days = await exportText(store, 'acme', '2026-11-02', '2026-11-02');
    const verdict = await verifyText(days);
    expect(verdict.fits).toBe(true);
    expect(verdict.rows).toBeGreaterThan(10);
    expect(days.split('\n').length).toBeLessThan(whole.split('\n').length);
  });

  test('any change of any value in any line is found', async () => {
    const lines = whole.trimEnd().split('\n');
    await fc.assert(
      fc.asyncProperty(fc.nat(lines.length - 1), fc.nat(), fc.nat(), async (lineAt, placeAt, by) => {
        const line = lines[lineAt] ?? '';
        const place = placeAt % line.length;
        const now = line.charCodeAt(place);
        // Another character than there was, and none that ends the line.
        const next = String.fromCharCode(33 + ((now - 33 + 1 + (by % 93)) % 94));
        if (next === line[place]) return;
        const text = [...lines];
        text[lineAt] = line.slice(0, place) + next + line.slice(place + 1);
        const verdict = await verifyText(`${text.join('\n')}\n`, store.key.id);
        const means = JSON.stringify(unpacked(text[lineAt] ?? ''));
        expect(verdict.fits && means !== JSON.stringify(unpacked(line))).toBe(false);
      }),
      { numRuns: 300 },
    );
  }, 60_000);

  test('lines that are removed, swapped, repeated or cut off are found', async () => {
    const lines = whole.trimEnd().split('\n');
    await fc.assert(
      fc.asyncProperty(fc.nat(lines.length - 1), fc.nat(lines.length - 1), async (one, other) => {
        const without = lines.filter((_line, index) => index !== one);
        expect((await verifyText(`${without.join('\n')}\n`)).fits).toBe(false);
        const repeated = lines.toSpliced(one, 0, lines[other] ?? '');
        expect((await verifyText(`${repeated.join('\n')}\n`)).fits).toBe(false);
        if (one === other) return;
        const swapped = lines.with(one, lines[other] ?? '').with(other, lines[one] ?? '');
        expect((await verifyText(`${swapped.join('\n')}\n`)).fits).toBe(false);
      }),
      { numRuns: 100 },
    );
    for (let length = 0; length < whole.length; length += 97)
      expect(await verifyText(whole.slice(0, length))).toMatchObject({ fits: false });
    expect((await verifyText(`${lines.slice(0, -1).join('\n')}\n`)).why).toBe('the export is truncated: its end is missing');
  }, 60_000);

  test('a head that is left out is found, also by who can sign the rest', async () => {
    const lines = whole.trimEnd().split('\n').slice(0, -1);
    const isHead = (line: string): boolean => line.startsWith('{"head"');
    const resigned = (kept: readonly string[]): string => {
      const text = `${kept.join('\n')}\n`;
      const sha256 = createHash('sha256').update(text).digest('hex');
      const [rows, heads] = [kept.filter((line) => line.startsWith('{"row"')).length, kept.filter(isHead).length];
      return `${text}${JSON.stringify({ end: signEnd({ tenant: 'acme', rows, heads, sha256 }, store.key) })}\n`;
    };
    expect((await verifyText(resigned(lines), store.key.id)).fits).toBe(true);
    const heads = lines.filter(isHead);
    expect(heads).toHaveLength(4);
    for (const left of heads.slice(0, -1)) {
      const verdict = await verifyText(resigned(lines.filter((line) => line !== left)), store.key.id);
      expect(verdict.why).toMatch(/^head of [-\w]+: it is head \d of the chain, and \d came before it$/);
    }
  });

  test('what another node made does not pass for this one', async () => {
    await using second = await openLedgerStore(folder);
    await fillLedger(second);
    const foreign = await exportText(second, 'acme');
    expect((await verifyText(foreign, second.key.id)).fits).toBe(true);
    expect((await verifyText(foreign, store.key.id)).why).toMatch(/^the export is of another key/);
    // A head of the other node under the same row.
    const lines = whole.trimEnd().split('\n');
    const at = lines.findIndex((line) => line.startsWith('{"head"'));
    const other = foreign.split('\n').find((line) => line.startsWith('{"head"')) ?? '';
    expect((await verifyText(`${lines.with(at, other).join('\n')}\n`)).why).toMatch(/is signed by another key/);
  }, 30_000);

  test('the program says so, and ends with the code for it', async () => {
    const file = join(folder, 'bill.jsonl');
    await writeFile(file, whole);
    const good = spawnSync(process.execPath, [VERIFIER, '--key', store.key.id, file], { encoding: 'utf8' });
    expect([good.status, good.stderr]).toEqual([0, '']);
    expect(good.stdout).toMatch(
      /^it fits: \d+ rows of tenant acme up to number \d+, 4 heads, signed by key [0-9a-f]{64}\n1 rows are corrections\n/,
    );
    await writeFile(file, whole.replace('"cpuNs":"', '"cpuNs":"1'));
    const bad = spawnSync(process.execPath, [VERIFIER, file], { encoding: 'utf8' });
    expect([bad.status, bad.stdout]).toEqual([1, '']);
    expect(bad.stderr).toMatch(/^it does not fit: row 1: its hash is not that of its fields/);
    expect(spawnSync(process.execPath, [VERIFIER]).status).toBe(2);
  }, 30_000);
});
