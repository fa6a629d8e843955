/** Certificates of a real store, read by the process that does that for a primary. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLog } from '#log';
import { putCertificate } from '#state/certificates.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';
import { CertificateReader } from '../../../src/node-certificate-reader.ts';
import { belongsTo } from '../../../src/node-certificate-store.ts';

let folder: string;
let storeFile: string;
let sql: Sql;
let seal: KeySeal;
let reader: CertificateReader | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-reader-'));
  storeFile = join(folder, 'ecluse.db');
  sql = openSqlite(storeFile);
  seal = await KeySeal.open(folder, []);
});

afterEach(async () => {
  await reader?.[Symbol.asyncDispose]();
  await sql[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const LEAF = pemBlockOf('CERTIFICATE', Buffer.from('leaf'));

function keyOf(name: string): string {
  return pemBlockOf('PRIVATE KEY', Buffer.from(`key of ${name}`));
}

async function put(name: string): Promise<void> {
  const row = {
    name,
    version: 1,
    source: 'uploaded',
    addedMs: 1,
    notBeforeMs: 1,
    notAfterMs: 9,
    hosts: [`${name}.test`],
  } as const;
  const shown = { issuer: 'CN=x', keyKind: 'EC P-256', fingerprint: `f-${name}`, leaf: LEAF, chain: 'chain', sealedBy: seal.id };
  const sealedKey = seal.seal(keyOf(name), belongsTo({ ...row, ...shown }));
  await putCertificate(sql, { ...row, ...shown, sealedKey }, 1);
}

/** `fewMax`: how many it reads without a process. */
function open(fewMax = 0): CertificateReader {
  reader = new CertificateReader({ log: createLog('silent'), sql, storeFile, seal, fewMax });
  return reader;
}

async function served(names: readonly string[], fewMax: number): Promise<Readonly<Record<string, string>>> {
  const pack = await open(fewMax).pack(names);
  return Object.fromEntries([...pack.values()].map(({ name, keyPem }) => [name, keyPem]));
}

test.each([0, 10])(
  'what certificates cover, and they with their keys, as the store is then (%i without a process)',
  async (fewMax) => {
    await put('shop');
    const opened = open(fewMax);
    expect((await opened.bare()).find('shop.test')?.name).toBe('shop');
    await put('blog');
    const pack = await opened.pack(['shop', 'blog', 'nobody']);
    const read = Object.fromEntries([...pack.values()].map(({ name, keyPem }) => [name, keyPem]));
    expect(read).toEqual({ shop: keyOf('shop'), blog: keyOf('blog') });
    expect((await opened.pack(['nobody'])).size).toBe(0);
  },
);

test('one that is damaged, or whose key is not its own, is left out', async () => {
  for (const name of ['shop', 'blog', 'wiki']) await put(name);
  const takeKey = `UPDATE certificate SET sealed_key = (SELECT sealed_key FROM certificate WHERE name = 'shop') WHERE name = 'blog'`;
  await sql.write([
    { sql: takeKey, values: [] },
    { sql: `UPDATE certificate SET leaf = '-----BEGIN' WHERE name = 'wiki'`, values: [] },
  ]);
  for (const fewMax of [0, 10]) expect(await served(['shop', 'blog', 'wiki'], fewMax)).toEqual({ shop: keyOf('shop') });
});

test('a store that cannot be read is said, and the next question is asked anew', async () => {
  await put('shop');
  const opened = open();
  await opened.bare();
  await sql.write([{ sql: 'ALTER TABLE certificate RENAME TO other', values: [] }]);
  await expect(opened.pack(['shop'])).rejects.toMatchObject({ code: 'ECLUSE_CERTIFICATES_UNREAD' });
  await sql.write([{ sql: 'ALTER TABLE other RENAME TO certificate', values: [] }]);
  expect((await opened.pack(['shop'])).size).toBe(1);
});

test('who waits for a reader that is closed hears of it', async () => {
  await put('shop');
  const opened = open();
  const asked = opened.pack(['shop']);
  await opened[Symbol.asyncDispose]();
  await expect(asked).rejects.toThrow('the node stops');
  await expect(opened.bare()).rejects.toThrow('the node stops');
});
