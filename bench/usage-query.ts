/**
 * How long does `usage` take over a large ledger?
 *
 * Makes a store with the sums of `--containers` (default 10 000) containers of `--tenants` (100) on `--hosts` (10) over `--days` (30): days, hours, the
 * minutes of the last two hours, and the rows of 20 s, which are not summed up yet (a node sums up each 15 s). Then asks `LedgerKeeper.usage` for the last 30 days by each key, and a
 * tenant's month by the hour as an invoice does, `--rounds` (5) times. Beside it, in the same run, what the same answer costs from the hours alone.
 *
 * With `--brief N` one tenant more had N containers of some seconds each in this month: what its invoice and a look at its cap take, and for how long
 * nothing else was done (`longestGapMs`, of a timer of 5 ms).
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseArgs } from 'node:util';
import { generateKeyPairSync } from 'node:crypto';
import { LedgerKeeper } from '#caas/ledger-keeper.ts';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { monthSpan, startPricing } from '#metering/invoice.ts';
import { ledgerKeyOf } from '#metering/ledger-head.ts';
import { bookFromMs, priceBookSchema } from '#metering/price-book.ts';
import { bucketOf, GRAIN_MS, readSums } from '#state/usage-rollups.ts';
import { openSqlite } from '#state/sqlite.ts';
import { machine, quantile } from './machine.ts';

const { values } = parseArgs({
  options: {
    containers: { type: 'string', default: '10000' },
    tenants: { type: 'string', default: '100' },
    hosts: { type: 'string', default: '10' },
    days: { type: 'string', default: '30' },
    rounds: { type: 'string', default: '5' },
    brief: { type: 'string', default: '0' },
  },
});
const [containers, tenants, hosts, days, rounds, brief] = [
  Number(values.containers),
  Number(values.tenants),
  Number(values.hosts),
  Number(values.days),
  Number(values.rounds),
  Number(values.brief),
];

/** The whole numbers below `most`, as a table `n` of one column `i`. */
function count(most: number): string {
  return `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${String(most)})`;
}

/** Every tenth of the buckets of a container is empty: containers come and go. */
function fill(file: string, nowMs: number): void {
  const database = new DatabaseSync(file);
  database.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -400000');
  database.exec(`
    ${count(containers)} INSERT INTO usage_subject (tenant, container, host, name)
      SELECT 'tenant-' || (i % ${String(tenants)}), printf('%064x', i), 'host-' || ((i / ${String(tenants)}) % ${String(hosts)}), 'app-' || i FROM n;
    INSERT INTO usage_subject (tenant, container, host, name) SELECT DISTINCT tenant, '', host, '' FROM usage_subject;
    INSERT INTO usage_subject (tenant, container, host, name) VALUES ('', '', '', '')`);
  const buckets = (table: string, stepMs: number, number: number, fromMs: number): void => {
    database.exec(`
      ${count(number)} INSERT INTO usage_${table}
        SELECT s.id, ${String(fromMs)} + n.i * ${String(stepMs)}, ${String(fromMs)} + n.i * ${String(stepMs)},
          ${String(fromMs)} + (n.i + 1) * ${String(stepMs)}, s.id * 1000 + n.i, s.id * 7 + n.i, (s.id * 7919 + n.i) % 1073741824, s.id % 97, n.i * 1021, n.i * 104729, 0, 0, 0, s.id % 11, s.id * 13, n.i * 17
        FROM usage_subject AS s CROSS JOIN n WHERE s.container = '' OR (s.id + n.i) % 10 <> 0`);
  };
  const today = bucketOf(nowMs, 'day');
  const firstMs = today - days * GRAIN_MS.day;
  buckets('day', GRAIN_MS.day, days + 1, firstMs);
  buckets('hour', GRAIN_MS.hour, days * 24 + Math.floor((nowMs - today) / GRAIN_MS.hour) + 1, firstMs);
  const minutesMs = bucketOf(nowMs, 'hour') - GRAIN_MS.hour;
  buckets('minute', GRAIN_MS.minute, Math.floor((nowMs - minutesMs) / GRAIN_MS.minute), minutesMs);
  database.exec(`
    INSERT INTO incarnation SELECT container, 1, tenant, host, name, '/x', '', 0, NULL, 2, 0, 0, 0 FROM usage_subject WHERE container <> '';
    ${count(2)} INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes, egress_bytes, held_ms, number)
      SELECT s.container, 1, n.i + 1, s.tenant, s.host, ${String(nowMs)} - 20000 + n.i * 10000, ${String(nowMs)} - 10000 + n.i * 10000, 5, 7, 1, 2, 3, 0,
        row_number() OVER (PARTITION BY s.tenant ORDER BY n.i, s.id)
      FROM usage_subject AS s CROSS JOIN n WHERE s.container <> '';
    INSERT INTO ledger_chain SELECT tenant, COUNT(*), '', '{}', 0, 0, 0 FROM ledger GROUP BY tenant;
    ANALYZE`);
  // The sums of a chain are of no matter here, but have to be there.
  const zero = `{"rows":"0","cpuNs":"0","memoryByteMs":"0","requests":"0","ingressBytes":"0","egressBytes":"0","heldMs":"0","snapshotByteMs":"0","diskByteMs":"0","streamMs":"0"}`;
  database.prepare('UPDATE ledger_chain SET totals = ?').run(zero);
  database.close();
}

