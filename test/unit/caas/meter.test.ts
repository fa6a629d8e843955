/** The meter over a real store and a cgroup tree of plain files: what is billed, and what never is. */
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Meter } from '#caas/meter.ts';
import { sumUsage } from '../../support/sum-usage.ts';
import type { Clock } from '#clock';
import { Cgroups } from '#isolation/cgroup.ts';
import { createLog } from '#log';
import { readNamedRows } from '#state/ledger.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';

const CGROUP = '/ecluse/t-a/acme/c1';
const BASE = { container: 'c1', incarnation: 1, tenant: 'acme', host: 'a', name: 'web', cgroup: CGROUP };
const MIB = 1024 * 1024;

describe('Meter', () => {
  let folder: string;
  let sql: Sql;
  let nowMs: number;
  let wake: (() => void)[];
  let meter: Meter;

  // The loop sleeps until a test wakes it; everything else is driven by calls.
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: async (_ms, signal) =>
      await new Promise((resolve, reject) => {
        wake.push(resolve);
        signal?.addEventListener('abort', () => {
          reject(new Error('stopped'));
        });
      }),
  };
  const counters = async (cpuNs: number, memoryBytes: number): Promise<void> => {
    await mkdir(join(folder, 'cpuacct', CGROUP), { recursive: true });
    await mkdir(join(folder, 'memory', CGROUP), { recursive: true });
    await writeFile(join(folder, 'cpuacct', CGROUP, 'cpuacct.usage'), `${String(cpuNs)}\n`);
    await writeFile(join(folder, 'memory', CGROUP, 'memory.usage_in_bytes'), `${String(memoryBytes + MIB)}\n`);
    await writeFile(join(folder, 'memory', CGROUP, 'memory.stat'), `cache 1\ntotal_inactive_file ${String(MIB)}\n`);
  };
  const total = async () =>
    sumUsage(await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all'), 'container')[0];
  const openMeter = async (): Promise<Meter> =>
    await Meter.open({
      log: createLog('silent'),
      clock,
      sql,
      cgroups: new Cgroups(1, [join(folder, 'cpuacct'), join(folder, 'memory')], folder),
    });

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/meter-');
    nowMs = 1_000_000;
    wake = [];
    sql = openSqlite(join(folder, 'state.db'));
    meter = await openMeter();
  });

  afterEach(async () => {
    await meter[Symbol.asyncDispose]();
    await sql[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test('bills exactly what the CPU counter grew by, and memory over time', async () => {
    await counters(5_000, 10 * MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    nowMs += 2_000;
    await counters(9_000, 20 * MIB);
    await meter.flush('c1');
    nowMs += 1_000;
    await counters(9_500, 0);
    await meter.close('c1');
    const usage = await total();
    expect(usage?.cpuNs).toBe(4_500n);
    expect(usage?.memoryByteMs).toBe(BigInt(2_000 * 10 * MIB + 1_000 * 20 * MIB));
  });

  test('goes on from the cursor after a crash, and counts nothing twice', async () => {
    await counters(0, MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    nowMs += 1_000;
    await counters(1_000, MIB);
    await meter.flush('c1');
    await counters(1_700, MIB); // The daemon dies before it writes this down: no dispose.
    nowMs += 5_000;
    const next = await openMeter();
    await counters(2_000, MIB);
    await next.close('c1');
    expect((await total())?.cpuNs).toBe(2_000n);
    await next[Symbol.asyncDispose]();
    // The first meter is a zombie now: what it still tries to write is refused.
    await meter.flush('c1');
    expect((await total())?.cpuNs).toBe(2_000n);
  });

  test('takes a new cgroup of the same path for a new incarnation, whatever its counter says', async () => {
    await counters(1_000, MIB);
    await meter.openIncarnation(await meter.startingPoint({ ...BASE }));
    await counters(3_000, MIB);
    await meter.flush('c1');
    await rename(join(folder, 'cpuacct', '/ecluse'), join(folder, 'old')); // Kept, so that its inode number is not given out again.
    await counters(50_000, MIB); // Larger than before: a plain difference would read 47 000.
    await meter.close('c1');
    expect((await total())?.cpuNs).toBe(52_000n);
  });

  test('a suspended incarnation is not billed for what the platform did meanwhile', async () => {
    await counters(0, MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    await counters(1_000, MIB);
    await meter.suspend('c1', { cpuNs: 1_000, memoryBytes: MIB });
    await counters(9_000, MIB); // A checkpoint that was rolled back.
    await meter.resume('c1', 1);
    await counters(9_400, MIB);
    await meter.close('c1');
    expect((await total())?.cpuNs).toBe(1_400n);
  });

  test('a clock that goes backwards never makes a negative interval', async () => {
    await counters(0, MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    nowMs -= 60_000;
    await counters(500, MIB);
    await meter.flush('c1');
    const [row] = await readNamedRows(sql, { tenant: 'acme', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');
    expect(row?.toMs).toBeGreaterThanOrEqual(row?.fromMs ?? Number.NaN);
    expect(row?.memoryByteMs).toBe(0n);
    expect(row?.cpuNs).toBe(500);
  });

  describe('where another program writes the same books at the same time', () => {
    /** A meter before each of whose intervals another one writes its own, that many times. */
    const openBeside = async (times: number): Promise<{ readonly own: Meter; readonly left: () => number }> => {
      let left = times;
      const writeBefore = async (): Promise<void> => {
        left -= 1;
        nowMs += 100;
        await counters((times - left) * 1_000, MIB);
        const other = await openMeter();
        await other.flush('c1');
        await other[Symbol.asyncDispose]();
      };
      const busy: Sql = {
        read: async (text, values) => {
          if (left > 0 && text.includes('FROM ledger_chain')) await writeBefore();
          return await sql.read(text, values);
        },
        write: async (writes) => await sql.write(writes),
        [Symbol.asyncDispose]: async () => {},
      };
      const cgroups = new Cgroups(1, [join(folder, 'cpuacct'), join(folder, 'memory')], folder);
      const own = await Meter.open({ log: createLog('silent'), clock, sql: busy, cgroups });
      return { own, left: () => left };
    };

    beforeEach(async () => {
      await counters(0, MIB);
      await meter.openIncarnation(await meter.startingPoint(BASE));
      await meter[Symbol.asyncDispose]();
      nowMs += 1_000;
    });

    test('a close writes the last interval however often it has to begin again, and what was read earlier counts', async () => {
      const { own, left } = await openBeside(3);
      await own.suspend('c1', { cpuNs: 3_700, memoryBytes: MIB });
      expect(left()).toBe(0);
      await counters(9_000, MIB);
      await own.resume('c1', 1);
      await own.close('c1');
      expect((await total())?.cpuNs).toBe(3_700n); // What the platform used while it was suspended is nobody's.
      await own[Symbol.asyncDispose]();
    });

    test('a close that never gets through fails, and what is not written is metered on', async () => {
      const { own } = await openBeside(5);
      await expect(own.close('c1')).rejects.toThrow('somebody else writes the ledger of c1');
      expect((await total())?.cpuNs).toBe(5_000n);
      await counters(5_500, MIB);
      await own.close('c1');
      expect((await total())?.cpuNs).toBe(5_500n);
      await own[Symbol.asyncDispose]();
    });
  });

  test('a round writes down what is due of all containers, each once, and gives nothing up where it cannot', async () => {
    const names = Array.from({ length: 130 }, (_, index) => `c-${String(index)}`);
    await counters(0, MIB);
    for (const container of names) await meter.openIncarnation(await meter.startingPoint({ ...BASE, container }));
    const round = async (): Promise<void> => {
      for (const resolve of wake.splice(0)) resolve();
      const endMs = performance.now() + 20_000;
      while (wake.length === 0 && performance.now() < endMs) await delay(1);
    };
    const rows = async () => await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');
    await round();
    nowMs += 10_000;
    await counters(700, MIB);
    const moved = { requests: 2, ingressBytes: 3, egressBytes: 5, heldMs: 1, streamMs: 2 };
    await meter.keepTraffic({ epoch: 'worker', number: 1, traffic: names.map((container) => ({ container, ...moved })) });
    await sql.write([{ sql: 'ALTER TABLE ledger RENAME TO hidden', values: [] }]); // Nothing can be written.
    await round();
    await sql.write([{ sql: 'ALTER TABLE hidden RENAME TO ledger', values: [] }]);
    expect(await rows()).toEqual([]);
    nowMs += 1300;
    await round();
    const written = await rows();
    expect(written).toHaveLength(names.length);
    expect(written.every(({ cpuNs, requests, egressBytes }) => cpuNs === 700 && requests === 2 && egressBytes === 5)).toBe(true);
    nowMs += 10_000;
    await counters(900, MIB);
    await round();
    const second = (await rows()).filter(({ seq }) => seq === 2);
    expect(second).toHaveLength(names.length);
    expect(second.every(({ cpuNs, requests }) => cpuNs === 200 && requests === 0)).toBe(true);
  }, 30_000);

  describe('what the edge moved', () => {
    const moved = (requests: number, container = 'c1') => ({
      container,
      requests,
      ingressBytes: 10 * requests,
      egressBytes: 0,
      heldMs: 0,
      streamMs: 0,
    });
    const rows = async () => await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');

    beforeEach(async () => {
      await counters(0, MIB);
      await meter.openIncarnation(await meter.startingPoint(BASE));
    });

    test('counts once, whoever says it again, and survives the daemon', async () => {
      await meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(3)] });
      await meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(3)] });
      await Promise.all([
        meter.keepTraffic({ epoch: 'w2', number: 1, traffic: [moved(5)] }),
        meter.keepTraffic({ epoch: 'w1', number: 2, traffic: [moved(7)] }),
      ]);
      const next = await openMeter(); // The daemon died before an interval had any of it.
      await next.keepTraffic({ epoch: 'w1', number: 2, traffic: [moved(7)] });
      await next.keepTraffic({ epoch: 'w1', number: 3, traffic: [moved(11)] });
      await next.close('c1');
      await next[Symbol.asyncDispose]();
      expect(await total()).toMatchObject({ requests: 26n, ingressBytes: 260n });
    });

    test('is of the next interval where it comes while one is written', async () => {
      await meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(1)] });
      nowMs += 1000;
      await Promise.all([meter.flush('c1'), meter.keepTraffic({ epoch: 'w1', number: 2, traffic: [moved(2)] })]);
      nowMs += 1000;
      await meter.close('c1');
      expect((await rows()).reduce((sum, { requests }) => sum + requests, 0)).toBe(3);
    });

    test('of a container that has stopped is a correction of its last incarnation, once', async () => {
      nowMs += 1000;
      await meter.close('c1');
      await meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(4), moved(9, 'no-container')] });
      const round = async (): Promise<void> => {
        for (const resolve of wake.splice(0)) resolve();
        const endMs = performance.now() + 5_000;
        while (wake.length === 0 && performance.now() < endMs) await delay(1);
      };
      await round();
      expect(await total()).toMatchObject({ requests: 0n });
      nowMs += 61_000;
      await round();
      nowMs += 61_000;
      await round();
      expect(await total()).toMatchObject({ requests: 4n, ingressBytes: 40n });
      const late = (await rows()).filter(({ requests }) => requests > 0);
      expect(late).toMatchObject([{ seq: -1, fromMs: 1_001_000, toMs: 1_001_000 }]);
    });

    test('is not said to be kept where it cannot be written down', async () => {
      await sql.write([{ sql: 'ALTER TABLE edge_epoch RENAME TO hidden', values: [] }]);
      await expect(meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(1)] })).rejects.toThrow('edge_epoch');
      await sql.write([{ sql: 'ALTER TABLE hidden RENAME TO edge_epoch', values: [] }]);
      await meter.keepTraffic({ epoch: 'w1', number: 1, traffic: [moved(1)] });
      await meter.close('c1');
      expect(await total()).toMatchObject({ requests: 1n });
    });
  });

  test('a clock that is set an hour ahead or back bills the time that went by', async () => {
    let monotonicMs = 0;
    const own = await Meter.open({
      log: createLog('silent'),
      clock: { ...clock, monotonicMs: () => monotonicMs },
      sql,
      cgroups: new Cgroups(1, [join(folder, 'cpuacct'), join(folder, 'memory')], folder),
    });
    await counters(0, MIB);
    await own.openIncarnation(await own.startingPoint(BASE));
    for (const stepMs of [0, 3_600_000, -7_200_000]) {
      nowMs += 1_000 + stepMs;
      monotonicMs += 1_000;
      await own.flush('c1');
    }
    await own[Symbol.asyncDispose]();
    expect((await total())?.memoryByteMs).toBe(BigInt(3_000 * MIB));
    const all = await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');
    for (const { fromMs, toMs } of all) expect(toMs).toBeGreaterThanOrEqual(fromMs);
    expect(all.slice(1).every(({ fromMs }, index) => fromMs === all[index]?.toMs)).toBe(true);
  });

  test('a counter that was read before a later interval was written is not taken for a new cgroup', async () => {
    await counters(0, MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    await counters(2_000, MIB);
    await meter.flush('c1'); // A query, while the container is being paused.
    await meter.suspend('c1', { cpuNs: 1_500, memoryBytes: MIB });
    await meter.resume('c1', 1);
    await counters(2_600, MIB);
    await meter.close('c1');
    expect((await total())?.cpuNs).toBe(2_600n);
  });

  test('a container that has used more than 104 days of a processor is metered as any', async () => {
    const days = 9_100_000_000_000_000;
    await counters(days, MIB);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    await counters(days + 4_000, MIB);
    await meter.flush('c1');
    await meter[Symbol.asyncDispose]();
    meter = await openMeter();
    await counters(days + 6_000, MIB);
    await meter.close('c1');
    expect((await total())?.cpuNs).toBe(6_000n);
  });

  test('of time that nobody watched the less is billed', async () => {
    await meter.openIncarnation(await meter.startingPoint(BASE));
    await meter[Symbol.asyncDispose]();
    nowMs += 86_400_000;
    meter = await openMeter();
    await counters(0, 64 * MIB); // It was started a moment ago.
    await meter.flush('c1');
    nowMs += 1_000;
    await meter.close('c1');
    expect((await total())?.memoryByteMs).toBe(BigInt(1_000 * 64 * MIB));
  });

  test('what it uses after days of standing still is of the hour in which it runs', async () => {
    const hourMs = 3_600_000;
    nowMs = Date.UTC(2026, 10, 2) + 30 * 60_000;
    await counters(1_000, 0);
    await meter.openIncarnation(await meter.startingPoint(BASE));
    for (let hours = 0; hours < 30; hours += 1) {
      nowMs += hourMs;
      await meter.flush('c1'); // The round does so each ten seconds.
    }
    const startedMs = nowMs;
    nowMs += 5_000;
    await counters(9_000, 8 * MIB);
    await meter.flush('c1');
    const rows = await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all');
    const used = rows.filter(({ cpuNs, memoryByteMs }) => cpuNs !== 0 || memoryByteMs !== 0n);
    expect(used.map(({ fromMs, cpuNs }) => [fromMs, cpuNs])).toEqual([[startedMs - 30 * 60_000, 8_000]]);
    expect(rows.at(-1)).toMatchObject({ toMs: nowMs });
    expect((await total())?.cpuNs).toBe(8_000n);
    // From then on as ever.
    nowMs += 10_000;
    await counters(9_500, 8 * MIB);
    await meter.flush('c1');
    expect((await total())?.cpuNs).toBe(8_500n);
  });

  test('a container that does not run writes no rows', async () => {
    await meter.openIncarnation(await meter.startingPoint(BASE));
    nowMs += 60_000;
    await meter.flush('c1');
    await meter.flush('c1');
    expect(await readNamedRows(sql, { tenant: '', fromMs: 0, untilMs: Number.MAX_SAFE_INTEGER }, 'all')).toEqual([]);
  });
});
