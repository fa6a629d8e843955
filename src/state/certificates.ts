/** Certificates that people added for the edge, one row a name: what replaces another has the next version, and the key of the one before is gone. */
import { changeWrite } from './change-log.ts';
import { CONFIG_VERSION_KEY } from './edge-settings.ts';
import { settingWrites } from './settings.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow } from './sql.ts';

/** Where a certificate came from. */
export type CertificateSource = 'uploaded' | 'acme';

/** What can be shown of one. */
export interface CertificateRow {
  readonly name: string;
  /** Counts from 1 with each that takes the place of another. */
  readonly version: number;
  readonly source: CertificateSource;
  readonly addedMs: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Lower-case names that it covers: exact, or `*.example.com`. */
  readonly hosts: readonly string[];
  /** A distinguished name, on one line. */
  readonly issuer: string;
  /** `RSA 2048`, `EC P-256`. */
  readonly keyKind: string;
  /** SHA-256 of the DER: lower-case hex without colons. */
  readonly fingerprint: string;
}

/** What is served of one. */
export interface CertificateMaterial {
  readonly name: string;
  readonly version: number;
  readonly notAfterMs: number;
  readonly hosts: readonly string[];
  readonly fingerprint: string;
  /** PEM. */
  readonly leaf: string;
  /** PEM of what follows it; empty: nothing. */
  readonly chain: string;
  /** Base64 of what `KeySeal` made. */
  readonly sealedKey: string;
}

export interface CertificateTotal {
  readonly source: CertificateSource;
  readonly count: number;
  /** The first that ends. */
  readonly notAfterMs: number;
}

const SHOWN = 'name, version, source, added_ms, not_before_ms, not_after_ms, hosts, issuer, key_kind, fingerprint';

/** Makes a certificate last, in place of what has its name, together with the number of the config version that brings it. */
export async function putCertificate(
  sql: Sql,
  certificate: CertificateRow & CertificateMaterial & { readonly sealedBy: string },
  configVersion: number,
): Promise<void> {
  const { name, version, source, addedMs, notBeforeMs, notAfterMs, hosts, issuer, keyKind, fingerprint } = certificate;
  const { leaf, chain, sealedKey, sealedBy } = certificate;
  const outcome = await sql.write([
    { sql: 'DELETE FROM certificate WHERE name = ?', values: [name] },
    {
      sql: `INSERT INTO certificate (${SHOWN}, leaf, chain, sealed_key, sealed_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [
        name,
        version,
        source,
        addedMs,
        notBeforeMs,
        notAfterMs,
        JSON.stringify(hosts),
        issuer,
        keyKind,
        fingerprint,
        leaf,
        chain,
        sealedKey,
        sealedBy,
      ],
    },
    ...settingWrites(CONFIG_VERSION_KEY, String(configVersion)),
    changeWrite(addedMs, 'certificate.added', name, {
      version,
      source,
      hosts: hosts.slice(0, HOSTS_LOGGED_MAX),
      notAfterMs,
      fingerprint,
    }),
  ]);
  if (outcome.kind === 'conflict') throw new Error(`certificate ${name} could not be written`);
}

/** A certificate may have a thousand names; the first say which one it is. */
const HOSTS_LOGGED_MAX = 20;

/** False: there is none. */
export async function removeCertificate(
  sql: Sql,
  name: string,
  { configVersion, nowMs }: { readonly configVersion: number; readonly nowMs: number },
): Promise<boolean> {
  const outcome = await sql.write([
    { sql: 'DELETE FROM certificate WHERE name = ?', values: [name], expectRows: 1 },
    ...settingWrites(CONFIG_VERSION_KEY, String(configVersion)),
    changeWrite(nowMs, 'certificate.removed', name),
  ]);
  return outcome.kind === 'done';
}

/** Names of those that came from there. */
export async function listCertificateNames(sql: Sql, source: CertificateSource): Promise<readonly string[]> {
  return (await sql.read('SELECT name FROM certificate WHERE source = ?', [source])).map((row) => textOf(row, 'name'));
}

/** By name. */
export async function listCertificates(sql: Sql): Promise<readonly CertificateRow[]> {
  return (await sql.read(`SELECT ${SHOWN} FROM certificate ORDER BY name`, [])).map(rowOf);
}

export async function findCertificate(sql: Sql, name: string): Promise<CertificateRow | undefined> {
  const [row] = await sql.read(`SELECT ${SHOWN} FROM certificate WHERE name = ?`, [name]);
  return row === undefined ? undefined : rowOf(row);
}

/** Those that end before a moment, the first to end first. */
export async function listEndingCertificates(sql: Sql, beforeMs: number, limit: number): Promise<readonly CertificateRow[]> {
  const query = `SELECT ${SHOWN} FROM certificate WHERE not_after_ms < ? ORDER BY not_after_ms, name LIMIT ?`;
  return (await sql.read(query, [beforeMs, limit])).map(rowOf);
}

/** Everything that is served, with keys sealed. */
export async function readCertificateMaterial(sql: Sql): Promise<readonly CertificateMaterial[]> {
  const rows = await sql.read(
    'SELECT name, version, not_after_ms, hosts, fingerprint, leaf, chain, sealed_key FROM certificate',
    [],
  );
  return rows.map((row) => ({
    name: textOf(row, 'name'),
    version: integerOf(row, 'version'),
    notAfterMs: integerOf(row, 'not_after_ms'),
    hosts: hostsOf(row),
    fingerprint: textOf(row, 'fingerprint'),
    leaf: textOf(row, 'leaf'),
    chain: textOf(row, 'chain'),
    sealedKey: textOf(row, 'sealed_key'),
  }));
}

/** Names of the keys of the data directory that certificates and accounts at CAs are sealed with: one, or none where there is nothing sealed. */
export async function listSealingKeys(sql: Sql): Promise<readonly string[]> {
  const rows = await sql.read('SELECT sealed_by FROM certificate UNION SELECT sealed_by FROM acme_account', []);
  return rows.map((row) => textOf(row, 'sealed_by'));
}

export async function totalCertificates(sql: Sql): Promise<readonly CertificateTotal[]> {
  const rows = await sql.read(
    'SELECT source, COUNT(*) AS certificates, MIN(not_after_ms) AS first_ms FROM certificate GROUP BY source',
    [],
  );
  return rows.map((row) => ({
    source: sourceOf(row),
    count: integerOf(row, 'certificates'),
    notAfterMs: integerOf(row, 'first_ms'),
  }));
}

function rowOf(row: SqlRow): CertificateRow {
  return {
    name: textOf(row, 'name'),
    version: integerOf(row, 'version'),
    source: sourceOf(row),
    addedMs: integerOf(row, 'added_ms'),
    notBeforeMs: integerOf(row, 'not_before_ms'),
    notAfterMs: integerOf(row, 'not_after_ms'),
    hosts: hostsOf(row),
    issuer: textOf(row, 'issuer'),
    keyKind: textOf(row, 'key_kind'),
    fingerprint: textOf(row, 'fingerprint'),
  };
}

function sourceOf(row: SqlRow): CertificateSource {
  const source = textOf(row, 'source');
  if (source === 'uploaded' || source === 'acme') return source;
  throw new TypeError(`state: "${source}" is no source of a certificate`);
}

function hostsOf(row: SqlRow): readonly string[] {
  const parsed: unknown = JSON.parse(textOf(row, 'hosts'));
  return Array.isArray(parsed) ? parsed.map(String) : [];
}
