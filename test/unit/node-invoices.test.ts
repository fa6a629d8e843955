/** Invoices that are issued stand, over a real store: what changes afterwards is of the next one, to the last millionth, and once. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { METERING_ANSWERS } from '#admin/metering-answers.ts';
import type { IssueAnswer } from '#admin/metering-control.ts';
import type { Invoice, InvoiceLine } from '#metering/invoice.ts';
import { sumOf } from '#metering/invoice.ts';
import { microsText } from '#metering/money.ts';
import { bookFromMs, priceBookSchema } from '#metering/price-book.ts';
import { BRIEF_MAX } from '#metering/usage-lines.ts';
import { changeWrite, readChanges } from '#state/change-log.ts';
import type { Incarnation } from '#state/ledger.ts';
import type { SqlValue, SqlWrite } from '#state/sql.ts';
import { Invoices } from '../../src/node-invoices.ts';
import type { InvoiceDeps } from '../../src/node-invoices.ts';
import { openLedgerStore } from '../support/ledger-store.ts';
import type { LedgerStore } from '../support/ledger-store.ts';

const HOUR_MS = 3_600_000;
const VCPU_HOUR_NS = 3_600_000_000_000;
const OCTOBER_MS = Date.UTC(2026, 9, 1);
const NOVEMBER_MS = Date.UTC(2026, 10, 1);
const DECEMBER_MS = Date.UTC(2026, 11, 1);
const JANUARY_MS = Date.UTC(2027, 0, 1);
const SETTLED_MS = 300_000;

let folder: string;
let store: LedgerStore;
let invoices: Invoices;
let prices: object;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-invoices-'));
  store = await openLedgerStore(folder);
  prices = { prices: { vcpuHour: '0.012345', egressGb: '0.07' } };
  invoices = invoicesOf(store);
  await store.sql.write([changeWrite(OCTOBER_MS, 'tenant.added', 'acme')]);
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** By `prices` as they are then. */
function invoicesOf(of: Pick<InvoiceDeps, 'clock' | 'sql' | 'keeper'>): Invoices {
  const books = async () => {
    const book = priceBookSchema.parse({ currency: 'EUR', from: '2026-10-01T00:00:00Z', issuer: 'Example', ...prices });
    return [{ version: 1, fromMs: bookFromMs(book), book }];
  };
  return new Invoices({ ...of, books, flush: async () => undefined });
}

/** An hour's use. */
async function use(at: Incarnation, cpuNs: number, egressBytes = 0): Promise<Incarnation> {
  const used = { cpuNs, memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes, heldMs: 0, streamMs: 0 };
  const now = { cpuNs: 0, memoryBytes: 0, cgroupIdentity: '' };
  const outcome = await store.writer.append({ ...at, cpuNs: 0 }, { ...used, toMs: at.meteredToMs + HOUR_MS }, now);
  if (outcome.kind === 'conflict') throw new Error('the ledger refused an interval');
  return outcome.at;
}

async function correct(at: Incarnation, fromMs: number, cpuNs: number): Promise<void> {
  const none = { memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, diskByteMs: 0n, streamMs: 0 };
  await store.control.correct({ ...none, container: at.container, reason: 'a test', fromMs, toMs: fromMs + 1000, cpuNs });
}

async function issueAll(month: string, tenant?: string): Promise<IssueAnswer> {
  return await invoices.issue({ month, tenant }, () => undefined);
}

/** As it was issued. */
async function issue(month: string, tenant = 'acme'): Promise<Invoice> {
  const { issued, skipped } = await issueAll(month, tenant);
  expect(skipped).toEqual([]);
  const shown = { ...(await invoices.show(tenant, month)), notes: [] };
  expect(issued.map(({ number, total }) => [number, total])).toEqual([[shown.issued?.number, microsText(shown.totalMicros)]]);
  return shown;
}

function correctionsIn({ lines }: Invoice): readonly InvoiceLine[] {
  return lines.filter(({ kind }) => kind === 'correction');
}

