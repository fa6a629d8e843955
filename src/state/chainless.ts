/** Tenants of whom something is left in the store that only a row of the ledger leaves there, and who have no chain. */
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlValue } from './sql.ts';

export interface Trace {
  readonly tenant: string;
  /** Where it was found first. */
  readonly table: string;
}

/** Tables with an index that begins with the tenant. Of the node itself, the tenant is empty. */
const BY_TENANT = ['ledger', 'ledger_head', 'usage_subject'] as const;

interface ByKey {
  readonly table: string;
  readonly key: string;
  readonly from: readonly SqlValue[];
  readonly keyOf: (row: SqlRow) => readonly SqlValue[];
  /** What is so only where there was a row. */
  readonly isWritten: string;
}

/** Other tables, in the order of their keys. */
const BY_KEY: readonly ByKey[] = [
  {
    table: 'incarnation',
    key: 'container, incarnation',
    from: ['', 0],
    keyOf: (row) => [textOf(row, 'container'), integerOf(row, 'incarnation')],
    isWritten: 't.seq > 0',
  },
  {
    // What has nothing is in no row, and what was found since the full hour is in none yet.
    table: 'disk_use',
    key: 'id',
    from: [''],
    keyOf: (row) => [textOf(row, 'id')],
    isWritten: 't.closed_ms IS NULL AND t.bytes > 0 AND t.metered_ms % 3600000 = 0',
  },
];

/** Rows of one statement. */
const ROWS_MAX = 2000;
const CHAINED = 'EXISTS (SELECT 1 FROM ledger_chain AS c WHERE c.tenant = t.tenant)';

/** Each tenant once, by name. What a row leaves is written with the chain: a tenant who begins meanwhile has both. */
export async function listChainless(sql: Sql): Promise<readonly Trace[]> {
  const found = new Map<string, Trace>();
  const add = (tenant: string, table: string): void => {
    if (!found.has(tenant)) found.set(tenant, { tenant, table });
  };
  for (const table of BY_TENANT) for await (const tenant of chainlessIn(sql, table)) add(tenant, table);
  for (const one of BY_KEY) for await (const tenant of chainlessBy(sql, one)) add(tenant, one.table);
  return [...found.values()].toSorted((one, other) => (one.tenant < other.tenant ? -1 : 1));
}

/** From one tenant to the next, however many rows each has. */
async function* chainlessIn(sql: Sql, table: string): AsyncGenerator<string> {
  let last = '';
  for (;;) {
    const [row] = await sql.read(
      `SELECT t.tenant, ${CHAINED} AS is_chained FROM (SELECT MIN(tenant) AS tenant FROM ${table} WHERE tenant > ?) AS t
       WHERE t.tenant IS NOT NULL`,
      [last],
    );
    if (row === undefined) return;
    last = textOf(row, 'tenant');
    if (integerOf(row, 'is_chained') === 0) yield last;
    await new Promise(setImmediate); // Nothing else of the node waits for it.
  }
}

async function* chainlessBy(sql: Sql, { table, key, from, keyOf, isWritten }: ByKey): AsyncGenerator<string> {
  const marks = from.map(() => '?').join(', ');
  let at = from;
  for (;;) {
    const [end] = await sql.read(
      `SELECT ${key} FROM ${table} WHERE (${key}) >= (${marks}) ORDER BY ${key} LIMIT 1 OFFSET ${String(ROWS_MAX)}`,
      at,
    );
    const until = end === undefined ? [] : keyOf(end);
    const rows = await sql.read(
      `SELECT DISTINCT t.tenant FROM ${table} AS t
       WHERE (${key}) >= (${marks})${end === undefined ? '' : ` AND (${key}) < (${marks})`} AND ${isWritten} AND NOT ${CHAINED}`,
      [...at, ...until],
    );
    for (const row of rows) yield textOf(row, 'tenant');
    if (end === undefined) return;
    at = until;
    await new Promise(setImmediate);
  }
}