const BRIEF = 'tenant-brief';

/** Containers that come and go: an hour each, of those of this month. */
function fillBrief(file: string, fromMs: number, nowMs: number): void {
  const database = new DatabaseSync(file);
  database.exec('PRAGMA synchronous = OFF');
  const hours = Math.floor((nowMs - fromMs) / GRAIN_MS.hour) + 1;
  const columns = 'subject, start_ms, from_ms, to_ms, cpu_ns, memory_gib_ms, memory_rest, requests, ingress_bytes, egress_bytes';
  const rest = 'held_ms, snapshot_gib_ms, snapshot_rest';
  // By their ids they are in another order than they came in.
  database.exec(`
    ${count(brief)} INSERT INTO usage_subject (tenant, container, host, name)
      SELECT '${BRIEF}', printf('%016x%048x', i * 2654435761 % 4294967296, i), 'host-0', 'job-' || i FROM n;
    INSERT INTO usage_hour (${columns}, ${rest})
      SELECT id, ${String(fromMs)} + id % ${String(hours)} * 3600000, ${String(fromMs)}, ${String(fromMs)} + 9000, 1000000000 + id, 2000 + id % 13, id, 3, 1021, 104729, 0, 0, 0
      FROM usage_subject WHERE tenant = '${BRIEF}';
    INSERT INTO usage_subject (tenant, container, host, name) VALUES ('${BRIEF}', '', 'host-0', '');
    INSERT INTO usage_hour (${columns}, ${rest})
      SELECT (SELECT id FROM usage_subject WHERE tenant = '${BRIEF}' AND container = ''), start_ms, MIN(from_ms), MAX(to_ms), SUM(cpu_ns), SUM(memory_gib_ms), SUM(memory_rest),
        SUM(requests), SUM(ingress_bytes), SUM(egress_bytes), 0, 0, 0
      FROM usage_hour WHERE subject IN (SELECT id FROM usage_subject WHERE tenant = '${BRIEF}') GROUP BY start_ms;
    ANALYZE`);
  database.close();
}

async function withGap(work: () => Promise<number>): Promise<object> {
  let [lastMs, longestGapMs] = [performance.now(), 0];
  const look = (): void => {
    longestGapMs = Math.max(longestGapMs, performance.now() - lastMs);
    lastMs = performance.now();
  };
  const timer = setInterval(look, 5);
  const times = await timesOf(work);
  look();
  clearInterval(timer);
  return { ...times, longestGapMs: Math.round(longestGapMs), rssMib: Math.round(process.memoryUsage.rss() / 1024 ** 2) };
}

