/**
 * The key that a node signs its ledger with, and the list of all keys that it ever signed with. Both are files beside each other: who can write to the
 * store cannot add a key of their own to what heads are verified with.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { keyIdOf, ledgerKeyOf } from '#metering/ledger-head.ts';
import type { LedgerKey } from '#metering/ledger-head.ts';
import { addLedgerKey, listLedgerKeys } from '#state/ledger-heads.ts';
import type { KnownKey } from '#state/ledger-heads.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { createFile, replaceFile } from '#tls/atomic-file.ts';
import { readPrivateFile } from '#tls/private-file.ts';

const KEY_FILE = 'ledger.key';
const LIST_FILE = 'ledger.keys';
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;
const KEY_SETTING = 'ledger.key';
const WHAT = "the key that the ledger's heads are signed with";
const WHAT_LIST = "the list of the keys that the ledger's heads were signed with";
const RESTORE =
  'restore it from a backup; if there is none, let a new key begin, whose id tenants have to be told: sqlite3 DATA/ecluse.db "DELETE FROM setting WHERE key = \'ledger.key\'"';
const RESTORE_LIST =
  'restore it from a backup; if there is none, remove it: the next start makes it of what the store says. Compare that (ecluse ledger key) with what tenants were told';

const listSchema = z.strictObject({
  keys: z.array(z.strictObject({ id: z.string(), publicKey: z.string(), sinceMs: z.int() })).min(1),
});

export interface LedgerKeys {
  readonly key: LedgerKey;
  /** All that the node ever signed with, this one too; the newest last. */
  readonly keys: readonly KnownKey[];
}

interface KeyDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly clock: Clock;
}

function unusable(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_LEDGER_KEY', source: 'runtime', message, mend, cause });
}

/** Opens the key in `folder` and the list beside it; makes them where the node has none yet. Errors: ECLUSE_LEDGER_KEY, and nothing is overwritten. */
export async function openLedgerKeys(folder: string, deps: KeyDeps): Promise<LedgerKeys> {
  const { sql, clock } = deps;
  const file = join(folder, KEY_FILE);
  const known = await readSetting(sql, KEY_SETTING);
  const kept = await readPrivateFile(file, WHAT, unusable);
  const listed = await readList(join(folder, LIST_FILE));
  if (kept === undefined && known !== undefined) throw unusable(`${WHAT} is missing: there is no ${file}`, RESTORE);
  const key = kept === undefined ? await makeKey(folder, file) : parseKey(file, kept);
  if (known !== undefined && known !== key.id) throw unusable(`${WHAT} is another one: ${file} has not signed before`, RESTORE);
  const stored = await listLedgerKeys(sql);
  if (!stored.some(({ id }) => id === key.id)) await addLedgerKey(sql, key, clock.nowMs());
  const keys = await keepList(join(folder, LIST_FILE), { listed, stored, key }, deps);
  if (known === undefined) await writeSetting(sql, KEY_SETTING, key.id);
  return { key, keys };
}

function parseKey(file: string, pem: string): LedgerKey {
  try {
    const privateKey = createPrivateKey(pem);
    if (privateKey.asymmetricKeyType === 'ed25519') return ledgerKeyOf(privateKey);
  } catch (error) {
    throw unusable(`${WHAT} is damaged: ${file} is no private key (${reasonOf(error)})`, RESTORE, error);
  }
  throw unusable(`${WHAT} is of another kind: ${file} is no Ed25519 key`, RESTORE);
}

async function makeKey(folder: string, file: string): Promise<LedgerKey> {
  const { privateKey } = generateKeyPairSync('ed25519');
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  await createFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), FILE_MODE);
  return ledgerKeyOf(privateKey);
}

/** Undefined: there is none. */
async function readList(file: string): Promise<readonly KnownKey[] | undefined> {
  const text = await readPrivateFile(file, WHAT_LIST, unusable);
  if (text === undefined) return undefined;
  const { keys } = parseList(file, text);
  const other = keys.find((one) => !isNamedRight(one));
  if (other !== undefined)
    throw unusable(`${WHAT_LIST} is damaged: in ${file} the id ${other.id} is not that of its key`, RESTORE_LIST);
  return keys;
}

function parseList(file: string, text: string): z.output<typeof listSchema> {
  try {
    return listSchema.parse(JSON.parse(text));
  } catch (error) {
    throw unusable(`${WHAT_LIST} is damaged: ${file} is not what was written`, RESTORE_LIST, error);
  }
}

function isNamedRight({ id, publicKey }: KnownKey): boolean {
  try {
    return keyIdOf(createPublicKey(publicKey)) === id;
  } catch {
    return false;
  }
}

interface Known {
  readonly listed: readonly KnownKey[] | undefined;
  readonly stored: readonly KnownKey[];
  readonly key: LedgerKey;
}

/** The list with this key in it. Where there is none the store is believed, once: nodes from before kept none. */
async function keepList(file: string, { listed, stored, key }: Known, { log, clock }: KeyDeps): Promise<readonly KnownKey[]> {
  const before = listed ?? stored.filter(isNamedRight);
  if (listed?.some(({ id }) => id === key.id) === true) return listed;
  const isThere = before.some(({ id }) => id === key.id);
  const keys = isThere ? before : [...before, { id: key.id, publicKey: key.publicKey, sinceMs: clock.nowMs() }];
  const text = `${JSON.stringify({ keys }, undefined, 2)}\n`;
  if (listed !== undefined) {
    await replaceFile(file, text, FILE_MODE);
    return keys;
  }
  await createFile(file, text, FILE_MODE);
  if (stored.length > 0)
    log.warn(
      { file, keys: keys.map((one) => one.id) },
      'there was no list of the keys that the ledger was signed with: it was made of what the store says; compare it with what tenants were told',
    );
  return keys;
}
