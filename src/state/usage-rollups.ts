/**
 * Sums of the ledger by minute, hour and day, for containers and for tenants on hosts.
 *
 * INVARIANT: the sums hold exactly the rows of each chain up to its `rolled`. A batch adds rows to all sums and moves `rolled` on condition, so each row
 * counts once, whatever crashes; rows after `rolled` are read from the ledger itself. A row belongs to the minute, hour and day in which it begins.
 */
import type { HashedRow } from '#metering/chain-check.ts';
import { addQuantities, mapQuantities, QUANTITY_NAMES } from '#metering/ledger-chain.ts';
import type { Quantities } from '#metering/ledger-chain.ts';
import { nameOfContainer, QUANTITY_COLUMNS } from './ledger.ts';
import { bigintOf, integerOf, optionalIntegerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlValue, SqlWrite, WriteOutcome } from './sql.ts';

export type Grain = 'minute' | 'hour' | 'day';
export const GRAIN_MS: Readonly<Record<Grain, number>> = { minute: 60_000, hour: 3_600_000, day: 86_400_000 };
const GRAINS: readonly Grain[] = ['minute', 'hour', 'day'];

/** Byte·ms are kept in two columns, whose sums fit 64 bits; see the schema. */
const GIB_BITS = 30n;
const REST_MASK = (1n << GIB_BITS) - 1n;
const WIDE: ReadonlyMap<keyof Quantities, string> = new Map([
  ['memoryByteMs', 'memory'],
  ['snapshotByteMs', 'snapshot'],
  ['diskByteMs', 'disk'],
]);

/** Of the sums' tables, and the same of the ledger as SQL. */
interface SumColumn {
  readonly name: string;
  readonly ofRow: string;
  readonly valueOf: (span: Quantities) => bigint;
}

const SUM_COLUMNS: readonly SumColumn[] = QUANTITY_NAMES.flatMap((quantity): SumColumn[] => {
  const column = QUANTITY_COLUMNS[quantity];
  const wide = WIDE.get(quantity);
  if (wide === undefined) return [{ name: column, ofRow: `l.${column}`, valueOf: (span) => span[quantity] }];
  return [
    { name: `${wide}_gib_ms`, ofRow: `l.${column} >> ${String(GIB_BITS)}`, valueOf: (span) => span[quantity] >> GIB_BITS },
    { name: `${wide}_rest`, ofRow: `l.${column} & ${String(REST_MASK)}`, valueOf: (span) => span[quantity] & REST_MASK },
  ];
});

export interface UsageSpan extends Quantities {
  readonly fromMs: number;
  readonly toMs: number;
}

export interface UsageSubject {
  readonly tenant: string;
  /** Empty: everything of the tenant on the host, or with an empty tenant of the node. */
  readonly container: string;
  readonly host: string;
}

interface Bucket {
  readonly subject: UsageSubject;
  readonly grain: Grain;
  readonly startMs: number;
  span: UsageSpan;
}

/** Which bucket of a grain an instant is in. */
export function bucketOf(atMs: number, grain: Grain): number {
  return Math.floor(atMs / GRAIN_MS[grain]) * GRAIN_MS[grain];
}

/** Adds the next rows of a chain to the sums. `rows` begin right after `rolled`. Conflict: somebody else did. */
export async function rollUp(
  sql: Sql,
  { tenant, rolled }: { readonly tenant: string; readonly rolled: number },
  rows: readonly HashedRow[],
): Promise<WriteOutcome> {
  const last = rows.at(-1)?.number ?? rolled;
  if (last !== rolled + rows.length)
    throw new Error(`rows of the ledger of ${tenant} after number ${String(rolled)} are missing`);
  const buckets = bucketsOf(rows);
  const subjects = new Map(buckets.map(({ subject }) => [subjectKey(subject), subject]));
  return await sql.write([
    {
      sql: 'UPDATE ledger_chain SET rolled = ? WHERE tenant = ? AND rolled = ?',
      values: [last, tenant, rolled],
      expectRows: 1,
    },
    ...[...subjects.values()].map(subjectWrite),
    ...buckets.map(addWrite),
  ]);
}

function subjectKey({ tenant, container, host }: UsageSubject): string {
  return `${tenant} ${container} ${host}`;
}

/** A container on a host, its tenant on the host, and the whole node: what questions are asked about. */
function subjectsOf({ tenant, container, host }: UsageSubject): readonly UsageSubject[] {
  return [
    { tenant, container, host },
    { tenant, container: '', host },
    { tenant: '', container: '', host: '' },
  ];
}

