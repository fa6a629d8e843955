/** Old rows are dropped while the ledger is looked through and while it is exported: nothing false is said of it, and what is written is whole. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import * as z from 'zod';
import type { LedgerControl } from '#admin/metering-control.ts';
import { KEEPER_OPTIONS } from '#caas/ledger-keeper.ts';
import { verifyChains } from '#caas/ledger-proof.ts';
import type { ChainVerdict } from '#caas/ledger-proof.ts';
import { dropRows, listHeads } from '#state/ledger-heads.ts';
import { GRAIN_MS } from '#state/usage-rollups.ts';
import { runLedgerCommand } from '../../../src/cli-ledger.ts';
import { meter, openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

const VERIFIER = fileURLToPath(new URL('../../../scripts/verify-ledger.mjs', import.meta.url));
const moduleSchema = z.object({
  verifyExport: z.custom<(text: string, key?: string) => unknown>((value) => typeof value === 'function'),
});
/** So that they are old already. */
const KEEP_MS = GRAIN_MS.hour;
/** Rows are read in thousands. The rows under the first head, under the second, and all. */
const [FIRST, SECOND, ALL_ROWS] = [600, 1600, 1700];

let folder: string;
let store: LedgerStore;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-dropped-'));
  store = await openLedgerStore(folder, { ...KEEPER_OPTIONS, keepRowsMs: 10_000 * GRAIN_MS.hour });
  let at = await store.container('acme', 'a', START_MS);
  let before = 0;
  for (const rows of [FIRST, SECOND, ALL_ROWS]) {
    at = await meter(store, at, (rows - before) * GRAIN_MS.hour, rows);
    before = rows;
    store.clock.setMs(at.meteredToMs + 120_000);
    if (rows === ALL_ROWS) await store.keeper.roll();
    else await store.keeper.round();
  }
  expect((await listHeads(store.sql, 'acme')).map(({ number }) => number)).toEqual([FIRST, SECOND]);
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function drop(from: number, to: number): Promise<void> {
  expect(await dropRows(store.sql, 'acme', { from, to })).toEqual({ kind: 'done' });
}

/** What is found when something happens before the rows after a number are read. */
async function verifyWith(happen: (after: number) => Promise<void>): Promise<readonly ChainVerdict[]> {
  const sql: LedgerStore['sql'] = {
    read: async (text, values) => {
      if (text.includes('FROM ledger WHERE tenant = ? AND number > ?')) await happen(Number(values[1]));
      return await store.sql.read(text, values);
    },
    write: async (writes) => await store.sql.write(writes),
    [Symbol.asyncDispose]: async () => undefined,
  };
  return await verifyChains(
    { ...store, sql, keepRowsMs: KEEP_MS },
    { tenant: 'acme', fromDay: undefined, toDay: undefined },
    () => undefined,
  );
}

test.each([
  ['before its first row is read', 0, 500, FIRST],
  ['in the middle of it', 1000, 1200, SECOND],
])(
  'rows that are dropped while a chain is looked through, %s, are not missing: it goes on from the head over them',
  async (...given) => {
    const [, at, to, head] = given;
    const afters: number[] = [];
    const verdicts = await verifyWith(async (after) => {
      afters.push(after);
      if (after === at) await drop(0, to);
    });
    expect(afters).toEqual(at === 0 ? [0, FIRST, SECOND] : [0, 1000, SECOND]);
    expect(verdicts).toMatchObject([{ tenant: 'acme', fault: null, rows: ALL_ROWS - head, number: ALL_ROWS, dropped: to }]);
  },
);

test('rows that are removed without a word meanwhile are missing', async () => {
  const verdicts = await verifyWith(async (after) => {
    if (after > 0) await store.sql.write([{ sql: 'DELETE FROM ledger WHERE number < 1200', values: [] }]);
  });
  expect(verdicts[0]?.fault?.text).toBe('row 1200: rows 1001 to 1199 are missing before it');
});

/** What an export writes, and how it fails, when something happens before its rows after a number are read. */
async function exportWith(
  happen: (after: number) => Promise<void>,
): Promise<{ readonly text: string; readonly failed: unknown }> {
  const { control } = store;
  const ledger: LedgerControl = {
    keys: async () => await control.keys(),
    verify: async (request, onProgress) => await control.verify(request, onProgress),
    exportRange: async (tenant, days) => await control.exportRange(tenant, days),
    exportPage: async (tenant, after, until) => {
      await happen(after);
      return await control.exportPage(tenant, after, until);
    },
    exportEnd: async (made) => await control.exportEnd(made),
    correct: async (request) => await control.correct(request),
  };
  const command = { kind: 'ledger-export', daemon: { dataDir: undefined, adminSocket: undefined }, json: false } as const;
  let text = '';
  const failed: unknown = await runLedgerCommand(
    { ...command, tenant: 'acme', fromDay: undefined, toDay: undefined },
    { ledger },
    { write: (more) => (text += more), note: () => undefined, isScreen: false, isNoteScreen: false },
  ).then(
    () => undefined,
    (error: unknown) => error,
  );
  return { text, failed };
}

test('an export begins again when rows are dropped before anything of it was written, and fits', async () => {
  let dropped = 0;
  const { text, failed } = await exportWith(async () => {
    if (dropped === 0) await drop(0, (dropped = 500));
  });
  expect(failed).toBe(undefined);
  const imported: unknown = await import(VERIFIER);
  const { verifyExport } = moduleSchema.parse(imported);
  expect(verifyExport(text, store.key.id)).toMatchObject({ fits: true, rows: ALL_ROWS - FIRST });
});

test('an export of which rows are dropped after it has begun says so and fails; rows that went without a word are another fault', async () => {
  const after = await exportWith(async (number) => {
    if (number === 1000) await drop(0, 1200);
  });
  expect(after.failed).toMatchObject({ code: 'ECLUSE_LEDGER_DROPPED', mend: 'throw away what was written, and run it again' });
  expect(after.text).not.toContain('{"end"');
  await drop(1200, 1300);
  const again = await exportWith(async (number) => {
    if (number === SECOND) await store.sql.write([{ sql: 'DELETE FROM ledger WHERE number < 1650', values: [] }]);
  });
  expect(again).toMatchObject({ text: '', failed: { code: 'ECLUSE_LEDGER_MISFIT' } });
});

test('an export of which rows are dropped again when it begins again has written nothing', async () => {
  let at = 0;
  const { text, failed } = await exportWith(async () => {
    const from = at;
    at = from === 0 ? 500 : 1300;
    await drop(from, at);
  });
  expect(text).toBe('');
  expect(failed).toMatchObject({ code: 'ECLUSE_LEDGER_DROPPED' });
});