test('an invoice that was issued stays as it is, and what changes is of the next one, once', async () => {
  const at = await use(await store.container('acme', 'a', OCTOBER_MS), 10 * VCPU_HOUR_NS);
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  const sent = await issue('2026-10');
  expect(sent).toMatchObject({ totalMicros: 123_450n, issued: { number: 1, atMs: NOVEMBER_MS + SETTLED_MS } });
  await correct(at, OCTOBER_MS + 5000, 2 * VCPU_HOUR_NS);
  prices = { prices: { vcpuHour: '0.012345', egressGb: '0.07' }, plans: { small: { tenants: ['acme'], minimum: '0.01' } } };
  const shown = await invoices.show('acme', '2026-10');
  expect({ ...shown, notes: [] }).toEqual(sent);
  expect(shown.notes).toEqual(['since it was issued the ledger says +0.024690 EUR: that is of the next invoice']);
  // November has nothing of its own but what its plan asks for.
  const november = await invoices.show('acme', '2026-11');
  expect(november.issued).toBeNull();
  expect(correctionsIn(november)).toEqual([
    {
      kind: 'correction',
      month: '2026-10',
      of: 'usage',
      container: at.container,
      name: at.name,
      sku: 'vcpuHour',
      about: `correction of 2026-10: Processor time of ${at.name}`,
      quantity: BigInt(2 * VCPU_HOUR_NS),
      fromMs: OCTOBER_MS,
      toMs: NOVEMBER_MS,
      amountMicros: 24_690n,
    },
  ]);
  expect(november.totalMicros).toBe(sumOf(november.lines));
  store.clock.setMs(DECEMBER_MS + SETTLED_MS);
  expect((await issue('2026-11')).totalMicros).toBe(34_690n); // 0.01 is the minimum.
  expect((await invoices.show('acme', '2026-10')).notes).toEqual([]);
  expect(correctionsIn(await invoices.show('acme', '2026-12'))).toEqual([]);
  // Back again: more than was wrong.
  await correct(at, OCTOBER_MS + 5000, -3 * VCPU_HOUR_NS);
  store.clock.setMs(JANUARY_MS + SETTLED_MS);
  expect(sumOf(correctionsIn(await issue('2026-12')))).toBe(-37_035n);
  const told = (await readChanges(store.sql, 0, 100)).filter(({ kind }) => kind === 'invoice.issued');
  expect(told.map(({ data }) => data)).toEqual([
    { month: '2026-10', number: 1, total: '0.123450 EUR' },
    { month: '2026-11', number: 2, total: '0.034690 EUR' },
    { month: '2026-12', number: 3, total: '-0.027035 EUR' },
  ]);
});

test('free units, the minimum and credits of a month are corrected with its use', async () => {
  prices = {
    prices: { vcpuHour: 1 },
    plans: { small: { tenants: ['acme'], minimum: '5', free: { vcpuHour: 2 } } },
    credits: [{ tenant: 'acme', month: '2026-10', amount: '4', reason: 'an outage' }],
  };
  const at = await use(await store.container('acme', 'a', OCTOBER_MS), 6 * VCPU_HOUR_NS);
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  expect((await issue('2026-10')).totalMicros).toBe(1_000_000n); // 6, 2 of them free, 1 to the minimum, 4 off.
  await correct(at, OCTOBER_MS + 5000, 4 * VCPU_HOUR_NS);
  const corrections = correctionsIn(await invoices.show('acme', '2026-11'));
  expect(corrections.map((line) => [line.kind === 'correction' && line.of, line.amountMicros])).toEqual([
    ['usage', 4_000_000n],
    ['minimum', -1_000_000n],
  ]);
});

