/**
 * Private keys at rest: sealed by AES-256-GCM with a key of the data directory, each bound to what it belongs to, so that one cannot be put in the place of
 * another without being noticed. What is sealed is in the store, the key beside it: a backup of the store alone gives no key away.
 *
 * A nonce is 96 random bits: 2^32 keys could be sealed before a repeated one becomes likelier than 2^-32 (NIST SP 800-38D, 8.3).
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { createFile } from './atomic-file.ts';
import { readPrivateFile } from './private-file.ts';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CIPHER = 'aes-256-gcm';
const KEY_MODE = 0o600;
const FOLDER_MODE = 0o700;
const KEY_FILE = 'certificates.key';
const WHAT = 'the key that certificates are sealed with';
/** Of the name of a key; it tells keys apart and gives none away. */
const ID_CHARS = 16;

export class KeySeal {
  /** For the process that reads certificates, and nobody else. */
  readonly key: Uint8Array;
  /** Names the key that seals. */
  readonly id: string;

  private constructor(key: Uint8Array) {
    this.key = key;
    this.id = createHmac('sha256', key).update('ecluse name of the key').digest('hex').slice(0, ID_CHARS);
  }

  /**
   * Opens the key in `folder`; makes it where nothing was sealed yet. `sealedBy`: the names of the keys that were sealed with. Errors:
   * ECLUSE_CERTIFICATE_KEY, and nothing is overwritten.
   */
  static async open(folder: string, sealedBy: readonly string[]): Promise<KeySeal> {
    const file = join(folder, KEY_FILE);
    const kept = await readKey(file);
    if (kept === undefined && sealedBy.length > 0) throw unusable(`${WHAT} is missing: there is no ${file}`, RESTORE);
    const seal = new KeySeal(kept ?? (await makeKey(folder, file)));
    if (sealedBy.every((id) => id === seal.id)) return seal;
    throw unusable(`${WHAT} is another one: ${file} does not open them`, RESTORE);
  }

  /** With the key of one that was opened. */
  static of(key: Uint8Array): KeySeal {
    return new KeySeal(key);
  }

  /** Base64. `belongsTo` must be told again to open it. */
  seal(plain: string, belongsTo: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.key, nonce);
    cipher.setAAD(Buffer.from(belongsTo));
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]).toString('base64');
  }

  /** Throws ECLUSE_CERTIFICATE_SEAL where it is not as it was sealed, or belongs to something else. */
  unseal(sealed: string, belongsTo: string): string {
    try {
      const bytes = Buffer.from(sealed, 'base64');
      if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new Error('it was cut off');
      const decipher = createDecipheriv(CIPHER, this.key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(belongsTo));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const plain = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
      return Buffer.concat([plain, decipher.final()]).toString('utf8');
    } catch (error) {
      throw new EcluseError({
        code: 'ECLUSE_CERTIFICATE_SEAL',
        source: 'runtime',
        message: `a private key in the store is not as it was sealed, or not of this certificate: ${reasonOf(error)}`,
        mend: 'add the certificate again: ecluse cert add',
        cause: error,
      });
    }
  }
}

const RESTORE =
  'restore it from a backup; if there is none, the certificates are lost: remove them with sqlite3 DATA/ecluse.db "DELETE FROM certificate", and add them again';

function unusable(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_CERTIFICATE_KEY', source: 'runtime', message, mend, cause });
}

async function readKey(file: string): Promise<Buffer | undefined> {
  const text = (await readPrivateFile(file, WHAT, unusable))?.trim();
  if (text === undefined) return undefined;
  if (/^[0-9a-f]{64}$/.test(text)) return Buffer.from(text, 'hex');
  throw unusable(`${WHAT} is damaged: ${file} is no line of 64 hex digits`, RESTORE);
}

async function makeKey(folder: string, file: string): Promise<Buffer> {
  const key = randomBytes(KEY_BYTES);
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  try {
    await createFile(file, `${key.toString('hex')}\n`, KEY_MODE);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    throw unusable(`another process made ${file} at this moment`, 'start it again, once', error);
  }
  return key;
}
