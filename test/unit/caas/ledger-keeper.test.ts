/** The books: sums are those of the rows, whatever was summed up when; chains neither fork nor lag; what is dropped is proved and summed up. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KEEPER_OPTIONS, LedgerKeeper } from '#caas/ledger-keeper.ts';
import { verifyChains } from '#caas/ledger-proof.ts';
import { createLog } from '#log';
import { coverOf } from '#caas/usage-cover.ts';
import { sumUsage } from '../../support/sum-usage.ts';
import type { UsageTotal } from '#caas/usage.ts';
import { addQuantities, FROM_BEFORE, mapQuantities, NO_TOTALS, QUANTITY_NAMES } from '#metering/ledger-chain.ts';
import type { Quantities } from '#metering/ledger-chain.ts';
import { signHead } from '#metering/ledger-head.ts';
import { closeIncarnationWrite, findIncarnation, openIncarnationWrite, quantitiesOf, readNamedRows } from '#state/ledger.ts';
import type { Incarnation } from '#state/ledger.ts';
import { dropRows, insertHead, listChains, takeUpEarlierRows } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import { beginSnapshot, forgetSnapshot } from '#state/snapshots.ts';
import { bucketOf, GRAIN_MS, readSums } from '#state/usage-rollups.ts';
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

  test('hours are those of the rows, whatever was summed up, page by page and each container at once', async () => {
    await using store = await openLedgerStore(folder);
    const span = { tenant: 'acme', fromMs: START_MS + 5 * GRAIN_MS.hour, untilMs: START_MS + 40 * DAY_MS };
    for (let index = 0; index < 3; index += 1) {
      const first = await store.container('acme', 'b', START_MS + index);
      const at = await meter(store, first, (index * 200 + 130) * GRAIN_MS.hour, index + 1);
      await store.sql.write([closeIncarnationWrite(at.container, 1, at.meteredToMs)]);
      // On another host, which comes before the first one.
      const moved = { ...at, incarnation: 2, host: 'a', seq: 0, name: 'moved' };
      await store.sql.write([openIncarnationWrite(moved)]);
      if (index < 2) await store.keeper.roll();
      await meter(store, moved, 20 * GRAIN_MS.hour, index + 7);
      if (index === 0) await store.keeper.roll();
    }
    // Nothing of it is in the span, and of somebody else nothing is asked.
    await meter(store, await store.container('acme', 'a', START_MS), GRAIN_MS.hour, 3);
    await meter(store, await store.container('other', 'a', START_MS), DAY_MS, 3);
    const rows = (await readNamedRows(store.sql, span, 'all')).map((row) => ({ ...row, ...quantitiesOf(row) }));
    type Hours = readonly (Quantities & { readonly container: string; readonly startMs: number })[];
    const sums = (hours: Hours, isByContainer: boolean): ReadonlyMap<string, Quantities> => {
      const found = new Map<string, Quantities>();
      for (const { container, startMs, ...hour } of hours) {
        const key = `${isByContainer ? container : ''} ${String(startMs)}`;
        const before = found.get(key);
        const used = mapQuantities((name) => hour[name]);
        found.set(key, before === undefined ? used : addQuantities(before, used));
      }
      return found;
    };
    const wanted = rows.map((row) => ({ ...row, startMs: bucketOf(row.fromMs, 'hour') }));
    for (const _ of ['some of them summed up', 'all of them']) {
      const taken: Hours[] = [];
      await store.keeper.hours(span, (hours) => taken.push(hours));
      expect(taken.map((hours) => new Set(hours.map(({ container }) => container)).size)).toEqual([1, 1, 1]);
      expect(sums(taken.flat(), true)).toEqual(sums(wanted, true));
      expect(sums(await store.keeper.tenantHours(span), false)).toEqual(sums(wanted, false));
      await store.keeper.roll();
    }
  });

  test('hours that another process sums up meanwhile are not counted twice', async () => {
    await using store = await openLedgerStore(folder);
    for (let index = 0; index < 2; index += 1) {
      await meter(store, await store.container('acme', 'a', START_MS), 400 * GRAIN_MS.hour, index + 1);
      if (index === 0) await store.keeper.roll();
    }
    await using other = new LedgerKeeper({ ...store, log: createLog('silent') });
    const span = { tenant: 'acme', fromMs: START_MS, untilMs: START_MS + 40 * DAY_MS };
    const asked = store.keeper.hours(span, () => undefined);
    await Promise.all([expect(asked).rejects.toThrow('summed up by another process'), other.roll()]);
    await expect(store.keeper.hours(span, () => undefined)).resolves.toBeUndefined();
  });

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
  const HOUR_MS = GRAIN_MS.hour;

  interface Scene extends AsyncDisposable {
    readonly store: LedgerStore;
    readonly keep: (id: string, createdMs: number, bytes: number) => Promise<void>;
    /** Byte-milliseconds, after a round. */
    readonly used: (keeper?: LedgerKeeper) => Promise<bigint>;
  }

  async function scene(): Promise<Scene> {
    const store = await openLedgerStore(folder);
    const { container } = await store.container('acme', 'a', START_MS);
    return {
      store,
      keep: async (id, createdMs, bytes) => {
        const base = { id, tenant: 'acme', container, name: 'web-1', host: 'a', runtime: 'r', spec: '{}' };
        const sizes = { imageBytes: bytes, fileBytes: bytes, memoryBytes: bytes };
        await beginSnapshot(store.sql, { ...base, ...sizes, createdMs, kind: 'copy', state: 'kept', serves: 'nothing' });
      },
      used: async (keeper = store.keeper) => {
        await keeper.round();
        const span = { tenant: 'acme', sinceMs: 0, untilMs: START_MS + 1000 * DAY_MS, by: 'container' } as const;
        return (await keeper.usage(span)).find(({ key }) => key === container)?.snapshotByteMs ?? 0n;
      },
      [Symbol.asyncDispose]: async () => {
        await store[Symbol.asyncDispose]();
      },
    };
  }

  test('are in the ledger hour by hour while they are kept, up to their end, and no longer', async () => {
    await using made = await scene();
    const { store, keep, used } = made;
    await keep('one', START_MS + HOUR_MS / 2, 1000);
    store.clock.setMs(START_MS + HOUR_MS - 1);
    expect(await used()).toBe(0n);
    store.clock.setMs(START_MS + HOUR_MS + 5);
    expect(await used()).toBe(1000n * 1_800_000n);
    expect(await used()).toBe(1000n * 1_800_000n);
    await keep('two', START_MS + HOUR_MS + 5, 1);
    store.clock.setMs(START_MS + 4 * HOUR_MS);
    expect(await used()).toBe(1000n * (1_800_000n + 3n * 3_600_000n) + 1n * (3n * 3_600_000n - 5n));
    store.clock.setMs(START_MS + 4.5 * HOUR_MS);
    for (const id of ['one', 'two']) await forgetSnapshot(store.sql, id, START_MS + 4.5 * HOUR_MS);
    for (const hours of [4.5, 9]) {
      store.clock.setMs(START_MS + hours * HOUR_MS);
      expect(await used()).toBe(1000n * 4n * 3_600_000n + 1n * (3n * 3_600_000n + 1_800_000n - 5n));
    }
    expect(await faults(store)).toEqual([]);
  }, 20_000);

  test('that come and go between two full hours are in it all the same, also where the node was away meanwhile', async () => {
    await using made = await scene();
    const { store, keep, used } = made;
    store.clock.setMs(START_MS + 1000);
    expect(await used()).toBe(0n);
    await keep('short', START_MS + 60_000, 7);
    store.clock.setMs(START_MS + 360_000);
    await forgetSnapshot(store.sql, 'short', START_MS + 360_000);
    expect(await used()).toBe(7n * 300_000n);
    await keep('kept', START_MS + 600_000, 5);
    await keep('gone', START_MS + 600_000, 3);
    store.clock.setMs(START_MS + 1_200_000);
    await forgetSnapshot(store.sql, 'gone', START_MS + 1_200_000);
    // The node dies, and is back ten hours later.
    store.clock.setMs(START_MS + 10 * HOUR_MS);
    await using later = new LedgerKeeper({ log: createLog('silent'), clock: store.clock, sql: store.sql, key: store.key });
    const tenHours = BigInt(10 * HOUR_MS - 600_000);
    expect(await used(later)).toBe(7n * 300_000n + 3n * 600_000n + 5n * tenHours);
    expect(await used(later)).toBe(7n * 300_000n + 3n * 600_000n + 5n * tenHours);
    expect(await faults(store)).toEqual([]);
  }, 20_000);

  test('are billed for the time that went by, whatever the wall clock is set to', async () => {
    await using made = await scene();
    const { store, keep } = made;
    let aheadMs = 0;
    const clock = { ...store.clock, nowMs: () => store.clock.nowMs() + aheadMs };
    await using keeper = new LedgerKeeper({ log: createLog('silent'), clock, sql: store.sql, key: store.key });
    await keep('one', START_MS, 1000);
    expect(await made.used(keeper)).toBe(0n);
    for (const [afterMs, setMs] of [
      [1_000_000, 365 * DAY_MS],
      [1_015_000, 365 * DAY_MS],
      [1_030_000, 0],
      [1_045_000, -3 * HOUR_MS],
      [9_000_000, -3 * HOUR_MS],
      [20_000_000, 0],
    ] as const) {
      store.clock.setMs(START_MS + afterMs);
      aheadMs = setMs;
      expect(await made.used(keeper)).toBeLessThanOrEqual(1000n * BigInt(afterMs));
    }
    store.clock.setMs(START_MS + 6 * HOUR_MS);
    await forgetSnapshot(store.sql, 'one', START_MS + 6 * HOUR_MS);
    expect(await made.used(keeper)).toBe(1000n * BigInt(6 * HOUR_MS));
  }, 20_000);
});

