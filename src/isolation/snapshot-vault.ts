/**
 * Snapshots at rest: memory of tenants' programs, which holds their secrets. Each is a directory of sealed files below DATA/snapshots.
 *
 * A file is a sequence of pieces, each sealed by AES-256-GCM under a key of the snapshot alone (HKDF of the node's key with tenant and id), with the
 * number of the piece as nonce, and the file's name and whether it is the last one as associated data. So pieces cannot be exchanged, left out or cut off
 * without being noticed. A key is used for one snapshot only, and its files differ in their nonces' first byte: no nonce repeats.
 * Sources: NIST SP 800-38D (8.2.1, deterministic construction), RFC 5869.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { EcluseError, codeOf, reasonOf } from '#errors';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const PIECE_BYTES = 1024 * 1024;
const SEALED_PIECE_BYTES = PIECE_BYTES + TAG_BYTES;
/** A nonce tells 255 files apart; an image is three, and an archive of files is one for each volume and one for the rest. */
const FILES_MAX = 255;

export interface VaultEntry {
  readonly tenant: string;
  readonly id: string;
}

export class SnapshotVault {
  readonly #folder: string;
  readonly #nodeKey: Buffer;

  private constructor(folder: string, nodeKey: Buffer) {
    this.#folder = folder;
    this.#nodeKey = nodeKey;
  }

  /** Makes the node's key at its first use. Losing the key file means losing every snapshot. */
  static async open(folder: string): Promise<SnapshotVault> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = join(folder, 'node.key');
    try {
      await writeFile(file, randomBytes(KEY_BYTES), { mode: 0o600, flag: 'wx', flush: true });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
    const nodeKey = await readFile(file);
    if (nodeKey.length === KEY_BYTES) return new SnapshotVault(folder, nodeKey);
    throw new EcluseError({
      code: 'ECLUSE_SNAPSHOT_KEY_INVALID',
      source: 'config',
      message: `${file} is no key of ${String(KEY_BYTES)} bytes`,
      mend: 'put it back from a backup; if there is none, remove it together with the snapshots beside it, whose containers then start anew',
    });
  }

  /** Keeps all files of directories, whose names differ, whole or not at all. Returns the bytes on disk. */
  async seal(entry: VaultEntry, ...directories: readonly string[]): Promise<number> {
    const places = new Map<string, string>();
    for (const directory of directories) for (const name of await readdir(directory)) places.set(name, join(directory, name));
    const names = [...places].toSorted(([one], [other]) => (one < other ? -1 : 1));
    if (names.length > FILES_MAX) throw new Error(`a snapshot of ${String(names.length)} files cannot be sealed`);
    const unfinished = join(this.#folder, `${entry.id}.unfinished`);
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished, { mode: 0o700 });
    let bytes = 0;
    try {
      for (const [index, [name, place]] of names.entries()) {
        await using from = await open(place, 'r');
        await using to = await open(join(unfinished, name), 'wx', 0o600);
        bytes += await sealFile(this.#keyOf(entry), { from, to, name, index });
        await to.sync();
      }
      await rename(unfinished, this.#placeOf(entry.id));
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true }); // The disk may be full.
      throw error;
    }
    return bytes;
  }

  /**
   * Writes the files of a snapshot, or those that are wanted, into a fresh directory. Fails, and leaves nothing, where anything of them is not as it was
   * sealed.
   */
  async unseal(entry: VaultEntry, directory: string, isWanted: (name: string) => boolean = () => true): Promise<void> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true, mode: 0o700 });
    try {
      const names = (await readdir(this.#placeOf(entry.id))).toSorted();
      for (const [index, name] of names.entries()) {
        if (!isWanted(name)) continue;
        await using from = await open(join(this.#placeOf(entry.id), name), 'r');
        await using to = await open(join(directory, name), 'wx', 0o600);
        await unsealFile(this.#keyOf(entry), { from, to, name, index });
      }
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw new EcluseError({
        code: 'ECLUSE_SNAPSHOT_UNREADABLE',
        source: 'runtime',
        message: `the snapshot ${entry.id} cannot be read: ${reasonOf(error)}`,
        mend: 'look at the disk; a container whose memory is lost can be started anew: docker restart',
        cause: error,
      });
    }
  }

  async remove(id: string): Promise<void> {
    await rm(this.#placeOf(id), { recursive: true, force: true });
  }

  /** Removes what no snapshot of the store has: left by a crash. */
  async keepOnly(ids: ReadonlySet<string>): Promise<readonly string[]> {
    const strangers = (await readdir(this.#folder)).filter((name) => name !== 'node.key' && !ids.has(name));
    for (const name of strangers) await rm(join(this.#folder, name), { recursive: true, force: true });
    return strangers;
  }

  #placeOf(id: string): string {
    return join(this.#folder, id);
  }

  #keyOf({ tenant, id }: VaultEntry): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#nodeKey, id, `ecluse snapshot of ${tenant}`, KEY_BYTES));
  }
}

interface Passage {
  readonly from: FileHandle;
  readonly to: FileHandle;
  readonly name: string;
  readonly index: number;
}

function nonceOf(file: number, piece: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt8(file, 0);
  nonce.writeUInt32BE(piece, NONCE_BYTES - 4);
  return nonce;
}

function boundTo(name: string, isLast: boolean): Buffer {
  return Buffer.from(`${isLast ? 'last' : 'more'} ${name}`);
}

/** Fills `piece` from the file's place. Returns the bytes that there were. */
async function readPiece(from: FileHandle, piece: Buffer, at: number): Promise<number> {
  let filled = 0;
  while (filled < piece.length) {
    const { bytesRead } = await from.read(piece, filled, piece.length - filled, at + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

async function sealFile(key: Buffer, { from, to, name, index }: Passage): Promise<number> {
  const { size } = await from.stat();
  const pieces = Math.max(1, Math.ceil(size / PIECE_BYTES));
  const plain = Buffer.allocUnsafe(PIECE_BYTES);
  let written = 0;
  for (let piece = 0; piece < pieces; piece += 1) {
    const bytes = await readPiece(from, plain, piece * PIECE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(index, piece));
    cipher.setAAD(boundTo(name, piece === pieces - 1));
    const sealed = Buffer.concat([cipher.update(plain.subarray(0, bytes)), cipher.final(), cipher.getAuthTag()]);
    await to.writeFile(sealed);
    written += sealed.length;
  }
  return written;
}

async function unsealFile(key: Buffer, { from, to, name, index }: Passage): Promise<void> {
  const { size } = await from.stat();
  const pieces = Math.max(1, Math.ceil(size / SEALED_PIECE_BYTES));
  const sealed = Buffer.allocUnsafe(SEALED_PIECE_BYTES);
  for (let piece = 0; piece < pieces; piece += 1) {
    const bytes = await readPiece(from, sealed, piece * SEALED_PIECE_BYTES);
    if (bytes < TAG_BYTES) throw new Error(`${name} was cut off`);
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(index, piece), { authTagLength: TAG_BYTES });
    decipher.setAAD(boundTo(name, piece === pieces - 1));
    decipher.setAuthTag(sealed.subarray(bytes - TAG_BYTES, bytes));
    const plain = decipher.update(sealed.subarray(0, bytes - TAG_BYTES));
    decipher.final(); // Throws where the piece is not as it was sealed.
    await to.writeFile(plain);
  }
}