function bucketsOf(rows: readonly HashedRow[]): readonly Bucket[] {
  const buckets = new Map<string, Bucket>();
  for (const row of rows) {
    for (const subject of subjectsOf(row)) {
      for (const grain of GRAINS) {
        const startMs = bucketOf(row.fromMs, grain);
        const key = `${grain} ${String(startMs)} ${subjectKey(subject)}`;
        const before = buckets.get(key);
        if (before === undefined) buckets.set(key, { subject, grain, startMs, span: row });
        else before.span = joinSpans(before.span, row);
      }
    }
  }
  return [...buckets.values()];
}

export function joinSpans<T extends UsageSpan>(one: T, other: UsageSpan): T {
  const { fromMs, toMs } = other;
  return { ...addQuantities(one, other), fromMs: Math.min(one.fromMs, fromMs), toMs: Math.max(one.toMs, toMs) };
}

function subjectWrite({ tenant, container, host }: UsageSubject): SqlWrite {
  return {
    sql: `INSERT INTO usage_subject (tenant, container, host, name)
          SELECT n.tenant, n.container, n.host, ${nameOfContainer('n.container')} FROM (SELECT ? AS tenant, ? AS container, ? AS host) AS n
          WHERE NOT EXISTS (SELECT 1 FROM usage_subject AS s WHERE s.tenant = n.tenant AND s.container = n.container AND s.host = n.host)`,
    values: [tenant, container, host],
  };
}

const SUM_NAMES = SUM_COLUMNS.map(({ name }) => name).join(', ');
const SUM_MARKS = SUM_COLUMNS.map(() => '?').join(', ');
const ADD_SQL = mapGrains((grain) => {
  const table = `usage_${grain}`;
  const added = SUM_COLUMNS.map(({ name }) => `${name} = ${table}.${name} + excluded.${name}`).join(', ');
  return `INSERT INTO ${table} (subject, start_ms, from_ms, to_ms, ${SUM_NAMES})
          VALUES ((SELECT id FROM usage_subject WHERE tenant = ? AND container = ? AND host = ?), ?, ?, ?, ${SUM_MARKS})
          ON CONFLICT (subject, start_ms) DO UPDATE SET
            from_ms = CASE WHEN excluded.from_ms < ${table}.from_ms THEN excluded.from_ms ELSE ${table}.from_ms END,
            to_ms = CASE WHEN excluded.to_ms > ${table}.to_ms THEN excluded.to_ms ELSE ${table}.to_ms END, ${added}`;
});

function mapGrains<T>(of: (grain: Grain) => T): Readonly<Record<Grain, T>> {
  return { minute: of('minute'), hour: of('hour'), day: of('day') };
}

function addWrite({ subject, grain, startMs, span }: Bucket): SqlWrite {
  const { tenant, container, host } = subject;
  const sums = SUM_COLUMNS.map(({ valueOf }) => valueOf(span));
  return { sql: ADD_SQL[grain], values: [tenant, container, host, startMs, span.fromMs, span.toMs, ...sums] };
}

/** Sums of any number of buckets, each in two columns: also those of other quantities may exceed 64 bits. */
export const WHOLE_SUMS = QUANTITY_NAMES.map((quantity) => {
  const [column, wide] = [QUANTITY_COLUMNS[quantity], WIDE.get(quantity)];
  const high = wide === undefined ? `u.${column} >> ${String(GIB_BITS)}` : `u.${wide}_gib_ms`;
  const low = wide === undefined ? `u.${column} & ${String(REST_MASK)}` : `u.${wide}_rest`;
  return `SUM(${high}) AS ${column}_high, SUM(${low}) AS ${column}_low`;
}).join(', ');

export function wholeSumsOf(row: SqlRow): Quantities {
  return mapQuantities((name) => {
    const column = QUANTITY_COLUMNS[name];
    return (bigintOf(row, `${column}_high`) << GIB_BITS) + bigintOf(row, `${column}_low`);
  });
}

export type UsageKey = 'container' | 'tenant' | 'host' | 'hour';

/** Sums of buckets that begin in a span of time, by one key. */
export interface SumQuery {
  readonly grain: Grain;
  readonly fromMs: number;
  readonly untilMs: number;
  /** Empty: all. */
  readonly tenant: string;
  readonly by: UsageKey;
}

export interface UsageSum extends UsageSpan {
  readonly key: string;
  /** Empty where the sum is of several. */
  readonly tenant: string;
  readonly name: string;
}

