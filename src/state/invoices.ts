/** Invoices that were issued. None is ever changed or removed. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface IssuedHead {
  readonly tenant: string;
  /** `2026-11`. */
  readonly month: string;
  /** Of all invoices of the node, from 1, without gaps. */
  readonly number: number;
  readonly issuedMs: number;
  readonly currency: string;
  /** In the currency, with six decimals. */
  readonly total: string;
}

export interface IssuedRow extends IssuedHead {
  /** As `issuedText` writes it. */
  readonly body: string;
}

function headOf(row: SqlRow): IssuedHead {
  return {
    tenant: textOf(row, 'tenant'),
    month: textOf(row, 'month'),
    number: integerOf(row, 'number'),
    issuedMs: integerOf(row, 'issued_ms'),
    currency: textOf(row, 'currency'),
    total: textOf(row, 'total'),
  };
}

/** Of a tenant, from a month on, by month. */
export async function listIssued(sql: Sql, tenant: string, fromMonth: string): Promise<readonly IssuedRow[]> {
  const rows = await sql.read('SELECT * FROM invoice WHERE tenant = ? AND month >= ? ORDER BY month', [tenant, fromMonth]);
  return rows.map((row) => ({ ...headOf(row), body: textOf(row, 'body') }));
}

/** By number. Undefined: of all months. */
export async function listIssuedHeads(sql: Sql, month: string | undefined): Promise<readonly IssuedHead[]> {
  const columns = 'tenant, month, number, issued_ms, currency, total';
  const rows = await sql.read(`SELECT ${columns} FROM invoice WHERE ? = '' OR month = ? ORDER BY number`, [
    month ?? '',
    month ?? '',
  ]);
  return rows.map(headOf);
}

export async function lastInvoiceNumber(sql: Sql): Promise<number> {
  const [row] = await sql.read('SELECT MAX(number) AS number FROM invoice', []);
  return row === undefined || row['number'] === null ? 0 : integerOf(row, 'number');
}

/** Conflict where the tenant's month has one, or another invoice was issued since the number was asked for. */
export async function insertIssued(sql: Sql, row: IssuedRow): Promise<WriteOutcome> {
  const { tenant, month, number, issuedMs, currency, total, body } = row;
  return await sql.write([
    {
      sql: 'INSERT INTO invoice (tenant, month, number, issued_ms, currency, total, body) VALUES (?, ?, ?, ?, ?, ?, ?)',
      values: [tenant, month, number, issuedMs, currency, total, body],
    },
    changeWrite(issuedMs, 'invoice.issued', tenant, { month, number, total: `${total} ${currency}` }),
  ]);
}
