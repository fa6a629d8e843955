/** What is on disk, from real directories into a real ledger: when it is looked, what counts until then, and what after a clock, an engine or a node failed. */
import { mkdir, mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DiskMeter } from '#caas/disk-meter.ts';
import type { DiskPlace } from '#caas/disk-meter.ts';
import { verifyChains } from '#caas/ledger-proof.ts';
import { DiskWalker } from '#isolation/disk-walk.ts';
import type { DiskWalk, WalkOptions } from '#isolation/disk-walk.ts';
import { createLog } from '#log';
import { deleteContainer, findContainer, insertContainer } from '#state/containers.ts';
import { closeIncarnationWrite, openIncarnationWrite } from '#state/ledger.ts';
import { addTenant } from '#state/tenants.ts';
import { deleteVolume, insertVolume } from '#state/volumes.ts';
import { rowOf, tenantNamed } from '../../support/caas-data.ts';
import { openLedgerStore, START_MS } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';

const HOUR_MS = 3_600_000;
const MIB = 1024 * 1024;
const WEB = 'aa'.repeat(32);
const DATA = 'volume/0123456789abcdef';
const VOLUME = { tenant: 'acme', name: 'data', id: '0123456789abcdef' };

let folder: string;
let store: LedgerStore;
let disks: DiskMeter;
let walker: DiskWalker;
/** The wall clock is so much ahead of the other one. */
let aheadMs: number;
let looked: string[];
let isDown: boolean;
let hasWalked: boolean;
/** In the place of a walk. */
let walkInstead: ((directory: string) => DiskWalk) | undefined;
let findInstead: (() => Promise<DiskPlace>) | undefined;

beforeEach(async () => {
  folder = await mkdtemp('/tmp/disk-meter-');
  store = await openLedgerStore(folder);
  for (const name of ['acme', 'other'])
    await addTenant(store.sql, tenantNamed(name, { address: `127.0.0.${String(name.length)}` }));
  [aheadMs, looked, isDown] = [0, [], false];
  hasWalked = false;
  [walkInstead, findInstead] = [undefined, undefined];
  walker = new DiskWalker();
  disks = openDisks();
});

afterEach(async () => {
  await disks[Symbol.asyncDispose]();
  await walker[Symbol.asyncDispose]();
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function openDisks(): DiskMeter {
  const { clock } = store;
  return new DiskMeter({
    log: createLog('silent'),
    clock: { ...clock, nowMs: () => clock.nowMs() + aheadMs, monotonicMs: () => clock.monotonicMs() },
    sql: store.sql,
    places: {
      find: async (id, how) => {
        // After a walk it is asked once more.
        if (how === 'as-known' && !hasWalked) looked.push(id);
        hasWalked = false;
        if (findInstead !== undefined) return await findInstead();
        if (isDown) throw new Error('the engine does not answer');
        const directory = directoryOf(id);
        const isThere = await stat(directory).then(
          () => true,
          () => false,
        );
        // An engine that is asked anew knows what is gone.
        return isThere || how === 'as-known' ? { host: 'a', directory } : undefined;
      },
    },
    walk: async (directory: string, options: WalkOptions) => {
      const walked = walkInstead?.(directory) ?? (await walker.walk(directory, options));
      hasWalked = walked !== undefined;
      return walked;
    },
  });
}

function directoryOf(id: string): string {
  return join(folder, id.replace('/', '-'));
}

/** Writes so much to what has that id. Returns the blocks of it, as the kernel says them. */
async function write(id: string, bytes: number): Promise<bigint> {
  const directory = directoryOf(id);
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'file'), Buffer.alloc(bytes, 1));
  const [file, itself] = [await stat(join(directory, 'file')), await stat(directory)];
  return BigInt(file.blocks + itself.blocks) * 512n;
}

async function addContainer(id = WEB, tenant = 'acme', name = 'web'): Promise<void> {
  const row = rowOf({ id, tenant, name, engineId: id, host: 'a' });
  expect((await insertContainer(store.sql, row)).kind).toBe('done');
}

async function addVolume(options: Readonly<Record<string, string>> | null = null, host = 'a'): Promise<void> {
  const volume = { ...VOLUME, host, createdMs: START_MS, anonymous: false, labels: null, options };
  expect((await insertVolume(store.sql, volume)).kind).toBe('done');
}

/** Rounds until nothing is due. */
async function settle(): Promise<void> {
  for (let count = -1; count !== looked.length;) {
    count = looked.length;
    await disks.round(new AbortController().signal);
  }
}

async function at(ms: number): Promise<void> {
  store.clock.setMs(START_MS + ms);
  await settle();
}

interface Used {
  readonly key: string;
  readonly name: string;
  readonly diskByteMs: bigint;
}

