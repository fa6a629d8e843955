/** The books: sums are those of the rows, whatever was summed up when; chains neither fork nor lag; what is dropped is proved and summed up. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KEEPER_OPTIONS } from '#caas/ledger-keeper.ts';
import { verifyChains } from '#caas/ledger-proof.ts';
import { coverOf } from '#caas/usage-cover.ts';
import { sumUsage } from '../../support/sum-usage.ts';
import type { UsageTotal } from '#caas/usage.ts';
import { FROM_BEFORE, NO_TOTALS, QUANTITY_NAMES } from '#metering/ledger-chain.ts';
import { signHead } from '#metering/ledger-head.ts';
import { findIncarnation, readNamedRows } from '#state/ledger.ts';
import type { Incarnation } from '#state/ledger.ts';
import { dropRows, insertHead, listChains, takeUpEarlierRows } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import { beginSnapshot } from '#state/snapshots.ts';
import { GRAIN_MS, readSums } from '#state/usage-rollups.ts';
import { DAY_MS, exportText, fillLedger, meter, openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

const ALL = { tenant: undefined, fromDay: undefined, toDay: undefined };
const GROUPINGS = ['container', 'tenant', 'host', 'hour'] as const;
const byKey = (totals: readonly UsageTotal[]): readonly UsageTotal[] =>
  totals.toSorted((one, other) => one.key.localeCompare(other.key));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-keeper-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function faults(store: LedgerStore): Promise<readonly string[]> {
  return (await verifyChains(store, ALL, () => undefined)).flatMap(({ fault }) => (fault === null ? [] : [fault.text]));
}

describe('sums', () => {
  test('are those of the rows in every grain, and answers are the same whatever was summed up', async () => {
    const interval = fc.record({ of: fc.nat(2), spanMs: fc.integer({ min: 1, max: 5 * GRAIN_MS.hour }), rolls: fc.boolean() });
    const plan = fc.array(interval, { minLength: 1, maxLength: 25 });
    const windows = fc.array(fc.tuple(fc.nat(2 * DAY_MS), fc.nat(2 * DAY_MS)), { minLength: 3, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(plan, windows, async (intervals, spans) => {
        await using store = await openLedgerStore(folder, { ...KEEPER_OPTIONS, keepMinutesMs: 500 * DAY_MS });
        const running = [
          await store.container('acme', 'a', START_MS),
          await store.container('acme', 'b', START_MS),
          await store.container('other', 'a', START_MS + 777),
        ];
        let seed = 0;
        for (const { of, spanMs, rolls } of intervals) {
          const at = running[of];
          if (at === undefined) continue;
          running[of] = await meter(store, at, spanMs, (seed += 1));
          if (rolls) await store.keeper.roll();
        }
        store.clock.setMs(START_MS + 400 * DAY_MS);
        const rows = await readNamedRows(store.sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');
        const check = async (): Promise<void> => {
          for (const [fromMs, spanMs] of [[-START_MS, START_MS + 300 * DAY_MS] as const, ...spans]) {
            const span = { sinceMs: START_MS + fromMs, untilMs: START_MS + fromMs + spanMs };
            const wanted = rows.filter((row) => row.fromMs >= span.sinceMs && row.fromMs < span.untilMs);
            for (const by of GROUPINGS)
              expect(byKey(await store.keeper.usage({ tenant: undefined, ...span, by }))).toEqual(byKey(sumUsage(wanted, by)));
          }
        };
        await check();
        await store.keeper.roll();
        await check();
        const chains = await listChains(store.sql);
        for (const grain of ['minute', 'hour', 'day'] as const) {
          for (const by of ['container', 'tenant'] as const) {
            const sums = await readSums(store.sql, { grain, by, tenant: '', fromMs: 0, untilMs: START_MS + 900 * DAY_MS });
            for (const name of QUANTITY_NAMES)
              expect(sums.reduce((sum, one) => sum + one[name], 0n)).toBe(
                chains.reduce((sum, { totals }) => sum + totals[name], 0n),
              );
          }
        }
        expect(await faults(store)).toEqual([]);
      }),
      { numRuns: 8 },
    );
  }, 60_000);

  test('a span is covered once: what follows it begins where it ends', () => {
    const instant = fc.nat(4 * DAY_MS);
    fc.assert(
      fc.property(fc.tuple(instant, instant, instant), fc.nat(96), ([one, two, three], hour) => {
        const [from, middle, until] = [one, two, three].toSorted((left, right) => left - right);
        const minutesFromMs = hour * GRAIN_MS.hour;
        const parts = (fromMs = 0, untilMs = 0): readonly (readonly [number, number])[] => {
          const { sums, rows } = coverOf({ fromMs, untilMs }, minutesFromMs);
          return [...sums, ...rows]
            .map((part) => [part.fromMs, part.untilMs] as const)
            .toSorted(([left], [right]) => left - right);
        };
        const joined = [...parts(from, middle), ...parts(middle, until)];
        const whole = parts(from, until);
        const total = (list: readonly (readonly [number, number])[]): number =>
          list.reduce((sum, [start, end]) => sum + end - start, 0);
        expect(total(joined)).toBe(total(whole));
        expect(joined.every(([, end], index) => index === joined.length - 1 || end === joined[index + 1]?.[0])).toBe(true);
        // Nothing before the minutes is asked for by the minute.
        const { sums, rows } = coverOf({ fromMs: from ?? 0, untilMs: until ?? 0 }, minutesFromMs);
        expect(sums.filter(({ grain, fromMs }) => grain === 'minute' && fromMs < minutesFromMs)).toEqual([]);
        expect(rows.filter(({ fromMs }) => fromMs < minutesFromMs)).toEqual([]);
      }),
    );
  });
});

describe('the chain', () => {
  test('neither forks nor lags, however many write at once', async () => {
    await using store = await openLedgerStore(folder);
    const others = [store.writer, new LedgerWriter(store.sql), new LedgerWriter(store.sql)];
    const running = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => await store.container(`t${String(index % 3)}`, 'a', START_MS)),
    );
    for (let round = 1; round <= 5; round += 1) {
      const next = await Promise.all(
        running.map(async (at, index) => await meter({ writer: others[index % 3] ?? store.writer }, at, 10_000, round * index)),
      );
      running.splice(0, running.length, ...next);
    }
    expect((await listChains(store.sql)).map(({ number }) => number)).toEqual([50, 50, 50]);
    expect(await faults(store)).toEqual([]);
  }, 20_000);

  test('a store that is replayed three times does not change', async () => {
    await using store = await openLedgerStore(folder);
    const first = await store.container('acme', 'a', START_MS);
    const steps: { readonly at: Incarnation; readonly seed: number }[] = [];
    let at = first;
    for (let seed = 1; seed <= 10; seed += 1) {
      steps.push({ at, seed });
      at = await meter(store, at, 10_000, seed);
    }
    await store.keeper.roll();
    const dump = async (): Promise<unknown> => [
      await store.sql.read('SELECT * FROM ledger ORDER BY number', []),
      await store.sql.read('SELECT * FROM ledger_chain', []),
      await store.sql.read('SELECT * FROM usage_minute ORDER BY subject, start_ms', []),
      await findIncarnation(store.sql, first.container, 1),
    ];
    const before = await dump();
    for (let replay = 0; replay < 3; replay += 1) {
      for (const step of steps) await expect(meter(store, step.at, 10_000, step.seed)).rejects.toThrow('refused an interval');
      await store.keeper.roll();
    }
    expect(await dump()).toEqual(before);
  }, 20_000);

  test('an interval that is refused takes no other with it, and leaves no gap', async () => {
    await using store = await openLedgerStore(folder);
    const running = await Promise.all([1, 2, 3].map(async () => await store.container('acme', 'a', START_MS)));
    const stale = running[1] ?? (await store.container('acme', 'a', START_MS));
    await meter(store, stale, 1000, 9);
    const outcomes = await Promise.allSettled(running.map(async (at, index) => await meter(store, at, 5000, index + 1)));
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect((await listChains(store.sql))[0]).toMatchObject({ number: 3, totals: { rows: 3n } });
    expect(await faults(store)).toEqual([]);
  }, 20_000);

  test('takes up rows from before it in their order, once, and goes on where it was interrupted', async () => {
    await using store = await openLedgerStore(folder);
    const old = await store.container('acme', 'a', START_MS);
    const other = await store.container('other', 'b', START_MS);
    for (const { container, tenant, host } of [old, other]) {
      for (let seq = 1; seq <= 1500; seq += 1) {
        await store.sql.write([
          {
            sql: `INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes,
                    egress_bytes, held_ms) VALUES (?, 1, ?, ?, ?, ?, ?, 5, 7, 1, 2, 3, 0)`,
            values: [container, seq, tenant, host, START_MS + (seq - 1) * 10_000, START_MS + seq * 10_000],
          },
        ]);
      }
    }
    const crash = takeUpEarlierRows(store.sql, () => {
      throw new Error('killed');
    });
    await expect(crash).rejects.toThrow('killed');
    expect(await takeUpEarlierRows(store.sql, () => undefined)).toBe(2000);
    expect(await takeUpEarlierRows(store.sql, () => undefined)).toBe(0);
    await meter(store, { ...old, seq: 1500, meteredToMs: START_MS + 15_000_000 }, 1000, 1).catch(() => undefined);
    const verdicts = await verifyChains(store, ALL, () => undefined);
    expect(verdicts.map(({ fault, fromBefore, rows }) => [fault, fromBefore, rows])).toEqual([
      [null, 1500, 1500],
      [null, 1500, 1500],
    ]);
    const [row] = await store.sql.read('SELECT reason FROM ledger WHERE seq = 7 LIMIT 1', []);
    expect(row?.['reason']).toBe(FROM_BEFORE);
    expect(NO_TOTALS.rows).toBe(0n);
  }, 30_000);
});

describe('snapshots', () => {
  test('are in the ledger hour by hour while they are kept, and no longer', async () => {
    await using store = await openLedgerStore(folder);
    const { container } = await store.container('acme', 'a', START_MS);
    const snapshot = async (id: string, createdMs: number, bytes: number): Promise<void> => {
      const base = { id, tenant: 'acme', container, name: 'web-1', host: 'a', runtime: 'r', spec: '{}' };
      const sizes = { imageBytes: bytes, fileBytes: bytes, memoryBytes: bytes };
      await beginSnapshot(store.sql, { ...base, ...sizes, createdMs, kind: 'copy', state: 'kept', serves: 'nothing' });
    };
    const used = async (): Promise<bigint> => {
      await store.keeper.round();
      const span = { tenant: 'acme', sinceMs: 0, untilMs: START_MS + DAY_MS, by: 'container' } as const;
      return (await store.keeper.usage(span)).find(({ key }) => key === container)?.snapshotByteMs ?? 0n;
    };
    await snapshot('one', START_MS + GRAIN_MS.hour / 2, 1000);
    store.clock.setMs(START_MS + GRAIN_MS.hour - 1);
    expect(await used()).toBe(0n);
    store.clock.setMs(START_MS + GRAIN_MS.hour + 5);
    expect(await used()).toBe(1000n * 1_800_000n);
    expect(await used()).toBe(1000n * 1_800_000n);
    await snapshot('two', START_MS + GRAIN_MS.hour, 1);
    store.clock.setMs(START_MS + 4 * GRAIN_MS.hour);
    expect(await used()).toBe(1000n * (1_800_000n + 3n * 3_600_000n) + 1n * 3_600_000n);
    await store.sql.write([{ sql: 'DELETE FROM snapshot', values: [] }]);
    store.clock.setMs(START_MS + 9 * GRAIN_MS.hour);
    expect(await used()).toBe(1000n * (1_800_000n + 3n * 3_600_000n) + 1n * 3_600_000n);
    expect(await faults(store)).toEqual([]);
  }, 20_000);
});

describe('old rows', () => {
  test('are dropped when they are summed up and under a head, and not before; the rest is proved as before', async () => {
    await using store = await openLedgerStore(folder, { ...KEEPER_OPTIONS, keepRowsMs: DAY_MS });
    await fillLedger(store);
    const span = { tenant: undefined, sinceMs: 0, untilMs: START_MS + 30 * DAY_MS, by: 'container' } as const;
    const before = await store.keeper.usage(span);
    store.clock.setMs(START_MS + 3 * DAY_MS + 7_200_000);
    await store.keeper.round();
    const chains = await listChains(store.sql);
    expect(chains.find(({ tenant }) => tenant === 'acme')?.dropped).toBeGreaterThan(20);
    const [least] = await store.sql.read(`SELECT MIN(number) AS least FROM ledger WHERE tenant = 'acme'`, []);
    expect(Number(least?.['least'])).toBe((chains[0]?.dropped ?? 0) + 1);
    expect(await faults(store)).toEqual([]);
    const acme = (totals: readonly UsageTotal[]): readonly UsageTotal[] => totals.filter(({ tenant }) => tenant === 'acme');
    expect(byKey(acme(await store.keeper.usage(span)))).toEqual(byKey(acme(before)));
    const text = await exportText(store, 'acme');
    expect(text.split('\n')[0]).toContain('"after":{"format":3,"tenant":"acme"');
  }, 20_000);

  test('stay while they are not summed up, and while no head is over them', async () => {
    await using store = await openLedgerStore(folder);
    await meter(store, await store.container('acme', 'a', START_MS), 1000, 1);
    const drop = async (): Promise<string> => (await dropRows(store.sql, 'acme', { from: 0, to: 1 })).kind;
    const [chain] = await listChains(store.sql);
    if (chain === undefined) throw new Error('there is no chain');
    expect(await drop()).toBe('conflict');
    await store.keeper.roll();
    expect(await drop()).toBe('conflict');
    await insertHead(store.sql, signHead({ ...chain, day: '2026-11-01', sequence: 1, signedMs: START_MS }, store.key));
    await store.sql.write([{ sql: 'UPDATE ledger_chain SET rolled = 0', values: [] }]);
    expect(await drop()).toBe('conflict');
    await store.sql.write([{ sql: 'UPDATE ledger_chain SET rolled = 1', values: [] }]);
    expect(await drop()).toBe('done');
  }, 20_000);
});