describe('snapshots at a full hour', () => {
  interface Kept {
    readonly id: string;
    readonly tenant: string;
    readonly container: string;
  }

  async function keepAt(store: LedgerStore, { id, tenant, container }: Kept, createdMs: number): Promise<void> {
    const base = { id, tenant, container, name: 'web-1', host: 'a', runtime: 'r', spec: '{}' };
    const sizes = { imageBytes: 1000, fileBytes: 1000, memoryBytes: 1000 };
    await beginSnapshot(store.sql, { ...base, ...sizes, createdMs, kind: 'copy', state: 'kept', serves: 'nothing' });
  }

  async function usedBy(store: LedgerStore, tenant: string): Promise<bigint> {
    const span = { tenant, sinceMs: 0, untilMs: START_MS + 1000 * DAY_MS, by: 'tenant' } as const;
    return (await store.keeper.usage(span))[0]?.snapshotByteMs ?? 0n;
  }

  test('one that goes while others are written down is billed to its end', async () => {
    await using store = await openLedgerStore(folder);
    const { container } = await store.container('acme', 'a', START_MS);
    for (const id of ['one', 'two', 'three']) await keepAt(store, { id, tenant: 'acme', container }, START_MS);
    store.clock.setMs(START_MS + GRAIN_MS.hour - 9_000);
    await store.keeper.round();
    store.clock.setMs(START_MS + GRAIN_MS.hour + 3_000);
    const round = store.keeper.round();
    setImmediate(() => {
      void forgetSnapshot(store.sql, 'three', START_MS + GRAIN_MS.hour + 3_000);
    });
    await round;
    for (const id of ['one', 'two']) await forgetSnapshot(store.sql, id, START_MS + GRAIN_MS.hour + 3_000);
    store.clock.setMs(START_MS + GRAIN_MS.hour + 18_000);
    await store.keeper.round();
    expect(await usedBy(store, 'acme')).toBe(3n * 1000n * BigInt(GRAIN_MS.hour + 3_000));
  }, 20_000);

  test('a ledger that cannot be written to keeps no other from its snapshots, sums and heads', async () => {
    await using store = await openLedgerStore(folder);
    await fillLedger(store);
    const damaged = await store.container('aaa', 'a', store.clock.nowMs());
    const [whole] = await listChains(store.sql);
    const at = await store.container('acme', 'a', store.clock.nowMs());
    await meter(store, damaged, 1000, 3);
    await meter(store, at, 1000, 3);
    await keepAt(store, { id: 'one', tenant: 'aaa', container: damaged.container }, store.clock.nowMs());
    await keepAt(store, { id: 'two', tenant: 'acme', container: at.container }, store.clock.nowMs());
    await store.sql.write([{ sql: `UPDATE ledger_chain SET totals = '[' WHERE tenant = 'aaa'`, values: [] }]);
    const before = await usedBy(store, 'acme');
    store.clock.setMs(store.clock.nowMs() + DAY_MS);
    await store.keeper.round();
    expect(await usedBy(store, 'acme')).toBeGreaterThan(before);
    const [chain] = await store.sql.read(`SELECT rolled, number, heads FROM ledger_chain WHERE tenant = 'acme'`, []);
    expect(chain?.['rolled']).toBe(chain?.['number']);
    expect(Number(chain?.['heads'])).toBe((whole?.heads ?? 0) + 1);
  }, 20_000);

  test('behind a clock that was set back rows are written by the hour, and not each round', async () => {
    await using store = await openLedgerStore(folder);
    const { container } = await store.container('acme', 'a', START_MS);
    let aheadMs = 0;
    const clock = { ...store.clock, nowMs: () => store.clock.nowMs() + aheadMs };
    await using keeper = new LedgerKeeper({ log: createLog('silent'), clock, sql: store.sql, key: store.key });
    await keepAt(store, { id: 'one', tenant: 'acme', container }, START_MS);
    await keeper.round();
    aheadMs = -20 * GRAIN_MS.hour;
    for (let atMs = 0; atMs <= 5 * GRAIN_MS.hour; atMs += 15_000) {
      store.clock.setMs(START_MS + atMs);
      await keeper.round();
    }
    const [chain] = await listChains(store.sql);
    expect(chain?.number).toBeLessThanOrEqual(6);
    expect(await usedBy(store, 'acme')).toBe(1000n * BigInt(5 * GRAIN_MS.hour));
  }, 30_000);
});