async function used(): Promise<readonly Used[]> {
  await store.keeper.roll();
  const span = { tenant: undefined, sinceMs: 0, untilMs: START_MS + 400 * 24 * HOUR_MS, by: 'container' } as const;
  const totals = await store.keeper.usage(span);
  const [verdict] = await verifyChains(store, { tenant: undefined, fromDay: undefined, toDay: undefined }, () => undefined);
  expect(verdict?.fault ?? null).toBeNull();
  return totals.map(({ key, name, diskByteMs }) => ({ key, name, diskByteMs }));
}

test('what is new is looked at after 20 s, what was found counts until the next look, and at each full hour', async () => {
  await addContainer();
  const first = await write(WEB, 3 * MIB);
  await at(0);
  expect(looked).toEqual([]);
  await at(19_000);
  expect(looked).toEqual([]);
  await at(20_000);
  expect(looked).toEqual([WEB]);
  expect(await used()).toEqual([]);
  // Nothing is written before the hour is over: it did not change.
  for (let minute = 1; minute < 60; minute += 1) await at(minute * 60_000);
  expect(looked.length).toBeGreaterThanOrEqual(4);
  expect(looked.length).toBeLessThanOrEqual(13);
  expect(await used()).toEqual([]);
  await at(HOUR_MS + 500);
  expect(await used()).toEqual([{ key: WEB, name: 'web', diskByteMs: first * BigInt(HOUR_MS - 20_000) }]);
  // It grows: the old size counts until a look finds the new one.
  const second = await write(WEB, 5 * MIB);
  const looksBefore = looked.length;
  let ms = HOUR_MS;
  while (looked.length === looksBefore) await at((ms += 1000));
  expect(ms).toBeLessThanOrEqual(HOUR_MS + 900_000);
  expect(await used()).toMatchObject([{ diskByteMs: first * BigInt(ms - 20_000) }]);
  await at(2 * HOUR_MS);
  expect(await used()).toMatchObject([{ diskByteMs: first * BigInt(ms - 20_000) + second * BigInt(2 * HOUR_MS - ms) }]);
}, 60_000);

test('what is gone counts until it was: a container until its incarnation was closed, a volume until it was removed', async () => {
  const life = { ...(await store.container('acme', 'a', START_MS)), container: WEB, name: 'web' };
  await store.sql.write([openIncarnationWrite(life)]);
  await addContainer();
  await addVolume();
  const [container, volume] = [await write(WEB, MIB), await write(DATA, 2 * MIB)];
  await at(0);
  await at(20_000);
  const row = await findContainer(store.sql, WEB);
  if (row === undefined) throw new Error('there is no container');
  await deleteContainer(store.sql, row, START_MS + 300_000);
  await store.sql.write([closeIncarnationWrite(WEB, 1, START_MS + 300_000)]);
  await deleteVolume(store.sql, VOLUME, START_MS + 250_000);
  for (const id of [WEB, DATA]) await rm(directoryOf(id), { recursive: true });
  await at(310_000);
  const all = [
    { key: WEB, name: 'web', diskByteMs: container * 280_000n },
    { key: DATA, name: 'data', diskByteMs: volume * 230_000n },
  ];
  expect(await used()).toEqual(all);
  await at(3 * HOUR_MS);
  expect(await used()).toEqual(all);
}, 60_000);

test('a volume that is in memory, or nowhere yet, has nothing on disk', async () => {
  await addVolume({ type: 'tmpfs', device: 'tmpfs' });
  await at(0);
  await at(HOUR_MS);
  expect([looked, await used()]).toEqual([[], []]);
  await deleteVolume(store.sql, VOLUME, store.clock.nowMs());
  await addVolume(null, '');
  await at(2 * HOUR_MS);
  expect([looked, await used()]).toEqual([[], []]);
});

test('what was known counts on while an engine does not answer, and while no node ran', async () => {
  await addContainer();
  const bytes = await write(WEB, MIB);
  await at(0);
  await at(20_000);
  isDown = true;
  await rm(directoryOf(WEB), { recursive: true });
  await at(HOUR_MS);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(HOUR_MS - 20_000) }]);
  await disks[Symbol.asyncDispose]();
  store.clock.setMs(START_MS + 5 * HOUR_MS);
  disks = openDisks();
  await settle();
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(5 * HOUR_MS - 20_000) }]);
  // It answers again, and has it not any more.
  isDown = false;
  const before = looked.length;
  let ms = 5 * HOUR_MS;
  while (looked.length === before) await at((ms += 10_000));
  await at(7 * HOUR_MS);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(ms - 20_000) }]);
}, 60_000);

