/** Certificates in a real store: versions, what is read back, and rows that somebody moved a key between. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readChanges } from '#state/change-log.ts';
import {
  findCertificate,
  listCertificates,
  listEndingCertificates,
  listSealingKeys,
  putCertificate,
  removeCertificate,
  totalCertificates,
} from '#state/certificates.ts';
import type { CertificateRow } from '#state/certificates.ts';
import { CONFIG_VERSION_KEY } from '#state/edge-settings.ts';
import { readSetting } from '#state/settings.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';
import { bareCertificates, belongsTo, packCertificates } from '../../../src/node-certificate-store.ts';

let folder: string;
let sql: Sql;
let seal: KeySeal;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-certs-'));
  sql = openSqlite(join(folder, 'ecluse.db'));
  seal = await KeySeal.open(folder, await listSealingKeys(sql));
});

afterEach(async () => {
  await sql[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function rowOf(name: string, over: Partial<CertificateRow> = {}): CertificateRow {
  return {
    name,
    version: 1,
    source: 'uploaded',
    addedMs: 5,
    notBeforeMs: 1,
    notAfterMs: 100,
    hosts: [`${name}.test`],
    issuer: 'CN=Test',
    keyKind: 'EC P-256',
    fingerprint: `f-${name}`,
    ...over,
  };
}

const LEAF = pemBlockOf('CERTIFICATE', Buffer.from('leaf'));

function keyOf(name: string, version: number): string {
  return pemBlockOf('PRIVATE KEY', Buffer.from(`key of ${name} ${String(version)}`));
}

async function put(row: CertificateRow, configVersion = 1): Promise<void> {
  const sealedKey = seal.seal(keyOf(row.name, row.version), belongsTo(row));
  await putCertificate(sql, { ...row, leaf: LEAF, chain: 'chain', sealedKey, sealedBy: seal.id }, configVersion);
}

async function served(): Promise<Readonly<Record<string, string>>> {
  const bare = await bareCertificates({ sql });
  const coverages = [...bare.values()].map(({ name, hosts, notAfterMs }) => ({ name, hosts, notAfterMs }));
  const refused = new Set<string>();
  const names = coverages.map(({ name }) => name);
  const pack = await packCertificates({ sql, seal, refused: (name) => refused.add(name) }, [...names, 'nobody']);
  const read = [...pack.values()];
  for (const { name, hosts, notAfterMs } of read) expect(coverages).toContainEqual({ name, hosts, notAfterMs });
  expect(new Set([...read.map(({ name }) => name), ...refused])).toEqual(new Set(names));
  return Object.fromEntries(read.map(({ name, keyPem }) => [name, keyPem]));
}

test('one takes the place of another with the config version that brings it, and the change log has no key', async () => {
  await put(rowOf('shop'), 7);
  await put(rowOf('shop', { version: 2, hosts: ['a.test', '*.a.test'] }), 8);
  await put(rowOf('blog', { notAfterMs: 50 }), 9);
  expect(await listCertificates(sql)).toEqual([
    rowOf('blog', { notAfterMs: 50 }),
    rowOf('shop', { version: 2, hosts: ['a.test', '*.a.test'] }),
  ]);
  expect(await served()).toEqual({ shop: keyOf('shop', 2), blog: keyOf('blog', 1) });
  expect(await readSetting(sql, CONFIG_VERSION_KEY)).toBe('9');
  expect(await totalCertificates(sql)).toEqual([{ source: 'uploaded', count: 2, notAfterMs: 50 }]);
  expect((await listEndingCertificates(sql, 100, 10)).map(({ name }) => name)).toEqual(['blog']);
  expect(await removeCertificate(sql, 'blog', { configVersion: 10, nowMs: 6 })).toBe(true);
  expect(await removeCertificate(sql, 'blog', { configVersion: 11, nowMs: 6 })).toBe(false);
  expect(await findCertificate(sql, 'blog')).toBeUndefined();
  expect(await readSetting(sql, CONFIG_VERSION_KEY)).toBe('10');
  const changes = await readChanges(sql, 0, 100);
  expect(changes.map(({ kind, key }) => `${kind} ${key}`)).toEqual([
    'certificate.added shop',
    'certificate.added shop',
    'certificate.added blog',
    'certificate.removed blog',
  ]);
  expect(JSON.stringify(changes)).not.toMatch(/PRIVATE|BEGIN|sealed/);
});

test('a certificate that is damaged in the store is not served; the others are', async () => {
  for (const name of ['shop', 'blog']) await put(rowOf(name));
  await sql.write([{ sql: `UPDATE certificate SET leaf = '-----BEGIN' WHERE name = 'blog'`, values: [] }]);
  expect(await served()).toEqual({ shop: keyOf('shop', 1) });
});

test('a key that was moved to another row, or back from an earlier version, is not served; the others are', async () => {
  await put(rowOf('shop'));
  await put(rowOf('blog'));
  await put(rowOf('good'));
  await sql.write([
    {
      sql: `UPDATE certificate SET sealed_key = (SELECT sealed_key FROM certificate WHERE name = 'blog') WHERE name = 'shop'`,
      values: [],
    },
    { sql: `UPDATE certificate SET version = 2 WHERE name = 'blog'`, values: [] },
  ]);
  expect(await served()).toEqual({ good: keyOf('good', 1) });
});

test('a store knows which key of the data directory seals its certificates', async () => {
  expect(await listSealingKeys(sql)).toEqual([]);
  await put(rowOf('shop'));
  await put(rowOf('blog'));
  expect(await listSealingKeys(sql)).toEqual([seal.id]);
  await rm(join(folder, 'certificates.key'));
  await expect(KeySeal.open(folder, await listSealingKeys(sql))).rejects.toMatchObject({ code: 'ECLUSE_CERTIFICATE_KEY' });
});
