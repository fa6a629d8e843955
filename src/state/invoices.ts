/** Invoices that were issued. None is ever changed or removed. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface IssuedRow {
  readonly tenant: string;
  /** `2026-11`. */
  readonly month: string;
  /** Of all invoices of the node, from 1, without gaps. */
  readonly number: number;
  readonly issuedMs: number;
  /** As `issuedText` writes it. */
  readonly body: string;
}

function issuedOf(row: SqlRow): IssuedRow {
  return {
    tenant: textOf(row, 'tenant'),
    month: textOf(row, 'month'),
    number: integerOf(row, 'number'),
    issuedMs: integerOf(row, 'issued_ms'),
    body: textOf(row, 'body'),
  };
}

/** Of a tenant, from a month on, by month. */
export async function listIssued(sql: Sql, tenant: string, fromMonth: string): Promise<readonly IssuedRow[]> {
  const rows = await sql.read('SELECT * FROM invoice WHERE tenant = ? AND month >= ? ORDER BY month', [tenant, fromMonth]);
  return rows.map(issuedOf);
}

export async function lastInvoiceNumber(sql: Sql): Promise<number> {
  const [row] = await sql.read('SELECT MAX(number) AS number FROM invoice', []);
  return row === undefined || row['number'] === null ? 0 : integerOf(row, 'number');
}

/** Conflict where the tenant's month has one, or another one got the number. */
export async function insertIssued(sql: Sql, row: IssuedRow, total: string): Promise<WriteOutcome> {
  const { tenant, month, number, issuedMs, body } = row;
  return await sql.write([
    {
      sql: 'INSERT INTO invoice (tenant, month, number, issued_ms, body) VALUES (?, ?, ?, ?, ?)',
      values: [tenant, month, number, issuedMs, body],
    },
    changeWrite(issuedMs, 'invoice.issued', tenant, { month, number, total }),
  ]);
}