const SUMS = `MIN(u.from_ms) AS from_ms, MAX(u.to_ms) AS to_ms, ${SUM_COLUMNS.map(({ name }) => `SUM(u.${name}) AS ${name}`).join(', ')}`;

export async function readSums(sql: Sql, { grain, fromMs, untilMs, tenant, by }: SumQuery): Promise<readonly UsageSum[]> {
  if (fromMs >= untilMs) return [];
  const among: readonly SqlValue[] = [fromMs, untilMs, tenant, tenant];
  const from = `FROM usage_subject AS s CROSS JOIN usage_${grain} AS u ON u.subject = s.id AND u.start_ms >= ? AND u.start_ms < ?
    WHERE (? = '' OR s.tenant = ?)`;
  // Sums of a subject are read in the order that they lie in; what several subjects have in common is joined here, which is less than their buckets.
  const perSubject = `SELECT s.tenant, s.container, s.host, s.name, ${SUMS} ${from} AND s.tenant <> '' AND s.container ${by === 'container' ? "<> ''" : "= ''"} GROUP BY s.id`;
  const perHour = `SELECT CASE WHEN MIN(s.tenant) = MAX(s.tenant) THEN MIN(s.tenant) ELSE '' END AS tenant,
    u.start_ms / 3600000 AS hour, ${SUMS} ${from} AND s.container = '' AND s.tenant ${tenant === '' ? '=' : '<>'} '' GROUP BY u.start_ms / 3600000`;
  const rows = await sql.read(by === 'hour' ? perHour : perSubject, among);
  return rows.map((row) => ({ ...spanOf(row), ...sumKey(row, by) }));
}

const ROW_SUMS = `MIN(l.from_ms) AS from_ms, MAX(l.to_ms) AS to_ms, ${SUM_COLUMNS.map(({ name, ofRow }) => `SUM(${ofRow}) AS ${name}`).join(', ')},
  CASE WHEN MIN(l.tenant) = MAX(l.tenant) THEN MIN(l.tenant) ELSE '' END AS tenant`;

/** What rows are put together by, with the columns that `sumKey` reads. */
const ROW_KEYS: Readonly<Record<UsageKey, { readonly columns: string; readonly group: string }>> = {
  container: {
    columns: `l.container, ${nameOfContainer('l.container')} AS name`,
    group: 'l.container',
  },
  tenant: { columns: '1', group: 'l.tenant' },
  host: { columns: 'l.host', group: 'l.host' },
  hour: { columns: 'l.from_ms / 3600000 AS hour', group: 'l.from_ms / 3600000' },
};

/** As `readSums`, from single rows: `summed`, those that are in the sums, or those that are not yet. */
export async function readRowSums(
  sql: Sql,
  { fromMs, untilMs, tenant, by }: Omit<SumQuery, 'grain'>,
  which: 'summed' | 'not-summed',
): Promise<readonly UsageSum[]> {
  const { columns, group } = ROW_KEYS[by];
  // A plus keeps the planner from an index: few rows of a span are asked for by time, few rows at a chain's end by number.
  const where =
    which === 'summed'
      ? '+l.number <= c.rolled AND l.from_ms >= ? AND l.from_ms < ?'
      : 'l.number > c.rolled AND +l.from_ms >= ? AND +l.from_ms < ?';
  const rows = await sql.read(
    `SELECT ${columns}, ${ROW_SUMS} FROM ledger_chain AS c CROSS JOIN ledger AS l ON l.tenant = c.tenant
     WHERE ${where} AND (? = '' OR c.tenant = ?) GROUP BY ${group}`,
    [fromMs, untilMs, tenant, tenant],
  );
  return rows.map((row) => ({ ...spanOf(row), ...sumKey(row, by) }));
}

const HOUR_MS = GRAIN_MS.hour;

function sumKey(row: SqlRow, by: UsageKey): Pick<UsageSum, 'key' | 'tenant' | 'name'> {
  const tenant = textOf(row, 'tenant');
  switch (by) {
    case 'container':
      return { key: textOf(row, 'container'), tenant, name: textOf(row, 'name') };
    case 'tenant':
      return { key: tenant, tenant, name: '' };
    case 'host':
      return { key: textOf(row, 'host'), tenant, name: '' };
    case 'hour':
      // Whose it was is known of one tenant's hours only: those of the node have sums of their own.
      return { key: new Date(integerOf(row, 'hour') * HOUR_MS).toISOString(), tenant: '', name: '' };
  }
}

