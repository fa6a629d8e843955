/** The key that the ledger is signed with: made once, kept private, and never replaced without a word. */
import { chmod, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { addLedgerKey, listLedgerKeys } from '#state/ledger-heads.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { openLedgerKeys } from '../../src/node-ledger-key.ts';
import { newLedgerKey } from '../support/ledger-store.ts';

let folder: string;
let sql: Sql;
const log = createLog('silent');
const openBoth = async () => await openLedgerKeys(join(folder, 'tls'), { log, sql, clock: systemClock });
const open = async () => (await openBoth()).key;
const ids = async (): Promise<readonly string[]> => (await openBoth()).keys.map(({ id }) => id);
const file = (): string => join(folder, 'tls', 'ledger.key');
const listFile = (): string => join(folder, 'tls', 'ledger.keys');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-ledger-key-'));
  sql = openSqlite(join(folder, 'x.db'));
});
afterEach(async () => {
  vi.restoreAllMocks();
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

test('all keys that signed are listed beside it, whatever the store says of others', async () => {
  const warn = vi.spyOn(log, 'warn');
  const first = await open();
  expect((await stat(listFile())).mode & 0o777).toBe(0o600);
  expect(await ids()).toEqual([first.id]);
  await addLedgerKey(sql, newLedgerKey(), 0);
  expect(await ids()).toEqual([first.id]);
  await rm(file());
  await sql.write([{ sql: `DELETE FROM setting WHERE key = 'ledger.key'`, values: [] }]);
  const second = await open();
  expect(await ids()).toEqual([first.id, second.id]);
  expect((await stat(listFile())).mode & 0o777).toBe(0o600);
  expect(warn).not.toHaveBeenCalled();
});

test('a node from before, or one whose list is missing, believes the store once, and says so', async () => {
  const first = await open();
  await rm(listFile());
  const [earlier, late, mistaken] = [newLedgerKey(), newLedgerKey(), newLedgerKey()];
  await addLedgerKey(sql, earlier, 5);
  await addLedgerKey(sql, { ...mistaken, publicKey: late.publicKey }, 6);
  await addLedgerKey(sql, { ...mistaken, id: '00', publicKey: 'nonsense' }, 7);
  const warn = vi.spyOn(log, 'warn');
  expect(await ids()).toEqual([earlier.id, first.id]);
  expect(warn.mock.calls).toEqual([
    [{ file: listFile(), keys: [earlier.id, first.id] }, expect.stringMatching(/it was made of what the store says/)],
  ]);
  await addLedgerKey(sql, late, 8);
  expect(await ids()).toEqual([earlier.id, first.id]);
  expect(warn).toHaveBeenCalledTimes(1);
});

test.each([
  ['is damaged', async () => await writeFile(listFile(), 'nonsense'), /is damaged: .*ledger\.keys is not what was written/],
  ['is empty', async () => await writeFile(listFile(), '{"keys":[]}'), /is damaged: .*ledger\.keys is not what was written/],
  ['can be written by others', async () => await chmod(listFile(), 0o666), /can be read by others: .*ledger\.keys has mode 0666/],
  [
    'names a key by the id of another',
    async () => {
      const text = await readFile(listFile(), 'utf8');
      await writeFile(listFile(), text.replace(/"id": "[0-9a-f]{4}/, '"id": "zzzz'));
    },
    /is damaged: in .*ledger\.keys the id zzzz[0-9a-f]+ is not that of its key/,
  ],
])('a list that %s keeps a node from starting, and is not made anew', async (_what, spoil, said) => {
  await open();
  await spoil();
  const text = await readFile(listFile(), 'utf8');
  await expect(open()).rejects.toThrow(said);
  await expect(open()).rejects.toMatchObject({ code: 'ECLUSE_LEDGER_KEY' });
  expect(await readFile(listFile(), 'utf8')).toBe(text);
});
