/** The key that the ledger is signed with: made once, kept private, and never replaced without a word. */
import { chmod, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { listLedgerKeys } from '#state/ledger-heads.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { openLedgerKey } from '../../src/node-metering.ts';

let folder: string;
let sql: Sql;
const open = async () => await openLedgerKey(join(folder, 'tls'), { sql, clock: systemClock });
const file = (): string => join(folder, 'tls', 'ledger.key');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-ledger-key-'));
  sql = openSqlite(join(folder, 'x.db'));
});
afterEach(async () => {
  await sql[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test('is made once, with mode 0600, and its public half is in the store', async () => {
  const key = await open();
  expect((await stat(file())).mode & 0o777).toBe(0o600);
  expect((await open()).id).toBe(key.id);
  expect((await listLedgerKeys(sql)).map(({ id, publicKey }) => ({ id, publicKey }))).toEqual([
    { id: key.id, publicKey: key.publicKey },
  ]);
  expect(await readFile(file(), 'utf8')).toMatch(/^-----BEGIN PRIVATE KEY-----/);
});

test.each([
  ['is missing', async () => await rename(file(), `${file()}.away`), /is missing: there is no/],
  ['can be read by others', async () => await chmod(file(), 0o640), /can be read by others: .* has mode 0640/],
  ['is damaged', async () => await writeFile(file(), 'nonsense'), /is damaged: .* is no private key/],
])('a key that %s keeps a node from starting, and is not replaced', async (_what, spoil, said) => {
  await open();
  await spoil();
  await expect(open()).rejects.toThrow(said);
  await expect(open()).rejects.toMatchObject({ code: 'ECLUSE_LEDGER_KEY' });
});

test('another key is refused until the store is told to forget; then both are known', async () => {
  const first = await open();
  await rm(file());
  await sql.write([{ sql: `DELETE FROM setting WHERE key = 'ledger.key'`, values: [] }]);
  const second = await open();
  expect(second.id).not.toBe(first.id);
  expect((await listLedgerKeys(sql)).map(({ id }) => id).toSorted()).toEqual([first.id, second.id].toSorted());
  await writeFile(file(), first.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  await expect(open()).rejects.toThrow(/is another one/);
});

test('a key of another kind is refused', async () => {
  await open();
  const { generateKeyPairSync } = await import('node:crypto');
  const { privateKey } = generateKeyPairSync('x25519');
  await writeFile(file(), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  await expect(open()).rejects.toThrow(/is no Ed25519 key/);
});
