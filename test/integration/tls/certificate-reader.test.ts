/** Certificates of a real store, read by the process that does that for a primary. */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLog } from '#log';
import { PackClient } from '#proxy/pack-channel.ts';
import { putCertificate } from '#state/certificates.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import type { CertificatePack } from '#tls/certificate-pack.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { PackShelf } from '#tls/pack-shelf.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';
import { CertificateReader } from '../../../src/node-certificate-reader.ts';
import { belongsTo } from '../../../src/node-certificate-store.ts';

let folder: string;
let storeFile: string;
let sql: Sql;
let seal: KeySeal;
let reader: CertificateReader | undefined;
let id = 0;

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

/** As a worker gets them: from the process that reads, or from this one. */
async function packs(opened: CertificateReader, ...wanted: readonly (readonly string[])[]): Promise<readonly CertificatePack[]> {
  using lent = await opened.lend();
  if (lent === undefined) return await Promise.all(wanted.map(async (names) => await opened.pack(names)));
  using client = await PackClient.connect(lent.path, new PackShelf());
  const fetched: CertificatePack[] = [];
  for (const names of wanted) fetched.push(await client.fetch({ id: (id += 1), names }));
  return fetched;
}

function keysOf(pack: CertificatePack | undefined): Readonly<Record<string, string>> {
  return Object.fromEntries([...(pack?.values() ?? [])].map(({ name, keyPem }) => [name, keyPem]));
}

test.each([0, 10])(
  'what certificates cover, and they with their keys, as the store is then (%i without a process)',
  async (fewMax) => {
    await put('shop');
    const opened = open(fewMax);
    expect((await opened.bare()).find('shop.test')?.name).toBe('shop');
    await put('blog');
    const [both, none, nothing] = await packs(opened, ['shop', 'blog', 'nobody'], ['nobody'], []);
    expect(keysOf(both)).toEqual({ shop: keyOf('shop'), blog: keyOf('blog') });
    expect([none?.size, nothing?.size]).toEqual([0, 0]);
  },
);

test.each([0, 10])('one that is damaged, or whose key is not its own, is left out (%i without a process)', async (fewMax) => {
  for (const name of ['shop', 'blog', 'wiki']) await put(name);
  const takeKey = `UPDATE certificate SET sealed_key = (SELECT sealed_key FROM certificate WHERE name = 'shop') WHERE name = 'blog'`;
  await sql.write([
    { sql: takeKey, values: [] },
    { sql: `UPDATE certificate SET leaf = '-----BEGIN' WHERE name = 'wiki'`, values: [] },
  ]);
  const [pack] = await packs(open(fewMax), ['shop', 'blog', 'wiki']);
  expect(keysOf(pack)).toEqual({ shop: keyOf('shop') });
});

test('who asks for the same gets the same; nobody but the owner may ask', async () => {
  await put('shop');
  const opened = open();
  using lent = await opened.lend();
  const path = lent?.path ?? '';
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  using one = await PackClient.connect(path, new PackShelf());
  using other = await PackClient.connect(path, new PackShelf());
  const first = await one.fetch({ id: 7, names: ['shop'] });
  await sql.write([{ sql: 'DELETE FROM certificate', values: [] }]);
  expect((await other.fetch({ id: 7, names: ['shop'] })).bytes).toEqual(first.bytes);
  expect((await other.fetch({ id: 8, names: ['shop'] })).size).toBe(0);
});

test('a store that cannot be read is said, and the next question is answered', async () => {
  await put('shop');
  const opened = open();
  await opened.bare();
  using lent = await opened.lend();
  using client = await PackClient.connect(lent?.path ?? '', new PackShelf());
  await sql.write([{ sql: 'ALTER TABLE certificate RENAME TO other', values: [] }]);
  await expect(client.fetch({ id: 1, names: ['shop'] })).rejects.toThrow('no such table');
  await sql.write([{ sql: 'ALTER TABLE other RENAME TO certificate', values: [] }]);
  expect((await client.fetch({ id: 1, names: ['shop'] })).size).toBe(1);
});

test('who waits for a process that ends hears of it, and the next one gets another', async () => {
  await put('shop');
  const opened = open();
  const asked = opened.lend();
  await opened[Symbol.asyncDispose]();
  await expect(asked).rejects.toThrow('the node stops');
  await expect(opened.lend()).rejects.toThrow('the node stops');
  const next = open();
  const [pack] = await packs(next, ['shop']);
  expect(keysOf(pack)).toEqual({ shop: keyOf('shop') });
});