async function timesOf(work: () => Promise<number>): Promise<object> {
  const [times, cpuTimes]: readonly [number[], number[]] = [[], []];
  let answers = 0;
  for (let round = 0; round < rounds; round += 1) {
    const fromMs = performance.now();
    const cpu = process.cpuUsage();
    answers = await work();
    times.push(performance.now() - fromMs);
    const { user, system } = process.cpuUsage(cpu);
    cpuTimes.push((user + system) / 1000);
  }
  const [medianMs, cpuMs] = [times, cpuTimes].map((list) => Math.round(quantile(list, 0.5)));
  return { answers, medianMs, slowestMs: Math.round(Math.max(...times)), cpuMs };
}

const folder = await mkdtemp(join(tmpdir(), 'ecluse-usage-query-'));
try {
  const file = join(folder, 'ecluse.db');
  await openSqlite(file)[Symbol.asyncDispose]();
  const nowMs = Date.now();
  const fillFromMs = performance.now();
  fill(file, nowMs);
  const filledMs = performance.now() - fillFromMs;
  await using sql = openSqlite(file);
  const key = ledgerKeyOf(generateKeyPairSync('ed25519').privateKey);
  const keeper = new LedgerKeeper({ log: createLog('silent'), clock: systemClock, sql, key });
  const rowsOf = async (table: string): Promise<number> =>
    Number((await sql.read(`SELECT COUNT(*) AS rows FROM ${table}`, []))[0]?.['rows']);
  const span = { tenant: undefined, sinceMs: nowMs - days * GRAIN_MS.day, untilMs: nowMs };
  const usage: Record<string, object> = {};
  for (const by of ['container', 'tenant', 'host', 'hour'] as const)
    usage[by] = await timesOf(async () => (await keeper.usage({ ...span, by })).length);
  usage['one tenant by container'] = await timesOf(
    async () => (await keeper.usage({ ...span, tenant: 'tenant-7', by: 'container' })).length,
  );
  const month = new Date(nowMs).toISOString().slice(0, 7);
  const monthAt = monthSpan(month) ?? { fromMs: 0, toMs: 0 };
  const book = priceBookSchema.parse({
    currency: 'EUR',
    from: '2020-01-01T00:00:00Z',
    prices: { vcpuHour: 1, memoryGibHour: 1 },
  });
  const books = [{ version: 1, fromMs: bookFromMs(book), book }];
  const invoiceOf = async (tenant: string): Promise<number> => {
    const pricing = startPricing({ tenant, ...monthAt, books, briefUse: 'by-number' });
    if (pricing === undefined) return 0;
    await keeper.hours({ tenant, fromMs: monthAt.fromMs, untilMs: monthAt.toMs }, pricing.add);
    return pricing.invoice(month).lines.length;
  };
  const invoice = await timesOf(async () => await invoiceOf('tenant-7'));
  const briefUse: Record<string, object> = {};
  if (brief > 0) {
    fillBrief(file, monthAt.fromMs, nowMs);
    briefUse['invoice'] = await withGap(async () => await invoiceOf(BRIEF));
    const ofMonth = { tenant: BRIEF, fromMs: monthAt.fromMs, untilMs: monthAt.toMs };
    briefUse['cap'] = await withGap(async () => (await keeper.tenantHours(ofMonth)).length);
  }
  const fromHoursAlone = await timesOf(
    async () =>
      (await readSums(sql, { grain: 'hour', fromMs: span.sinceMs, untilMs: nowMs, tenant: '', by: 'container' })).length,
  );
  const result = {
    question: 'how long does usage take over a large ledger',
    machine: machine(),
    store: {
      containers,
      tenants,
      hosts,
      days,
      dayRows: await rowsOf('usage_day'),
      hourRows: await rowsOf('usage_hour'),
      minuteRows: await rowsOf('usage_minute'),
      unsummedRows: await rowsOf('ledger'),
      fileMib: Math.round((await stat(file)).size / 1024 ** 2),
      filledSeconds: Math.round(filledMs / 1000),
    },
    usage,
    invoiceOfOneTenant: invoice,
    ...(brief > 0 && { briefUse: { containers: brief, ...briefUse } }),
    byContainerFromHoursAlone: fromHoursAlone,
  };
  console.log(JSON.stringify(result, undefined, 2));
} finally {
  await rm(folder, { recursive: true, force: true });
}
