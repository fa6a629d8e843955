/**
 * Holds one archive between a client and an engine. Dockerd locks a container while it packs or unpacks, and we hold its sandbox still: with this both
 * last as long as the disk needs, not as long as the client takes. Small ones stay in memory; a file has no name, so nothing is left after a crash.
 */
import { mkdir, open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { dockerError } from './docker-error.ts';

/** The most that one archive may hold, unpacked. What a container writes by itself has no such limit; this only keeps a typing error from filling the disk. */
export const ARCHIVE_BYTES_MAX = 10 * 1024 ** 3;
const MEMORY_BYTES_MAX = 1024 * 1024;

export class Spool implements AsyncDisposable {
  readonly #folder: string;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #file: FileHandle | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Takes everything that `source` has. */
  async fill(source: AsyncIterable<Buffer>): Promise<void> {
    let memoryBytes = 0;
    for await (const chunk of source) {
      this.#bytes += chunk.length;
      if (this.#bytes > ARCHIVE_BYTES_MAX) throw tooLarge();
      this.#chunks.push(chunk);
      memoryBytes += chunk.length;
      if (memoryBytes <= MEMORY_BYTES_MAX) continue;
      await this.#spill();
      memoryBytes = 0;
    }
    if (this.#file !== undefined) await this.#spill();
  }

  async #spill(): Promise<void> {
    this.#file ??= await openNameless(this.#folder);
    await this.#file.writev(this.#chunks);
    this.#chunks = [];
  }

  /** What was taken, from its beginning. Once. */
  read(): Readable {
    if (this.#file === undefined) return Readable.from(this.#chunks, { objectMode: false });
    return this.#file.createReadStream({ start: 0, autoClose: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#chunks = [];
    await this.#file?.close();
    this.#file = undefined;
  }
}

async function openNameless(folder: string): Promise<FileHandle> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const name = join(folder, randomUUID());
  const file = await open(name, 'wx+', 0o600);
  await rm(name);
  return file;
}

export function tooLarge(): Error {
  return dockerError(
    413,
    `ecluse: the archive holds more than ${String(ARCHIVE_BYTES_MAX / 1024 ** 3)} GiB, the most that one request may carry; copy it in parts`,
  );
}
