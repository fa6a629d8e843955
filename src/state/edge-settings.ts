/**
 * What operators wrote of the edge, by service and by host, and the versions that it went through. A version is one batch: what it changes, how that is
 * taken back, its number and its line in the change log.
 */
import { changeWrite } from './change-log.ts';
import { readSetting, settingWrites } from './settings.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlWrite } from './sql.ts';

/** The setting with the number of the version that was committed last. */
export const CONFIG_VERSION_KEY = 'config_version';
/** The setting with the newest version that is not kept any more. */
const FORGOTTEN_KEY = 'config_forgotten';

export interface StoredSettings {
  /** JSON by name. */
  readonly services: readonly (readonly [name: string, body: string])[];
  /** JSON of all routes of a host. */
  readonly hosts: readonly (readonly [host: string, routes: string])[];
  /** JSON by name. */
  readonly caBundles: readonly (readonly [name: string, body: string])[];
}

export type ConfigCause = 'apply' | 'transaction' | 'rollback';

export interface ConfigVersion {
  readonly version: number;
  readonly atMs: number;
  readonly cause: ConfigCause;
  /** Why, in the operator's words; empty: none. */
  readonly note: string;
}

export interface ConfigPatch {
  /** JSON. */
  readonly patch: string;
  readonly inverse: string;
}

export interface ConfigVersionRow extends ConfigVersion {
  /** How many of them changed. */
  readonly services: number;
  readonly hosts: number;
}

/** Null: it goes. */
export interface SettingsChange {
  readonly services: readonly (readonly [name: string, body: string | null])[];
  readonly hosts: readonly (readonly [host: string, routes: string | null])[];
  readonly caBundles: readonly (readonly [name: string, body: string | null])[];
}

/** Versions that are kept, and what their patches may take in all: the first file of a big edge has 8 MB alone. The newest stays in any case. */
const VERSIONS_MAX = 1000;
const VERSION_BYTES_MAX = 128 * 1024 * 1024;

export async function readEdgeSettings(sql: Sql): Promise<StoredSettings> {
  const services = await sql.read('SELECT name, body FROM edge_service', []);
  const hosts = await sql.read('SELECT host, routes FROM edge_host', []);
  const caBundles = await sql.read('SELECT name, body FROM edge_ca_bundle', []);
  return {
    services: services.map((row) => [textOf(row, 'name'), textOf(row, 'body')]),
    hosts: hosts.map((row) => [textOf(row, 'host'), textOf(row, 'routes')]),
    caBundles: caBundles.map((row) => [textOf(row, 'name'), textOf(row, 'body')]),
  };
}

/** The number of the version in which operators changed something last; 0: they never did. */
export async function readOperatorVersion(sql: Sql): Promise<number> {
  const [row] = await sql.read('SELECT MAX(version) AS version FROM config_version', []);
  return row === undefined || row['version'] === null ? 0 : integerOf(row, 'version');
}

/** Makes a version last. Throws where the store cannot; then it holds nothing of it. */
export async function writeConfigVersion(sql: Sql, version: ConfigVersion & ConfigPatch, change: SettingsChange): Promise<void> {
  const { version: number, atMs, cause, note, patch, inverse } = version;
  const [services, hosts] = [change.services.length, change.hosts.length];
  const outcome = await sql.write([
    ...change.services.flatMap(([name, body]) => replaced('edge_service', ['name', 'body'], name, body)),
    ...change.hosts.flatMap(([host, routes]) => replaced('edge_host', ['host', 'routes'], host, routes)),
    ...change.caBundles.flatMap(([name, body]) => replaced('edge_ca_bundle', ['name', 'body'], name, body)),
    {
      sql: 'INSERT INTO config_version (version, at_ms, cause, note, services, hosts, bytes, patch, inverse) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
      values: [number, atMs, cause, note, services, hosts, patch.length + inverse.length, patch, inverse],
    },
    ...settingWrites(CONFIG_VERSION_KEY, String(number)),
    changeWrite(atMs, 'config', String(number), { cause, note, services, hosts }),
  ]);
  if (outcome.kind === 'conflict') throw new Error(`config version ${String(number)} is in the store already`);
}

function replaced(
  table: string,
  [key, value]: readonly [string, string],
  name: string,
  body: string | null,
): readonly SqlWrite[] {
  const remove = { sql: `DELETE FROM ${table} WHERE ${key} = ?`, values: [name] };
  if (body === null) return [remove];
  return [remove, { sql: `INSERT INTO ${table} (${key}, ${value}) VALUES (?, ?)`, values: [name, body] }];
}

/** Keeps as many versions as there is room for. */
export async function forgetOldVersions(sql: Sql): Promise<void> {
  const rows = await sql.read('SELECT version, bytes FROM config_version ORDER BY version DESC LIMIT ?', [VERSIONS_MAX + 1]);
  let bytes = 0;
  for (const [index, row] of rows.entries()) {
    bytes += integerOf(row, 'bytes');
    if (index === 0 || (index < VERSIONS_MAX && bytes <= VERSION_BYTES_MAX)) continue;
    const version = integerOf(row, 'version');
    await sql.write([
      { sql: 'DELETE FROM config_version WHERE version <= ?', values: [version] },
      ...settingWrites(FORGOTTEN_KEY, String(version)),
    ]);
    return;
  }
}

/** The newest first. */
export async function listConfigVersions(sql: Sql, limit: number): Promise<readonly ConfigVersionRow[]> {
  const rows = await sql.read(
    'SELECT version, at_ms, cause, note, services, hosts FROM config_version ORDER BY version DESC LIMIT ?',
    [limit],
  );
  return rows.map((row) => ({
    version: integerOf(row, 'version'),
    atMs: integerOf(row, 'at_ms'),
    cause: causeOf(textOf(row, 'cause')),
    note: textOf(row, 'note'),
    services: integerOf(row, 'services'),
    hosts: integerOf(row, 'hosts'),
  }));
}

/** What the versions after `above` changed, the newest first. */
export async function listConfigPatches(
  sql: Sql,
  above: number,
): Promise<readonly (ConfigPatch & { readonly version: number })[]> {
  const rows = await sql.read('SELECT version, patch, inverse FROM config_version WHERE version > ? ORDER BY version DESC', [
    above,
  ]);
  return rows.map((row) => ({
    version: integerOf(row, 'version'),
    patch: textOf(row, 'patch'),
    inverse: textOf(row, 'inverse'),
  }));
}

function causeOf(text: string): ConfigCause {
  if (text === 'apply' || text === 'transaction' || text === 'rollback') return text;
  throw new TypeError(`state: "${text}" is no cause of a version`);
}

/** The newest version that is not kept any more; nothing before it can be gone back to. 0: all are kept. */
export async function newestForgotten(sql: Sql): Promise<number> {
  return Number((await readSetting(sql, FORGOTTEN_KEY)) ?? '0');
}
