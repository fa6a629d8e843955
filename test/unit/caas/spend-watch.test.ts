/** Caps on spending, over a real ledger: a warning, then sleep, and nobody is woken until it is allowed again. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SpendWatch, spendState } from '#caas/spend-watch.ts';
import { createLog } from '#log';
import { startPricing, sumOf } from '#metering/invoice.ts';
import { parseMicros } from '#metering/money.ts';
import { bookFromMs, priceBookSchema } from '#metering/price-book.ts';
import * as z from 'zod';
import { readChanges } from '#state/change-log.ts';
import { DAY_MS, meter, openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

const VCPU_HOUR_NS = 3_600_000_000_000;

let folder: string;
let store: LedgerStore;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-spend-'));
  store = await openLedgerStore(folder);
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test('four fifths of a cap are a warning, all of it is the end', () => {
  expect([79n, 80n, 99n, 100n, 101n].map((spent) => spendState(spent, 100n))).toEqual([
    'within',
    'warned',
    'warned',
    'reached',
    'reached',
  ]);
});

test('a tenant that reaches its cap sleeps until the cap is higher or the month is over; others run on', async () => {
  const book = (cap: string) =>
    priceBookSchema.parse({
      currency: 'EUR',
      from: '2026-11-01T00:00:00Z',
      prices: { vcpuHour: 1 },
      plans: { small: { tenants: ['acme'], cap, minimum: '50' } },
    });
  let prices = book('10');
  let at = await store.container('acme', 'a', START_MS);
  const foreign = await store.container('other', 'a', START_MS);
  const asleep = new Set<string>();
  const watch = new SpendWatch({
    ...store,
    log: createLog('silent'),
    books: async () => [{ version: 1, fromMs: bookFromMs(prices), book: prices }],
    containers: async () =>
      [at, foreign].map(({ container, tenant }) => ({ id: container, tenant, isAwake: !asleep.has(container) })),
    suspend: async (id) => {
      if (id === foreign.container) throw new Error('the wrong one');
      asleep.add(id);
    },
  });
  const use = async (hours: number): Promise<void> => {
    const used = { memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, heldMs: 0, streamMs: 0 };
    const now = { cpuNs: 0, memoryBytes: 0, cgroupIdentity: '' };
    const toMs = at.meteredToMs + 3_600_000;
    const outcome = await store.writer.append(at, { ...used, cpuNs: hours * VCPU_HOUR_NS, toMs }, now);
    if (outcome.kind === 'conflict') throw new Error('the ledger refused an interval');
    at = outcome.at;
    store.clock.setMs(toMs + 1);
    await watch.round();
  };
  const told = async (): Promise<readonly string[]> =>
    (await readChanges(store.sql, 0, 100)).filter(({ kind }) => kind.startsWith('spend.')).map(({ kind }) => kind);

  await use(7);
  expect([await told(), asleep.size, watch.mayWake(at.container)]).toEqual([[], 0, true]);
  await use(1);
  expect([await told(), asleep.size]).toEqual([['spend.warned'], 0]);
  await use(1);
  expect(await told()).toEqual(['spend.warned']);
  await use(2);
  expect(await told()).toEqual(['spend.warned', 'spend.reached']);
  expect([...asleep]).toEqual([at.container]);
  expect([watch.mayWake(at.container), watch.mayWake(foreign.container)]).toEqual([false, true]);
  // Who is woken by hand sleeps again.
  asleep.clear();
  await watch.round();
  expect([...asleep]).toEqual([at.container]);
  expect(await told()).toEqual(['spend.warned', 'spend.reached']);
  prices = book('20');
  await watch.round();
  expect(watch.mayWake(at.container)).toBe(true);
  prices = book('10');
  await watch.round();
  expect(watch.mayWake(at.container)).toBe(false);
  store.clock.setMs(START_MS + 31 * DAY_MS);
  await watch.round();
  expect(watch.mayWake(at.container)).toBe(true);
}, 20_000);

test('what cannot sleep goes on, and keeps no other from it', async () => {
  const prices = priceBookSchema.parse({
    currency: 'EUR',
    from: '2026-11-01T00:00:00Z',
    prices: {},
    plans: { default: { cap: 0 } },
  });
  const asked: string[] = [];
  const watch = new SpendWatch({
    ...store,
    log: createLog('silent'),
    books: async () => [{ version: 1, fromMs: bookFromMs(prices), book: prices }],
    containers: async () => ['one', 'two'].map((id) => ({ id, tenant: 'acme', isAwake: true })),
    suspend: async (id) => {
      asked.push(id);
      if (id === 'one') throw new Error('it has an exec session');
    },
  });
  await watch.round();
  expect(asked).toEqual(['one', 'two']);
});

test('what is spent is what the invoice has for use less free units, to its roundings, and no container is asked for', async () => {
  const terms = {
    currency: 'EUR',
    offPeak: {
      zone: 'UTC',
      windows: [{ days: ['sun'], from: '00:00', to: '12:00' }],
      prices: { vcpuHour: '0.4', egressGb: '0.01' },
    },
    plans: {
      default: { cap: 0, minimum: '900', free: { memoryGibHour: '3.5', egressGb: '0.0001' }, prices: { vcpuHour: '0.9' } },
    },
    credits: [{ tenant: 'acme', month: '2026-11', amount: '5', reason: 'an outage' }],
  };
  const books = ['2026-11-01T00:00:00Z', '2026-11-02T03:00:00Z'].map((from, index) => {
    const prices = { vcpuHour: index + 1, memoryGibHour: '0.0037', egressGb: '0.07', diskGibMonth: '0.05', streamHour: '0.001' };
    const book = priceBookSchema.parse({ ...terms, from, prices });
    return { version: index + 1, fromMs: bookFromMs(book), book };
  });
  let running = await Promise.all(
    ['a', 'b', 'a', 'a'].map(async (host, index) => await store.container('acme', host, START_MS + index * 777)),
  );
  for (let round = 0; round < 12; round += 1) {
    running = await Promise.all(running.map(async (at, index) => await meter(store, at, 14_000_000, round * 5 + index + 1)));
    // The last rounds are not in the sums yet.
    if (round < 9) await store.keeper.roll();
  }
  store.clock.setMs(Math.max(...running.map(({ meteredToMs }) => meteredToMs)));
  const span = { tenant: 'acme', fromMs: START_MS, toMs: START_MS + 30 * DAY_MS };
  const pricing = startPricing({ ...span, books, briefUse: 'by-number' });
  await store.keeper.hours({ ...span, untilMs: span.toMs }, (hours) => pricing?.add(hours));
  const lines = pricing?.invoice('2026-11').lines.filter(({ kind }) => kind === 'usage' || kind === 'allowance') ?? [];
  const kinds = new Set(lines.map((line) => (line.kind === 'usage' ? `${line.tariff} ${String(line.version)}` : line.kind)));
  expect([...kinds].toSorted()).toEqual(['allowance', 'off-peak 1', 'standard 1', 'standard 2']);
  const watch = new SpendWatch({
    ...store,
    keeper: { tenantHours: async (query) => await store.keeper.tenantHours(query) },
    log: createLog('silent'),
    books: async () => books,
    containers: async () => running.map(({ container, tenant }) => ({ id: container, tenant, isAwake: false })),
    suspend: async () => undefined,
  });
  await watch.round();
  const [told] = (await readChanges(store.sql, 0, 100)).filter(({ kind }) => kind === 'spend.reached');
  const { spent } = z.object({ spent: z.string() }).parse(told?.data);
  const off = Number((parseMicros(spent) ?? 0n) - sumOf(lines));
  // Half a millionth for each line, of the containers and of their sum, and one for each kind with free units.
  expect(Math.abs(off)).toBeLessThanOrEqual(lines.length / 2 + lines.length / 2 / running.length + 2);
  expect(sumOf(lines)).toBeGreaterThan(1_000_000n);
});