test('where a walk is cut, what was known counts on if it is more', async () => {
  await addContainer();
  const bytes = await write(WEB, MIB);
  await at(0);
  await at(20_000);
  await truncate(join(directoryOf(WEB), 'file'), 0);
  walkInstead = () => ({ bytes: 0, isWhole: false });
  await at(HOUR_MS);
  expect(looked).toEqual([WEB, WEB]);
  await at(2 * HOUR_MS);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(2 * HOUR_MS - 20_000) }]);
  walkInstead = undefined;
  await at(3 * HOUR_MS);
  const empty = BigInt((await stat(directoryOf(WEB))).blocks) * 512n;
  await at(4 * HOUR_MS);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(3 * HOUR_MS - 20_000) + empty * BigInt(HOUR_MS) }]);
}, 60_000);

test('after the clock was set, ahead or back and for good, the time that went by counts', async () => {
  let number = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: -9 * HOUR_MS, max: 9 * HOUR_MS }), { minLength: 1, maxLength: 4 }),
      async (steps) => {
        number += 1;
        const id = number.toString(16).padStart(64, '0');
        let ms = store.clock.nowMs() - START_MS;
        const bytes = await write(id, 64 * 1024);
        await addContainer(id, 'acme', `web-${String(number)}`);
        await at((ms += 10_000));
        await at((ms += 20_000));
        const fromMs = ms;
        for (const step of steps) {
          aheadMs = step;
          for (let round = 0; round < 3; round += 1) await at((ms += 1_300_000));
        }
        const total = (await used()).find(({ key }) => key === id)?.diskByteMs ?? 0n;
        const [due, slack] = [bytes * BigInt(ms - fromMs), bytes * BigInt(steps.length) * 2_000n];
        // The hour that is under way is not counted yet.
        expect(total).toBeGreaterThanOrEqual(due - bytes * BigInt(HOUR_MS) - slack);
        expect(total).toBeLessThanOrEqual(due + slack);
        const row = await findContainer(store.sql, id);
        if (row !== undefined) await deleteContainer(store.sql, row, START_MS + ms);
        await at((ms += 20_000));
      },
    ),
    { numRuns: 30, endOnFailure: true },
  );
}, 120_000);

test('tenants take turns: who has many is looked at no more often than who has one', async () => {
  for (let index = 0; index < 10; index += 1)
    await addContainer(index.toString(16).padStart(64, '0'), 'acme', `web-${String(index)}`);
  await addContainer('ff'.repeat(32), 'other');
  await at(0);
  looked = [];
  store.clock.setMs(START_MS + 20_000);
  for (let round = 0; round < 3; round += 1) {
    store.clock.setMs(START_MS + 20_000 + round * 100);
    await disks.round(new AbortController().signal);
  }
  expect(looked.map((id) => (id === 'ff'.repeat(32) ? 'other' : 'acme')).toSorted()).toEqual(['acme', 'acme', 'other']);
  expect(looked.indexOf('ff'.repeat(32))).toBeLessThan(2);
});

test('at a full hour all are counted, however many', async () => {
  const ids = Array.from({ length: 230 }, (_, index) => index.toString(16).padStart(64, '0'));
  for (const [index, id] of ids.entries()) await addContainer(id, index % 2 === 0 ? 'acme' : 'other', `web-${String(index)}`);
  const sizes = await Promise.all(ids.map(async (id) => await write(id, 4096)));
  await at(0);
  await at(20_000);
  expect(looked).toHaveLength(ids.length);
  await at(HOUR_MS);
  const totals = new Map((await used()).map(({ key, diskByteMs }) => [key, diskByteMs]));
  expect(ids.map((id) => totals.get(id))).toEqual(sizes.map((bytes) => bytes * BigInt(HOUR_MS - 20_000)));
}, 60_000);

test('a volume that was removed just before the node stopped counts until then', async () => {
  await addVolume();
  const bytes = await write(DATA, MIB);
  await at(0);
  await at(20_000);
  await disks[Symbol.asyncDispose]();
  await deleteVolume(store.sql, VOLUME, START_MS + 30_000);
  store.clock.setMs(START_MS + 10 * HOUR_MS);
  disks = openDisks();
  await settle();
  expect(await used()).toEqual([{ key: DATA, name: 'data', diskByteMs: bytes * 10_000n }]);
});

test('petabytes are counted, in as many rows as they need, and hold up nobody', async () => {
  const bytes = 3_000_000_000_000_000n;
  await addContainer();
  await addContainer('ff'.repeat(32), 'other', 'small');
  walkInstead = (directory) => ({ bytes: directory === directoryOf(WEB) ? Number(bytes) : 1000, isWhole: true });
  for (const id of [WEB, 'ff'.repeat(32)]) await mkdir(directoryOf(id));
  await at(0);
  await at(20_000);
  await at(3 * HOUR_MS);
  const spanMs = BigInt(3 * HOUR_MS - 20_000);
  expect((await used()).toSorted((one, other) => one.key.localeCompare(other.key))).toEqual([
    { key: WEB, name: 'web', diskByteMs: bytes * spanMs },
    { key: 'ff'.repeat(32), name: 'small', diskByteMs: 1000n * spanMs },
  ]);
});