test('what corrections took off beyond the use of a month is owed to the tenant, and stays so', async () => {
  const at = await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  await correct(at, OCTOBER_MS + 5000, -3 * VCPU_HOUR_NS);
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  const notes = ['the total is below zero: 0.024690 EUR are owed to the tenant'];
  expect(await invoices.show('acme', '2026-10')).toMatchObject({ totalMicros: -24_690n, notes });
  const { issued } = await issueAll('2026-10');
  expect(issued).toMatchObject([{ tenant: 'acme', number: 1, total: '-0.024690' }]);
  const sent = await invoices.show('acme', '2026-10');
  expect(sent).toMatchObject({ totalMicros: -24_690n, notes, issued: { number: 1 } });
  expect(METERING_ANSWERS.Invoice.parse(sent)).toEqual(sent);
  // It is owed once.
  store.clock.setMs(DECEMBER_MS + SETTLED_MS);
  expect((await issueAll('2026-11')).skipped).toEqual([{ tenant: 'acme', why: 'there is nothing on it', isFault: false }]);
});

test(
  'whatever is corrected and issued in whatever order, all invoices together are what all months cost',
  { timeout: 30_000 },
  async () => {
    const step = fc.record({ month: fc.nat(2), cpuNs: fc.integer({ min: -1e12, max: 1e13 }), issues: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        await using own = await openLedgerStore(folder);
        const outer = store;
        using back = new DisposableStack();
        back.defer(() => {
          store = outer;
        });
        store = own;
        invoices = invoicesOf(own);
        const starts = [OCTOBER_MS, NOVEMBER_MS, DECEMBER_MS];
        const months = ['2026-10', '2026-11', '2026-12'];
        const running = await Promise.all(
          starts.map(async (ms) => await use(await own.container('acme', 'a', ms), VCPU_HOUR_NS)),
        );
        own.clock.setMs(JANUARY_MS + SETTLED_MS);
        const issued: Invoice[] = [];
        for (const { month, cpuNs, issues } of steps) {
          const at = running[month];
          if (at === undefined) throw new Error('there is no such month');
          await correct(at, starts[month] ?? 0, cpuNs);
          const next = months[issued.length];
          if (issues && next !== undefined) issued.push(await issue(next, 'acme'));
        }
        while (issued.length < months.length) issued.push(await issue(months[issued.length] ?? '', 'acme'));
        await use(await own.container('acme', 'a', JANUARY_MS), VCPU_HOUR_NS);
        own.clock.setMs(Date.UTC(2027, 1, 1) + SETTLED_MS);
        issued.push(await issue('2027-01', 'acme'));
        const billed = issued.reduce((sum, { totalMicros }) => sum + totalMicros, 0n);
        // Nothing was ever issued, as far as it knows.
        const read = async (sql: string, values: readonly SqlValue[]) =>
          sql.includes('FROM invoice') ? [] : await own.sql.read(sql, values);
        const write = async (writes: readonly SqlWrite[]) => await own.sql.write(writes);
        const fresh = invoicesOf({ ...own, sql: { ...own.sql, read, write } });
        let cost = 0n;
        for (const month of [...months, '2027-01']) cost += (await fresh.show('acme', month)).totalMicros;
        expect(billed).toBe(cost);
      }),
      { numRuns: 20 },
    );
  },
);

