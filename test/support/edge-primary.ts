/**
 * A primary of an edge with a real store and real workers, to be killed at a step of a change: told by lines of JSON on standard input, answers with lines
 * of JSON. The steps are seen at what a change calls: its store (asked when every worker is ready, answered before any serves it), and the turn after.
 */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import * as z from 'zod';
import { systemClock } from '#clock';
import { reasonOf } from '#errors';
import { createLog } from '#log';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { operationSchema } from '#routing/operator/schema.ts';
import { CONFIG_VERSION_KEY } from '#state/edge-settings.ts';
import { readSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { openSqlite } from '#state/sqlite.ts';
import { openAuthority } from '#tls/authority.ts';
import { HostCertificates } from '#tls/host-certificates.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { bareCertificates, packCertificates } from '../../src/node-certificate-store.ts';
import { EdgeCertificates } from '../../src/node-certificates.ts';
import { Edge } from '../../src/node-edge.ts';
import { EdgeSettingsControl } from '../../src/node-edge-settings.ts';

const BLOW = z.object({ step: z.enum(['prepare', 'ready', 'stored', 'commit', 'after']), victim: z.enum(['primary', 'worker']) });
const COMMAND = z.object({ operations: z.array(operationSchema), blow: BLOW.nullable() });
type Blow = z.infer<typeof BLOW>;

const [, , folder = '', port = '0'] = process.argv;
const WORKERS = 2;
let due: Blow | null = null;

function strike(step: Blow['step']): void {
  if (due?.step !== step) return;
  const { victim } = due;
  due = null;
  // The first is in the middle of the change as well as the second: which one dies makes no difference.
  const pid = victim === 'primary' ? process.pid : pool.status()[0]?.pid;
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
}

function struck(sql: Sql): Sql {
  return {
    read: async (text, values) => await sql.read(text, values),
    write: async (writes) => {
      const isVersion = writes.some((write) => write.sql.includes('INTO config_version'));
      if (isVersion) strike('ready');
      const outcome = await sql.write(writes);
      if (isVersion) strike('stored');
      if (isVersion)
        setImmediate(() => {
          strike('commit');
        });
      return outcome;
    },
    [Symbol.asyncDispose]: async () => {
      await sql[Symbol.asyncDispose]();
    },
  };
}

const sql = struck(openSqlite(join(folder, 'state.db')));
const authority = await openAuthority(join(folder, 'tls'), { clock: systemClock });
const certificates = await HostCertificates.open(join(folder, 'tls'), { authority, clock: systemClock });
const log = createLog('silent');
const seal = await KeySeal.open(join(folder, 'tls'), []);
const edge = new Edge({
  log,
  clock: systemClock,
  sql,
  certificates,
  added: {
    bare: async () => await bareCertificates({ sql }),
    pack: async (names) => await packCertificates({ sql, seal, refused: () => undefined }, names),
    lend: async () => await Promise.resolve(undefined),
  },
  domain: () => 'localhost',
  wake: undefined,
});
const pool = await WorkerPool.open(
  { log, clock: systemClock },
  {
    workers: WORKERS,
    workerFile: join(import.meta.dirname, '../../src/worker.ts'),
    listen: { http: { host: '127.0.0.1', port: Number(port) }, https: undefined },
    accessLogFile: join(folder, 'access.log'),
    logLevel: 'silent',
    initial: await edge.initial(),
    certificates: edge.stock,
    onTraffic: () => undefined,
    onWake: () => undefined,
  },
);
edge.attach(pool);
const control = new EdgeSettingsControl({
  log,
  clock: systemClock,
  sql,
  edge,
  certificates: new EdgeCertificates({
    log,
    clock: systemClock,
    sql,
    edge,
    seal,
    unknownNames: 'default',
  }),
  workers: () => pool.status(),
  table: () => pool.table,
  health: () => pool.health(),
});

async function state(): Promise<object> {
  return {
    port: pool.listening.http?.port,
    version: edge.version,
    stored: Number(await readSetting(sql, CONFIG_VERSION_KEY)),
    workers: pool.status().map(({ version, state: phase }) => ({ version, phase })),
    document: (await control.settings()).document,
  };
}

function tell(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

tell(await state());
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'state') {
    tell(await state());
    continue;
  }
  const { operations, blow } = COMMAND.parse(JSON.parse(line));
  due = blow;
  const done = control.transact(operations, { ifVersion: undefined, dryRun: false, note: '' });
  strike('prepare');
  try {
    tell({ version: (await done).version });
  } catch (error) {
    tell({ error: reasonOf(error) });
  }
  strike('after');
}
await pool[Symbol.asyncDispose]();
await sql[Symbol.asyncDispose]();
// oxlint-disable-next-line unicorn/no-process-exit -- this is the program's own end
process.exit(0);
