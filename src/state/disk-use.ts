/**
 * What containers and volumes have on disk: what was found last, and up to when that is in the ledger.
 *
 * INVARIANT: what is in the ledger follows each other without a gap, because the batch that appends a row moves `metered_ms` on condition.
 */
import { volumeKey } from '#metering/ledger-chain.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

export interface DiskUse {
  /** A container's, or `volume/ID`. */
  readonly id: string;
  readonly tenant: string;
  /** When it was found first: bills outlive volumes. */
  readonly name: string;
  readonly host: string;
  readonly bytes: number;
  readonly meteredMs: number;
}

function diskUseOf(row: SqlRow): DiskUse {
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    host: textOf(row, 'host'),
    bytes: integerOf(row, 'bytes'),
    meteredMs: integerOf(row, 'metered_ms'),
  };
}

const ID_DIGITS_MIN = 12;

/** A volume with options is a tmpfs: it has nothing on disk. */
const VOLUMES = `SELECT '${volumeKey('')}' || id AS id, tenant, name, host FROM volume WHERE host <> '' AND options IN ('null', '{}')`;

/** Containers and volumes of which nothing is known yet. */
export async function listNewDiskUse(sql: Sql): Promise<readonly Pick<DiskUse, 'id' | 'tenant' | 'name' | 'host'>[]> {
  const rows = await sql.read(
    `SELECT t.* FROM (SELECT id, tenant, name, host FROM container UNION ALL ${VOLUMES}) AS t
     WHERE NOT EXISTS (SELECT 1 FROM disk_use WHERE disk_use.id = t.id)`,
    [],
  );
  return rows.map((row) => ({
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    host: textOf(row, 'host'),
  }));
}

/** They have nothing until it is looked. */
export async function beginDiskUse(sql: Sql, uses: readonly DiskUse[]): Promise<WriteOutcome> {
  return await sql.write(
    uses.map(({ id, tenant, name, host, bytes, meteredMs }) => ({
      sql: 'INSERT INTO disk_use (id, tenant, name, host, bytes, metered_ms, closed_ms) VALUES (?, ?, ?, ?, ?, ?, NULL)',
      values: [id, tenant, name, host, bytes, meteredMs],
    })),
  );
}

export async function listDiskUse(sql: Sql): Promise<readonly DiskUse[]> {
  return (await sql.read('SELECT * FROM disk_use WHERE closed_ms IS NULL ORDER BY id', [])).map(diskUseOf);
}

/** A volume is removed: part of the batch that does it. */
export function volumeGoneWrite(id: string, nowMs: number): SqlWrite {
  return { sql: 'UPDATE disk_use SET gone_ms = ? WHERE id = ? AND gone_ms IS NULL', values: [nowMs, volumeKey(id)] };
}

/** Those that are gone, each with when it was; undefined: it is not known when. */
export async function listGoneDiskUse(
  sql: Sql,
): Promise<readonly { readonly id: string; readonly goneMs: number | undefined }[]> {
  const rows = await sql.read(
    `SELECT d.id, COALESCE(d.gone_ms, (SELECT MAX(closed_ms) FROM incarnation WHERE container = d.id)) AS gone_ms FROM disk_use AS d
     WHERE d.closed_ms IS NULL AND d.id NOT IN (SELECT id FROM container UNION ALL SELECT '${volumeKey('')}' || id FROM volume)`,
    [],
  );
  return rows.map((row) => ({ id: textOf(row, 'id'), goneMs: row['gone_ms'] === null ? undefined : integerOf(row, 'gone_ms') }));
}

/** A volume by its id, or by the first digits of it as lists show them, as what a row of it is about; also one that is gone. */
export async function findVolumeUse(
  sql: Sql,
  reference: string,
): Promise<
  readonly { readonly tenant: string; readonly container: string; readonly incarnation: number; readonly host: string }[]
> {
  if (reference.length < volumeKey('').length + ID_DIGITS_MIN) return [];
  const rows = await sql.read('SELECT * FROM disk_use WHERE substr(id, 1, length(?)) = ? LIMIT 10', [reference, reference]);
  return rows.map(diskUseOf).map(({ id, tenant, host }) => ({ tenant, container: id, incarnation: 0, host }));
}

export interface DiskMove {
  readonly toMs: number;
  readonly bytes: number;
  readonly host: string;
  /** It is gone. */
  readonly isGone: boolean;
}

/** It is in the ledger up to `toMs`, and has so much from then on. */
export function moveDiskUseWrite({ id, meteredMs }: DiskUse, { toMs, bytes, host, isGone }: DiskMove): SqlWrite {
  return {
    sql: 'UPDATE disk_use SET metered_ms = ?, bytes = ?, host = ?, closed_ms = ? WHERE id = ? AND metered_ms = ? AND closed_ms IS NULL',
    values: [toMs, bytes, host, isGone ? toMs : null, id, meteredMs],
    expectRows: 1,
  };
}
