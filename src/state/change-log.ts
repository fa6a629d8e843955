/**
 * The change log: what happened to the state, in order, written in the same batch as the change itself. Consumers poll by cursor.
 */
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlWrite } from './sql.ts';

export interface Change {
  readonly seq: number;
  readonly atMs: number;
  readonly kind: string;
  readonly key: string;
  readonly data: unknown;
}

/** The write that appends to the log; goes into the batch of the change. */
export function changeWrite(atMs: number, kind: string, key: string, data: Readonly<Record<string, unknown>> = {}): SqlWrite {
  return {
    sql: 'INSERT INTO change (at_ms, kind, key, data) VALUES (?, ?, ?, ?)',
    values: [atMs, kind, key, JSON.stringify(data)],
  };
}

/** Changes after `cursor`, oldest first, at most `limit`. */
export async function readChanges(sql: Sql, cursor: number, limit: number): Promise<readonly Change[]> {
  const rows = await sql.read('SELECT seq, at_ms, kind, key, data FROM change WHERE seq > ? ORDER BY seq LIMIT ?', [
    cursor,
    limit,
  ]);
  return rows.map((row) => ({
    seq: integerOf(row, 'seq'),
    atMs: integerOf(row, 'at_ms'),
    kind: textOf(row, 'kind'),
    key: textOf(row, 'key'),
    data: JSON.parse(textOf(row, 'data')) as unknown,
  }));
}
