/** Who can write to the store, and has not the node's key, cannot write another history that fits. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import * as z from 'zod';
import { CHAIN_START, extendChain } from '#metering/ledger-chain.ts';
import { totalTexts } from '#metering/ledger-export.ts';
import { signHead } from '#metering/ledger-head.ts';
import { addLedgerKey, listHeads, readChainRows } from '#state/ledger-heads.ts';
import { exportText, fillLedger, newLedgerKey, openLedgerStore } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

const VERIFIER = fileURLToPath(new URL('../../../scripts/verify-ledger.mjs', import.meta.url));
const moduleSchema = z.object({
  verifyExport: z.custom<(text: string, key?: string) => unknown>((value) => typeof value === 'function'),
});

let folder: string;
let store: LedgerStore;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-resigned-'));
  store = await openLedgerStore(folder);
  await fillLedger(store);
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Ten times the requests in acme's first row, and everything after it made to fit, with a key of one's own. */
async function resign(): Promise<{ readonly id: string; readonly day: string }> {
  const { sql } = store;
  const own = newLedgerKey();
  await addLedgerKey(sql, own, 0);
  const heads = await listHeads(sql, 'acme');
  let at = CHAIN_START;
  for (const row of await readChainRows(sql, 'acme', 0, 1000)) {
    const next = extendChain(at, { ...row, requests: row.number === 1 ? row.requests * 10n : row.requests });
    at = next.at;
    await sql.write([
      {
        sql: `UPDATE ledger SET requests = ?, hash = ? WHERE tenant = 'acme' AND number = ?`,
        values: [next.row.requests, at.hash, at.number],
      },
    ]);
    for (const head of heads.filter(({ number }) => number === row.number)) {
      const { totals, key, signature } = signHead({ ...head, ...at }, own);
      await sql.write([
        {
          sql: `UPDATE ledger_head SET hash = ?, totals = ?, key = ?, signature = ? WHERE tenant = 'acme' AND day = ?`,
          values: [at.hash, JSON.stringify(totalTexts(totals)), key, signature, head.day],
        },
      ]);
    }
  }
  await sql.write([
    {
      sql: `UPDATE ledger_chain SET hash = ?, totals = ? WHERE tenant = 'acme'`,
      values: [at.hash, JSON.stringify(totalTexts(at.totals))],
    },
  ]);
  return { id: own.id, day: heads[0]?.day ?? '' };
}

test('a history that is signed with a key which the node never had is found, and named', async () => {
  const { id, day } = await resign();
  const all = { tenant: 'acme', fromDay: undefined, toDay: undefined };
  const [verdict] = await store.control.verify(all, () => undefined);
  expect(verdict?.fault).toMatchObject({
    text: `head of ${day}: it is signed by another key (${id.slice(0, 16)}), which is none that this node has signed with`,
    mend: expect.stringMatching(/restore tls\/ledger\.keys from a backup/) as unknown,
  });
  expect((await store.control.keys()).map((key) => key.id)).toEqual([store.key.id]);
});

test('an export of it does not pass for one of the node', async () => {
  const { id, day } = await resign();
  const text = await exportText(store, 'acme');
  expect(text).not.toContain(`"id":"${id}"`);
  const imported: unknown = await import(VERIFIER);
  const { verifyExport } = moduleSchema.parse(imported);
  expect(verifyExport(text, store.key.id)).toEqual({
    fits: false,
    why: `head of ${day}: it is signed by another key (${id.slice(0, 16)})`,
  });
});
