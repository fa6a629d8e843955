/** `invoice` of a month whose corrections took off more than was used: every format has the same total, below zero. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import * as z from 'zod';
import { priceBookSchema } from '#metering/price-book.ts';
import { runPriceCommand } from '../../src/cli-prices.ts';
import { PriceOperations } from '../../src/node-prices.ts';
import { DAY_MS, meter, openLedgerStore, START_MS } from '../support/ledger-store.ts';
import type { LedgerStore } from '../support/ledger-store.ts';

const HOUR_NS = 3_600_000_000_000;
const OWED = 'the total is below zero: 0.250000 EUR are owed to the tenant';

let folder: string;
let store: LedgerStore;
let prices: PriceOperations;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-invoice-'));
  store = await openLedgerStore(folder);
  const { sql, clock, keeper } = store;
  prices = new PriceOperations({ sql, clock, keeper, flush: async () => undefined, changed: () => undefined });
  const book = priceBookSchema.parse({ currency: 'EUR', from: '2026-11-01T00:00:00Z', prices: { vcpuHour: '0.5' } });
  await prices.apply({ book, note: '', dryRun: false });
  const at = await meter(store, await store.container('acme', 'a', START_MS), 600_000, 1);
  // Half an hour less than nothing.
  const none = { memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, diskByteMs: 0n, streamMs: 0 };
  const span = { container: at.container, fromMs: START_MS + 5000, toMs: START_MS + 6000 };
  await store.control.correct({ ...none, ...span, reason: 'a test', cpuNs: -HOUR_NS / 2 - at.cpuNs });
  clock.setMs(START_MS + 31 * DAY_MS);
});

afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function print(format: 'text' | 'json' | 'csv' | 'focus' | 'cloudevents'): Promise<{ out: string; notes: string[] }> {
  let out = '';
  const notes: string[] = [];
  await runPriceCommand(
    {
      kind: 'invoice',
      daemon: { dataDir: undefined, adminSocket: undefined },
      json: false,
      tenant: 'acme',
      month: '2026-11',
      format,
    },
    { prices },
    { write: (more) => (out += more), note: (line) => notes.push(line), isScreen: false, isNoteScreen: false },
  );
  return { out, notes };
}

test('for people, with a note', async () => {
  const { out, notes } = await print('text');
  expect(out).toMatch(
    /\nProcessor time of web-1 +-0\.500000 +vCPU-Hours +0\.500000 +-0\.250000\ntotal +EUR +-0\.250000\nnote: [^\n]+\n$/,
  );
  expect(out.endsWith(`note: ${OWED}\n`)).toBe(true);
  expect(notes).toEqual([]);
});

test('for programs, with the note beside it', async () => {
  const noted = [`ecluse: ${OWED}`];
  const json = await print('json');
  expect(json.notes).toEqual(noted);
  expect(JSON.parse(json.out)).toMatchObject({ totalMicros: -250_000, notes: [OWED], lines: [{ kind: 'usage' }] });
  const csv = await print('csv');
  expect(csv.notes).toEqual(noted);
  expect(csv.out.trimEnd().split('\r\n').slice(1)).toEqual([
    expect.stringMatching(/^usage,.*,-0\.500000000000000000,vCPU-Hours,0\.500000,-0\.250000,EUR$/),
  ]);
  const focus = await print('focus');
  expect(focus.notes).toEqual(noted);
  expect(focus.out.trimEnd().split('\r\n').slice(1)).toEqual([expect.stringMatching(/^-0\.250000,acme,acme,EUR,/)]);
  const events = await print('cloudevents');
  expect(events.notes).toEqual(noted);
  const event = z.looseObject({ data: z.looseObject({ amount: z.string(), quantity: z.string() }) });
  expect(event.parse(JSON.parse(events.out)).data).toMatchObject({ amount: '-0.250000', quantity: '-0.500000000000000000' });
});
