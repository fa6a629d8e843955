/** Single values of a node: its config version, its identity. */
import { textOf } from './sql.ts';
import type { Sql, SqlWrite } from './sql.ts';

export async function readSetting(sql: Sql, key: string): Promise<string | undefined> {
  const [row] = await sql.read('SELECT value FROM setting WHERE key = ?', [key]);
  return row === undefined ? undefined : textOf(row, 'value');
}

export async function writeSetting(sql: Sql, key: string, value: string): Promise<void> {
  await sql.write(settingWrites(key, value));
}

/** As part of a batch. */
export function settingWrites(key: string, value: string): readonly SqlWrite[] {
  return [
    { sql: 'DELETE FROM setting WHERE key = ?', values: [key] },
    { sql: 'INSERT INTO setting (key, value) VALUES (?, ?)', values: [key, value], expectRows: 1 },
  ];
}
