/** What a save left of its way back, over a real store. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SaveDebts } from '#caas/snapshots/save-debts.ts';
import type { Step } from '#caas/snapshots/save-debts.ts';
import type { Clock } from '#clock';
import { KeyedLock } from '#lifecycle';
import { createLog } from '#log';
import { deleteContainer, insertContainer } from '#state/containers.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { addTenant } from '#state/tenants.ts';
import { rowOf, tenantNamed } from '../../support/caas-data.ts';

const ROW = rowOf();

describe('SaveDebts', () => {
  let folder: string;
  let sql: Sql;
  let locks: KeyedLock;
  let debts: SaveDebts;
  let wake: (() => void)[];
  let done: string[];
  /** Steps that fail for now. */
  let broken: Set<string>;

  // The loop sleeps until a test wakes it.
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    sleep: async (_ms, signal) =>
      await new Promise((resolve, reject) => {
        wake.push(resolve);
        signal?.addEventListener('abort', () => {
          reject(new Error('stopped'));
        });
      }),
  };
  const step = (name: string) => async (): Promise<void> => {
    done.push(name);
    await Promise.resolve();
    if (broken.has(name)) throw new Error(`${name} is broken`);
  };
  /** As its callers do: under the container's lock. */
  const take = async (steps: readonly Step[], last?: Step): Promise<void> => {
    await locks.run(ROW.id, async () => {
      await debts.take(ROW, steps, last);
    });
  };
  /** Lets the loop look once more. */
  const round = async (): Promise<void> => {
    await expect.poll(() => wake.length).toBe(1);
    const before = wake;
    wake = [];
    for (const each of before) each();
    await expect.poll(() => wake.length).toBe(1);
  };

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/debts-');
    sql = openSqlite(join(folder, 'state.db'));
    locks = new KeyedLock();
    debts = new SaveDebts({ log: createLog('silent'), clock, sql, locks });
    wake = [];
    done = [];
    broken = new Set();
    await addTenant(sql, tenantNamed(ROW.tenant));
    expect((await insertContainer(sql, ROW)).kind).toBe('done');
  });

  afterEach(async () => {
    await debts[Symbol.asyncDispose]();
    await sql[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test('takes all steps at once, and the last one after them', async () => {
    await take([step('one'), step('two')], step('last'));
    expect(done).toEqual(['one', 'two', 'last']);
    expect(await debts.settle(ROW.id)).toBe(true);
    expect(done).toHaveLength(3);
  });

  test('tries again what failed, and only that, until the last one is taken', async () => {
    broken = new Set(['one', 'last']);
    await take([step('one'), step('two')], step('last'));
    expect(done).toEqual(['one', 'two']);
    await round();
    expect(done).toEqual(['one', 'two', 'one']);
    expect(await debts.settle(ROW.id)).toBe(false);
    broken = new Set(['last']);
    done = [];
    await round();
    expect(done).toEqual(['one', 'last']);
    broken = new Set();
    await round();
    expect(done).toEqual(['one', 'last', 'last']);
    expect(await debts.settle(ROW.id)).toBe(true);
    await round();
    expect(done).toHaveLength(3);
  });

  test('leaves a container alone that something else is done to', async () => {
    broken = new Set(['one']);
    await take([step('one')]);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const held = locks.run(ROW.id, async () => await promise);
    await round();
    expect(done).toEqual(['one']);
    resolve(undefined);
    await held;
    await round();
    expect(done).toEqual(['one', 'one']);
  });

  test('keeps what is owed already when more is', async () => {
    broken = new Set(['one']);
    await take([step('one')], step('first last'));
    broken = new Set();
    done = [];
    await take([step('two')], step('second last'));
    expect(done).toEqual(['one', 'two', 'first last', 'second last']);
  });

  test('starts nothing after its end that would keep the process alive', async () => {
    await debts[Symbol.asyncDispose]();
    broken = new Set(['one']);
    await take([step('one'), step('two')], step('last'));
    expect(done).toEqual(['one', 'two']);
    expect(wake).toEqual([]);
  });

  test('touches nothing of a container that is gone or was made anew, but takes the last step', async () => {
    broken = new Set(['one']);
    await take([step('one')], step('last'));
    await deleteContainer(sql, ROW, 0);
    await round();
    expect(done).toEqual(['one', 'last']);
  });
});
