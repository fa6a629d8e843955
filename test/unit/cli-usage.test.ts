/** `usage` over a real ledger: what it prints of sums that corrections brought below zero, and the ids of its events. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import * as z from 'zod';
import type { Incarnation } from '#state/ledger.ts';
import { printUsage } from '../../src/cli-usage.ts';
import { PriceOperations } from '../../src/node-prices.ts';
import { DAY_MS, meter, openLedgerStore, START_MS } from '../support/ledger-store.ts';
import type { LedgerStore } from '../support/ledger-store.ts';

let folder: string;
let store: LedgerStore;
let at: Incarnation;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-usage-'));
  store = await openLedgerStore(folder);
  at = await meter(store, await store.container('acme', 'a', START_MS), 600_000, 1);
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function correct(cpuNs: number, more: object = {}): Promise<void> {
  const none = { memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, diskByteMs: 0n, streamMs: 0 };
  const span = { fromMs: START_MS + 5000, toMs: START_MS + 6000 };
  await store.control.correct({ ...none, ...more, ...span, container: at.container, reason: 'a test', cpuNs });
}

/** Of two days. */
async function usage(format: 'table' | 'cloudevents', by: 'tenant' | 'container' = 'tenant'): Promise<string> {
  const { sql, clock, keeper } = store;
  const prices = new PriceOperations({ sql, clock, keeper, flush: async () => undefined, changed: () => undefined });
  const span = {
    since: { kind: 'at', atMs: START_MS },
    until: { kind: 'at', atMs: START_MS + 2 * DAY_MS },
    month: undefined,
  } as const;
  const daemon = { dataDir: undefined, adminSocket: undefined };
  let text = '';
  await printUsage(
    { kind: 'usage', daemon, json: false, tenant: 'acme', ...span, by, format },
    { usage: async (query) => await keeper.usage(query), prices },
    { write: (more) => (text += more), note: () => undefined, isScreen: false, isNoteScreen: false },
  );
  return text;
}

test('a sum below zero is a number with one sign', async () => {
  await correct(-1_499_007_932, { memoryByteMs: -(2n ** 60n), egressBytes: -(2 ** 20) });
  const row = (await usage('table')).split('\n')[1];
  expect(row).toMatch(/^acme +-1\.499 +-279\.620 +3 +0\.001 +-0\.900 /);
});

test('an event has the same id while its sum is the same, and another when a correction or a late row changed it', async () => {
  const eventsOf = async (by: 'tenant' | 'container'): Promise<readonly unknown[]> =>
    (await usage('cloudevents', by))
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
  const idOf = async (by: 'tenant' | 'container' = 'tenant'): Promise<string> => {
    const [event] = await eventsOf(by);
    return z.looseObject({ id: z.string() }).parse(event).id;
  };
  const first = await idOf();
  expect(first).toMatch(/^tenant acme \d+ \d+ \d+ [0-9a-f]{16}$/);
  expect(await idOf()).toBe(first);
  const ids = new Set([first]);
  await correct(-7);
  expect(ids.has(await idOf())).toBe(false);
  ids.add(await idOf());
  // Late: its end is not later than that of what was there.
  await meter(store, await store.container('acme', 'b', START_MS), 500_000, 2);
  expect(ids.has(await idOf())).toBe(false);
  // A correction of the correction: the sum of its container is what it was.
  const before = await idOf('container');
  await correct(-3);
  expect(await idOf('container')).not.toBe(before);
  await correct(3);
  expect(await idOf('container')).toBe(before);
});