test('what sleeps is as it was; an engine that does not answer is not waited for, least of all by who ends the node', async () => {
  await addContainer();
  const bytes = await write(WEB, MIB);
  await at(0);
  await at(20_000);
  findInstead = async () => 'unknown';
  await at(HOUR_MS);
  expect(looked).toHaveLength(2);
  findInstead = async () => await new Promise<never>(() => undefined);
  store.clock.setMs(START_MS + 2 * HOUR_MS);
  const stop = new AbortController();
  const round = disks.round(stop.signal);
  while (looked.length < 3) await new Promise(setImmediate);
  stop.abort();
  await round;
  findInstead = undefined;
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(2 * HOUR_MS - 20_000) }]);
});

test('who has directories that take a minute each waits for himself, and the others are looked at as ever', async () => {
  const heavy = Array.from({ length: 6 }, (_, index) => index.toString(16).padStart(64, '0'));
  const light = Array.from({ length: 30 }, (_, index) => (index + 256).toString(16).padStart(64, 'f'));
  for (const [index, id] of heavy.entries()) await addContainer(id, 'acme', `heavy-${String(index)}`);
  for (const [index, id] of light.entries()) await addContainer(id, 'other', `light-${String(index)}`);
  for (const id of [...heavy, ...light]) await mkdir(directoryOf(id));
  walkInstead = (directory) => {
    const isHeavy = heavy.some((id) => directory === directoryOf(id));
    store.clock.setMs(store.clock.nowMs() + (isHeavy ? 60_000 : 4));
    return { bytes: 1, isWhole: !isHeavy };
  };
  await at(0);
  looked = [];
  while (store.clock.nowMs() < START_MS + 3 * HOUR_MS) {
    await disks.round(new AbortController().signal);
    store.clock.setMs(store.clock.nowMs() + 1000);
  }
  const looks = (ids: readonly string[]): number => looked.filter((id) => ids.includes(id)).length / ids.length;
  // 18 in three hours, less what a minute's walk delays.
  expect(looks(light)).toBeGreaterThan(14);
  // A tenth of three hours, each a minute at least.
  expect(looks(heavy) * heavy.length).toBeLessThanOrEqual(19);
  expect(looks(heavy) * heavy.length).toBeGreaterThan(10);
}, 30_000);

test('what is moved during its walk is not taken for what was seen of it, and is looked at again soon', async () => {
  await addContainer();
  const bytes = await write(WEB, MIB);
  await at(0);
  await at(20_000);
  const moved = join(folder, 'moved');
  walkInstead = (directory) => {
    if (directory === moved) return { bytes: 7, isWhole: true };
    findInstead = async () => ({ host: 'b', directory: moved });
    return { bytes: 1, isWhole: true };
  };
  let ms = 20_000;
  while (looked.length < 2) await at((ms += 1000));
  await at(ms + 20_000);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(ms) }]);
  expect(await store.sql.read('SELECT host, bytes FROM disk_use', [])).toMatchObject([{ host: 'b', bytes: 7n }]);
});

test('a volume that is removed during its walk counts until it was removed', async () => {
  await addVolume();
  const bytes = await write(DATA, MIB);
  await at(0);
  await at(20_000);
  let removedMs = 0;
  walkInstead = () => {
    removedMs = store.clock.nowMs();
    findInstead = async () => 'unknown';
    store.clock.setMs(removedMs + 50_000);
    return { bytes: 1, isWhole: true };
  };
  let ms = 20_000;
  while (looked.length < 2) await at((ms += 1000));
  await deleteVolume(store.sql, VOLUME, removedMs);
  store.clock.setMs(removedMs + 60_000);
  await settle();
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(removedMs - START_MS - 20_000) }]);
});

test('after somebody else counted, what the store says is read anew, and nothing counts twice', async () => {
  await addContainer();
  const bytes = await write(WEB, MIB);
  await at(0);
  await at(20_000);
  await store.sql.write([{ sql: 'UPDATE disk_use SET metered_ms = ?', values: [START_MS + 1_800_000] }]);
  await at(HOUR_MS);
  await at(HOUR_MS + 1000);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * 1_800_000n }]);
});

test('what is gone is not counted up to a full hour that has just begun', async () => {
  await addVolume();
  const bytes = await write(DATA, MIB);
  await at(0);
  await at(20_000);
  await at(HOUR_MS - 2000);
  await deleteVolume(store.sql, VOLUME, START_MS + HOUR_MS - 1000);
  await at(HOUR_MS + 1);
  expect(await used()).toMatchObject([{ diskByteMs: bytes * BigInt(HOUR_MS - 21_000) }]);
});
