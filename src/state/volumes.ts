/** Tenants' volumes: names over engine volumes. The data lives on the host where a container first used it. */
import { volumeGoneWrite } from './disk-use.ts';
import { textMapOf } from './networks.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface VolumeRow {
  readonly tenant: string;
  readonly name: string;
  /** Names the engine's volume; ours, random. */
  readonly id: string;
  /** Empty until a container uses it. */
  readonly host: string;
  readonly createdMs: number;
  /** Made for a container without a name; goes with `docker rm -v` and by default with `docker volume prune`. */
  readonly anonymous: boolean;
  /** Null where the client gave none, which Docker tells apart from an empty object. */
  readonly labels: Readonly<Record<string, string>> | null;
  /** Options of the `local` driver: only those of a tmpfs are accepted. */
  readonly options: Readonly<Record<string, string>> | null;
}

function mapOf(row: SqlRow, column: string): Readonly<Record<string, string>> | null {
  return textOf(row, column) === 'null' ? null : textMapOf(row, column);
}

function volumeOf(row: SqlRow): VolumeRow {
  return {
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    id: textOf(row, 'id'),
    host: textOf(row, 'host'),
    createdMs: integerOf(row, 'created_ms'),
    anonymous: integerOf(row, 'anonymous') === 1,
    labels: mapOf(row, 'labels'),
    options: mapOf(row, 'options'),
  };
}

/** Adds a volume; conflict where the tenant has one of that name. */
export async function insertVolume(sql: Sql, volume: VolumeRow): Promise<WriteOutcome> {
  const { tenant, name, id, host, createdMs, anonymous, labels, options } = volume;
  return await sql.write([
    {
      sql: 'INSERT INTO volume (tenant, name, id, host, created_ms, anonymous, labels, options) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      values: [tenant, name, id, host, createdMs, anonymous ? 1 : 0, JSON.stringify(labels), JSON.stringify(options)],
    },
  ]);
}

/** Says where the data is from now on; conflict where another caller said so first. */
export async function placeVolume(sql: Sql, volume: VolumeRow, host: string): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'UPDATE volume SET host = ? WHERE tenant = ? AND name = ? AND host = ?',
      values: [host, volume.tenant, volume.name, volume.host],
      expectRows: 1,
    },
  ]);
}

export async function deleteVolume(
  sql: Sql,
  { tenant, name, id }: Pick<VolumeRow, 'tenant' | 'name' | 'id'>,
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM volume WHERE tenant = ? AND name = ? AND id = ?', values: [tenant, name, id], expectRows: 1 },
    volumeGoneWrite(id, nowMs),
  ]);
}

export async function findVolume(sql: Sql, tenant: string, name: string): Promise<VolumeRow | undefined> {
  const [row] = await sql.read('SELECT * FROM volume WHERE tenant = ? AND name = ?', [tenant, name]);
  return row === undefined ? undefined : volumeOf(row);
}

export async function findVolumeById(sql: Sql, id: string): Promise<VolumeRow | undefined> {
  const [row] = await sql.read('SELECT * FROM volume WHERE id = ?', [id]);
  return row === undefined ? undefined : volumeOf(row);
}

export async function listVolumes(sql: Sql, tenant: string): Promise<readonly VolumeRow[]> {
  return (await sql.read('SELECT * FROM volume WHERE tenant = ? ORDER BY name', [tenant])).map(volumeOf);
}

export async function listAllVolumes(sql: Sql): Promise<readonly VolumeRow[]> {
  return (await sql.read('SELECT * FROM volume ORDER BY tenant, name', [])).map(volumeOf);
}