test('all tenants at once, each once, with numbers that follow each other', async () => {
  await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  await use(await store.container('other', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  await use(await store.container('late', 'a', NOVEMBER_MS), VCPU_HOUR_NS);
  await expect(issueAll('2026-10')).rejects.toMatchObject({
    code: 'ECLUSE_INVOICE_REFUSED',
    status: 409,
  });
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  const first = await issueAll('2026-10');
  expect(first.issued.map(({ tenant, number }) => [tenant, number])).toEqual([
    ['acme', 1],
    ['other', 2],
  ]);
  expect(first.skipped).toEqual([{ tenant: 'late', why: 'there is nothing on it', isFault: false }]);
  const again = await issueAll('2026-10');
  expect(again.issued).toEqual([]);
  expect(again.skipped.map(({ why }) => why)).toEqual([
    'it was issued as number 1 on 2026-11-01T00:05:00.000Z',
    'there is nothing on it',
    'it was issued as number 2 on 2026-11-01T00:05:00.000Z',
  ]);
  await expect(issueAll('2026-10', 'nobody')).rejects.toMatchObject({ status: 404 });
  await expect(invoices.show('acme', '2026-13')).rejects.toMatchObject({ status: 400 });
});

test('who was no tenant in a month owes no minimum for it, today and later', async () => {
  prices = { prices: { vcpuHour: 1 }, plans: { default: { minimum: '5' } } };
  await store.sql.write([
    changeWrite(OCTOBER_MS, 'tenant.added', 'gone'),
    changeWrite(NOVEMBER_MS + HOUR_MS, 'tenant.removed', 'gone'),
    changeWrite(DECEMBER_MS + HOUR_MS, 'tenant.added', 'gone'), // Somebody else.
  ]);
  await use(await store.container('gone', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  store.clock.setMs(Date.UTC(2027, 1, 1) + SETTLED_MS);
  const totals = async (month: string): Promise<readonly string[]> =>
    (await issueAll(month)).issued.map(({ tenant, total }) => `${tenant} ${total}`);
  expect(await totals('2026-09')).toEqual([]);
  expect(await totals('2026-10')).toEqual(['acme 5.000000', 'gone 5.000000']);
  expect(await totals('2026-11')).toEqual(['acme 5.000000', 'gone 5.000000']);
  await store.sql.write([changeWrite(DECEMBER_MS + 2 * HOUR_MS, 'tenant.removed', 'gone')]);
  expect(await totals('2026-12')).toEqual(['acme 5.000000', 'gone 5.000000']);
  expect(await totals('2027-01')).toEqual(['acme 5.000000']);
});

test('who only looks at invoices and issues none is told of no other month, and waits for one alone', async () => {
  for (const ms of [OCTOBER_MS, NOVEMBER_MS, DECEMBER_MS]) await use(await store.container('acme', 'a', ms), VCPU_HOUR_NS);
  store.clock.setMs(JANUARY_MS + SETTLED_MS);
  let asked = 0;
  const hours: LedgerStore['keeper']['hours'] = async (...of) => {
    asked += 1;
    await store.keeper.hours(...of);
  };
  const shown = await invoicesOf({ ...store, keeper: { hours } }).show('acme', '2026-12');
  expect([shown.notes, shown.totalMicros, asked]).toEqual([[], 12_345n, 1]);
});

test('a month without an invoice is named when something comes late', async () => {
  await use(await store.container('acme', 'a', NOVEMBER_MS), VCPU_HOUR_NS);
  const late = await store.container('acme', 'a', OCTOBER_MS);
  store.clock.setMs(DECEMBER_MS + SETTLED_MS);
  expect((await issueAll('2026-10')).skipped).toEqual([{ tenant: 'acme', why: 'there is nothing on it', isFault: false }]);
  await use(late, VCPU_HOUR_NS);
  const left = { tenant: 'acme', month: '2026-10', currency: 'EUR', total: '0.012345' };
  expect((await invoices.show('acme', '2026-11')).notes).toEqual(['2026-10 was not issued and has 0.012345 EUR on it']);
  const { issued, left: said } = await issueAll('2026-11');
  expect([issued.map(({ total }) => total), said]).toEqual([['0.012345'], [left]]);
  await issue('2026-10');
  expect((await issueAll('2026-11')).left).toEqual([]);
});

test('a damaged invoice is named, and keeps nobody else from theirs', async () => {
  for (const tenant of ['acme', 'other']) {
    const at = await use(await store.container(tenant, 'a', OCTOBER_MS), VCPU_HOUR_NS);
    await use({ ...at, meteredToMs: NOVEMBER_MS }, VCPU_HOUR_NS);
  }
  store.clock.setMs(DECEMBER_MS + SETTLED_MS);
  expect((await issueAll('2026-10')).issued).toHaveLength(2);
  await store.sql.write([{ sql: `UPDATE invoice SET body = '{' WHERE tenant = 'acme'`, values: [] }]);
  const why = 'the kept invoice 1 of acme for 2026-10 is damaged';
  const { issued, skipped } = await issueAll('2026-11');
  expect(issued.map(({ tenant, number }) => [tenant, number])).toEqual([['other', 3]]);
  expect(skipped).toEqual([{ tenant: 'acme', why, isFault: true }]);
  await expect(invoices.show('acme', '2026-10')).rejects.toMatchObject({ code: 'ECLUSE_INVOICE_DAMAGED', message: why });
  expect(await invoices.issued('2026-10')).toMatchObject([{ number: 1, total: '0.012345' }, { number: 2 }]);
});

test('two who issue at once bill a correction once', async () => {
  const at = await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  store.clock.setMs(JANUARY_MS + SETTLED_MS);
  await issue('2026-10');
  await correct(at, OCTOBER_MS + 5000, VCPU_HOUR_NS);
  await Promise.all(['2026-11', '2026-12'].map(async (month) => await issueAll(month)));
  expect((await invoices.issued(undefined)).map(({ number, total }) => [number, total])).toEqual([
    [1, '0.012345'],
    [2, '0.012345'],
  ]);
});

/** Containers of some seconds each, as the sums have them. */
async function useBriefly(count: number, atMs: number): Promise<void> {
  const writes = Array.from({ length: count }, (_, index): readonly SqlWrite[] => {
    const container = `${String(index).padStart(8, '0')}${'0'.repeat(56)}`;
    const startMs = atMs + (index % 700) * HOUR_MS;
    return [
      { sql: `INSERT INTO usage_subject (tenant, container, host, name) VALUES ('acme', ?, 'a', 'job')`, values: [container] },
      {
        sql: `INSERT INTO usage_hour (subject, start_ms, from_ms, to_ms, cpu_ns, memory_gib_ms, memory_rest, requests, ingress_bytes, egress_bytes, held_ms,
                snapshot_gib_ms, snapshot_rest)
              VALUES ((SELECT id FROM usage_subject WHERE container = ?), ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0)`,
        values: [container, startMs, startMs, startMs + 9000, VCPU_HOUR_NS / 100],
      },
    ];
  });
  expect((await store.sql.write(writes.flat())).kind).toBe('done');
}

test('of many containers that came and went the node makes an invoice by and by, and what they share is corrected as such', async () => {
  const at = await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  await store.keeper.roll();
  await useBriefly(3 * BRIEF_MAX, OCTOBER_MS);
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  let [turns, isMaking] = [0, true];
  const count = (): void => {
    turns += 1;
    if (isMaking) setImmediate(count);
  };
  setImmediate(count);
  const sent = await issue('2026-10');
  isMaking = false;
  expect(turns).toBeGreaterThan(8); // Otherwise nothing is answered until it is made.
  expect(sent.lines.map((line) => line.kind === 'usage' && [line.container, line.amountMicros])).toEqual([
    ['brief', 370_350n + 12_345n],
  ]);
  expect((await invoices.show('acme', '2026-11')).lines).toEqual([]);
  await correct(at, OCTOBER_MS + 5000, VCPU_HOUR_NS);
  const corrections = correctionsIn(await invoices.show('acme', '2026-11'));
  expect(corrections.map((line) => line.kind === 'correction' && [line.about, line.quantity, line.amountMicros])).toEqual([
    ['correction of 2026-10: Processor time of containers of less than two hours', BigInt(VCPU_HOUR_NS), 12_345n],
  ]);
});

test('an invoice that was issued line by line is compared line by line, however many came later', async () => {
  await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  await store.keeper.roll();
  await useBriefly(BRIEF_MAX - 1, OCTOBER_MS);
  store.clock.setMs(NOVEMBER_MS + SETTLED_MS);
  expect((await issue('2026-10')).lines).toHaveLength(BRIEF_MAX);
  const late = await use(await store.container('acme', 'a', OCTOBER_MS), VCPU_HOUR_NS);
  const corrections = correctionsIn(await invoices.show('acme', '2026-11'));
  expect(corrections.map((line) => line.kind === 'correction' && line.container)).toEqual([late.container]);
});
