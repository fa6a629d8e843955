/** Price books, each at its version. None is ever changed or removed: bills have to be the same tomorrow. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface PriceBookRow {
  readonly version: number;
  readonly fromMs: number;
  readonly atMs: number;
  readonly note: string;
  /** JSON. */
  readonly body: string;
}

function bookOf(row: SqlRow): PriceBookRow {
  return {
    version: integerOf(row, 'version'),
    fromMs: integerOf(row, 'from_ms'),
    atMs: integerOf(row, 'at_ms'),
    note: textOf(row, 'note'),
    body: textOf(row, 'body'),
  };
}

/** By version. */
export async function listPriceBooks(sql: Sql): Promise<readonly PriceBookRow[]> {
  return (await sql.read('SELECT * FROM price_book ORDER BY version', [])).map(bookOf);
}

/** Conflict where there is one of this version. */
export async function insertPriceBook(sql: Sql, { version, fromMs, atMs, note, body }: PriceBookRow): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'INSERT INTO price_book (version, from_ms, at_ms, note, body) VALUES (?, ?, ?, ?, ?)',
      values: [version, fromMs, atMs, note, body],
    },
    changeWrite(atMs, 'prices.applied', String(version), { fromMs, note }),
  ]);
}