describe('a clock that says something else', () => {
  test('drops and signs nothing before it was right for an hour, and what was right then is signed', async () => {
    await using store = await openLedgerStore(folder);
    await fillLedger(store);
    const nowMs = store.clock.nowMs();
    let aheadMs = 0;
    const clock = { ...store.clock, nowMs: () => store.clock.nowMs() + aheadMs };
    await using keeper = new LedgerKeeper({ log: createLog('silent'), clock, sql: store.sql, key: store.key });
    store.clock.setMs(nowMs + 600_000);
    await keeper.round();
    const before = await listChains(store.sql);
    aheadMs = 60 * DAY_MS;
    store.clock.setMs(nowMs + 615_000);
    await keeper.round();
    aheadMs = 0;
    for (const atMs of [630_000, 3_000_000, 4_200_000]) {
      store.clock.setMs(nowMs + atMs);
      await keeper.round();
      expect(await listChains(store.sql)).toEqual(before);
    }
    // The day after, and long enough after.
    store.clock.setMs(nowMs + DAY_MS);
    await keeper.round();
    expect((await listChains(store.sql)).some(({ heads }, index) => heads === (before[index]?.heads ?? 0) + 1)).toBe(true);
    expect((await listChains(store.sql)).map(({ dropped }) => dropped)).toEqual(before.map(({ dropped }) => dropped));
    expect(await faults(store)).toEqual([]);
  }, 20_000);

  test('a correction of a later day, first behind a head, keeps no day from being signed; and none is taken', async () => {
    await using store = await openLedgerStore(folder);
    await fillLedger(store);
    const headsOf = async (): Promise<number | undefined> => (await listChains(store.sql))[0]?.heads;
    store.clock.setMs(store.clock.nowMs() + DAY_MS);
    await store.keeper.round();
    const before = await headsOf();
    const at = await store.container('acme', 'a', store.clock.nowMs());
    const fromMs = store.clock.nowMs() + 3 * DAY_MS;
    const none = { memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, diskByteMs: 0n, streamMs: 0 };
    const correction = { ...none, container: at.container, fromMs, toMs: fromMs, cpuNs: 1, reason: 'a mistake' };
    await expect(store.control.correct(correction)).rejects.toThrow('of a time that has not come: 2026-11');
    // One that an earlier version took.
    await store.writer.correct({ ...at, fromMs, interval: { ...none, heldMs: 0, toMs: fromMs, cpuNs: 1 }, reason: 'a mistake' });
    await meter(store, at, 1000, 3);
    store.clock.setMs(store.clock.nowMs() + DAY_MS);
    await store.keeper.round();
    expect(await headsOf()).toBe((before ?? 0) + 1);
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