function spanOf(row: SqlRow): UsageSpan {
  const sumOf = (name: keyof Quantities): bigint => {
    const wide = WIDE.get(name);
    if (wide === undefined) return bigintOf(row, QUANTITY_COLUMNS[name]);
    return (bigintOf(row, `${wide}_gib_ms`) << GIB_BITS) + bigintOf(row, `${wide}_rest`);
  };
  return { fromMs: integerOf(row, 'from_ms'), toMs: integerOf(row, 'to_ms'), ...mapQuantities(sumOf) };
}

/** What a container used in one hour. */
export interface HourUse extends UsageSpan {
  readonly container: string;
  readonly name: string;
  readonly host: string;
  readonly startMs: number;
}

export interface HoursQuery {
  readonly tenant: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

/** Up to where the hours of a tenant's containers were read. */
export type HourCursor = Pick<HourUse, 'container' | 'host' | 'startMs'>;
export const HOURS_START: HourCursor = { container: '', host: '', startMs: 0 };

export interface HoursPage {
  readonly hours: readonly HourUse[];
  /** Undefined: that was all. */
  readonly next: HourCursor | undefined;
}

/**
 * Hours of a tenant's containers that begin in a span of time, by container, host and time. `rowsMax` is of hours and of containers without any: a page takes
 * as long, whatever the tenant had in all its time.
 */
export async function readHoursPage(
  sql: Sql,
  { tenant, fromMs, untilMs }: HoursQuery,
  { container, host, startMs }: HourCursor,
  rowsMax: number,
): Promise<HoursPage> {
  const rows = await sql.read(
    `SELECT s.container, s.name, s.host, u.* FROM usage_subject AS s LEFT JOIN usage_hour AS u
       ON u.subject = s.id AND u.start_ms >= ? AND u.start_ms < ?
     WHERE s.tenant = ? AND s.container <> '' AND (s.container, s.host) >= (?, ?) AND ((s.container, s.host) > (?, ?) OR u.start_ms > ?)
     ORDER BY s.container, s.host, u.start_ms LIMIT ?`,
    [fromMs, untilMs, tenant, container, host, container, host, startMs, rowsMax],
  );
  const last = rows.length < rowsMax ? undefined : rows.at(-1);
  return {
    hours: rows.filter((row) => row['start_ms'] !== null).map(hourUseOf),
    next: last && {
      container: textOf(last, 'container'),
      host: textOf(last, 'host'),
      startMs: optionalIntegerOf(last, 'start_ms') ?? untilMs,
    },
  };
}

/** The hours of a tenant on each host, all of its containers together. */
export async function readTenantHours(sql: Sql, { tenant, fromMs, untilMs }: HoursQuery): Promise<readonly HourUse[]> {
  const rows = await sql.read(
    `SELECT s.container, s.name, s.host, u.* FROM usage_subject AS s CROSS JOIN usage_hour AS u
     ON u.subject = s.id AND u.start_ms >= ? AND u.start_ms < ? WHERE s.tenant = ? AND s.container = ''`,
    [fromMs, untilMs, tenant],
  );
  return rows.map(hourUseOf);
}

function hourUseOf(row: SqlRow): HourUse {
  return {
    ...spanOf(row),
    container: textOf(row, 'container'),
    name: textOf(row, 'name'),
    host: textOf(row, 'host'),
    startMs: integerOf(row, 'start_ms'),
  };
}

/** Up to which row a tenant's chain is in the sums. */
export async function readRolled(sql: Sql, tenant: string): Promise<number> {
  const [row] = await sql.read('SELECT rolled FROM ledger_chain WHERE tenant = ?', [tenant]);
  return row === undefined ? 0 : integerOf(row, 'rolled');
}

/** Drops minutes that begin before `beforeMs`, of some subjects at a time. Returns the next subject to go on with; undefined: all were looked at. */
export async function dropMinutes(
  sql: Sql,
  beforeMs: number,
  fromSubject: number,
  subjects: number,
): Promise<number | undefined> {
  const [row] = await sql.read('SELECT MAX(id) AS last FROM usage_subject', []);
  const last = row === undefined || row['last'] === null ? 0 : integerOf(row, 'last');
  const next = fromSubject + subjects;
  await sql.write([
    {
      sql: `DELETE FROM usage_minute WHERE start_ms < ? AND subject IN (SELECT id FROM usage_subject WHERE id >= ? AND id < ?)`,
      values: [beforeMs, fromSubject, next],
    },
  ]);
  return next > last ? undefined : next;
}
