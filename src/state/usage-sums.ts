/** The sums that invoices are made of, as a whole: what all hours and all days of each container and of its tenant add up to. */
import type { Quantities } from '#metering/ledger-chain.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlValue } from './sql.ts';
import { WHOLE_SUMS, wholeSumsOf } from './usage-rollups.ts';

/** What has sums of a tenant; by `container` and `host`, in the order of their bytes. */
export interface SubjectKey {
  /** Empty: everything of the tenant on the host. */
  readonly container: string;
  readonly host: string;
}

export const SUM_TABLES = ['usage_hour', 'usage_day'] as const;
export type SumTable = (typeof SUM_TABLES)[number];

export interface SubjectSums extends SubjectKey, Quantities {
  readonly table: SumTable;
}

export interface SumsPage {
  /** Up to which row of the chain they are, at this moment. */
  readonly rolled: number;
  readonly sums: readonly SubjectSums[];
  /** Where the next page begins; undefined: it was the last. */
  readonly next: SubjectKey | undefined;
}

/** Those of some subjects from one on, all of one moment. Minutes are kept for two days only, and no invoice is made of them. */
export async function readSumsPage(sql: Sql, tenant: string, from: SubjectKey, limit: number): Promise<SumsPage> {
  const [end] = await sql.read(
    `SELECT container, host FROM usage_subject WHERE tenant = ? AND (container, host) >= (?, ?)
     ORDER BY container, host LIMIT 1 OFFSET ?`,
    [tenant, from.container, from.host, limit],
  );
  const next = end === undefined ? undefined : { container: textOf(end, 'container'), host: textOf(end, 'host') };
  const until: readonly SqlValue[] = next === undefined ? [] : [next.container, next.host];
  const span: readonly SqlValue[] = [tenant, from.container, from.host, ...until];
  const perTable = SUM_TABLES.map(
    (table) => `SELECT '${table}' AS source, s.container, s.host, ${WHOLE_SUMS}
      FROM usage_subject AS s CROSS JOIN ${table} AS u ON u.subject = s.id
      WHERE s.tenant = ? AND (s.container, s.host) >= (?, ?)${next === undefined ? '' : ' AND (s.container, s.host) < (?, ?)'}
      GROUP BY s.container, s.host`,
  );
  // One statement: how far they are is of the same moment.
  const rows = await sql.read(
    `SELECT c.rolled, t.* FROM ledger_chain AS c LEFT JOIN (${perTable.join(' UNION ALL ')}) AS t ON 1 = 1 WHERE c.tenant = ?`,
    [...SUM_TABLES.flatMap(() => span), tenant],
  );
  return {
    rolled: rows[0] === undefined ? 0 : integerOf(rows[0], 'rolled'),
    sums: rows.flatMap((row) => {
      const table = SUM_TABLES.find((one) => one === row['source']);
      if (table === undefined) return [];
      const subject = { container: textOf(row, 'container'), host: textOf(row, 'host') };
      return [{ table, ...subject, ...wholeSumsOf(row) }];
    }),
    next,
  };
}

export async function countSubjects(sql: Sql, tenant: string): Promise<number> {
  const [row] = await sql.read('SELECT COUNT(*) AS subjects FROM usage_subject WHERE tenant = ?', [tenant]);
  return row === undefined ? 0 : integerOf(row, 'subjects');
}
