/** What becomes of a reload whose last step fails: everything is as it was. The parts that it changes are stand-ins that say what they were told. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { loadConfig } from '#config';
import type { NodeConfig } from '#config';
import { createLog } from '#log';
import type { ChangeableOptions } from '#proxy/protocol.ts';
import { openSqlite } from '#state/sqlite.ts';
import { readChanges } from '#state/change-log.ts';
import { Reloads } from '../../src/node-reload.ts';
import type { LiveConfig } from '../../src/node-reload.ts';

let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-reload-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Reloads over stand-ins. `publish` is what the edge does with its routes. */
async function scene(publish: (times: number) => Promise<void>) {
  const file = join(folder, 'ecluse.yaml');
  const readConfig = async (): Promise<NodeConfig> =>
    await loadConfig({
      file,
      dataDir: folder,
      demo: false,
      overrides: { http: undefined, https: undefined, docker: undefined, metrics: undefined },
    });
  await writeFile(file, 'domain: one.test\n');
  const log = createLog('error');
  const live: LiveConfig = { config: await readConfig() };
  const sql = openSqlite(join(folder, `${String(performance.now())}.db`));
  const given: ChangeableOptions[] = [];
  const told: string[] = [];
  let published = 0;
  const reloads = new Reloads({
    log,
    clock: systemClock,
    sql,
    live,
    readConfig,
    pool: {
      reconfigure: async (options) => {
        given.push(options);
        return await Promise.resolve([7]);
      },
    },
    edge: {
      publish: async () => {
        told.push(`routes for ${live.config.domain}`);
        published += 1;
        await publish(published);
      },
    },
    fleet: {
      follow: ({ mode }) => {
        told.push(`rebalance ${mode}`);
      },
    },
    onDomain: async () => {
      told.push(`certificate for ${live.config.domain}`);
      await Promise.resolve();
    },
  });
  return { file, log, live, sql, given, told, reloads };
}

const CHANGED = 'domain: two.test\nlogLevel: debug\nrebalance: { mode: advise }\nedge: { timeouts: { idle: 7s } }\n';

test('where the routes of another domain are refused, all has what it had, and the next reload is whole', async () => {
  const { file, log, live, sql, given, told, reloads } = await scene(async (times) => {
    if (times === 1) throw new Error('no room for so many certificates');
    await Promise.resolve();
  });
  const before = live.config;
  await writeFile(file, CHANGED);
  await expect(reloads.reload()).rejects.toMatchObject({
    code: 'ECLUSE_RELOAD_REFUSED',
    message: 'the domain cannot change: no room for so many certificates',
  });
  expect(live.config).toBe(before);
  expect(given.map(({ limits }) => limits.idleTimeoutMs)).toEqual([7000, before.edge.idleTimeoutMs]);
  expect(told).toEqual(['certificate for two.test', 'routes for two.test', 'certificate for one.test', 'routes for one.test']);
  expect(log.level).toBe('error');
  expect(await readChanges(sql, 0, 10)).toEqual([]);

  const applied = ['domain', 'edge.timeouts.idle', 'logLevel', 'rebalance.mode'];
  expect((await reloads.reload()).applied.toSorted()).toEqual(applied);
  expect(live.config).toMatchObject({ domain: 'two.test', edge: { idleTimeoutMs: 7000 } });
  expect(told.slice(4)).toEqual(['certificate for two.test', 'routes for two.test', 'rebalance advise']);
  expect(log.level).toBe('debug');
  expect(await readChanges(sql, 0, 10)).toMatchObject([{ kind: 'node.reloaded', key: file }]);
  expect(await reloads.reload()).toMatchObject({ applied: [], needsRestart: [], workers: [] });
  await sql[Symbol.asyncDispose]();
});

test('any number of calls while one is under way makes one more reading', async () => {
  const gate = Promise.withResolvers<undefined>();
  const { file, told, sql, reloads } = await scene(async () => {
    await gate.promise;
  });
  await writeFile(file, CHANGED);
  const first = reloads.reload();
  await expect.poll(() => told).toContain('routes for two.test');
  await writeFile(file, CHANGED.replace('two', 'three'));
  const others = Array.from({ length: 100 }, async () => await reloads.reload());
  gate.resolve(undefined);
  expect((await first).applied).toContain('domain');
  const reports = await Promise.all(others);
  expect(new Set(reports).size).toBe(1);
  expect(reports[0]?.applied).toEqual(['domain']);
  expect(told.filter((text) => text.startsWith('routes'))).toEqual(['routes for two.test', 'routes for three.test']);
  await sql[Symbol.asyncDispose]();
});
