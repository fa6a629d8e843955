/** What a file of an image archive is, found out beside its way to the engine. */
import { createHash } from 'node:crypto';
import { ARCHIVE_BYTES_MAX, compressionOf, decompressorFor, MAGIC_BYTES } from './plain-archive.ts';

/** Digests of a compressed file's content, beside its way through. */
class Inflater {
  readonly #stream;
  readonly #hash = createHash('sha256');
  readonly #end: Promise<boolean>;
  readonly #inflated: { bytes: number };

  constructor(compression: 'gzip' | 'zstd', inflated: { bytes: number }) {
    this.#inflated = inflated;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#end = promise;
    this.#stream = decompressorFor(compression);
    this.#stream.on('data', (chunk: Buffer) => {
      inflated.bytes += chunk.length;
      this.#hash.update(chunk);
    });
    this.#stream.once('end', () => {
      resolve(true);
    });
    this.#stream.once('error', () => {
      resolve(false);
    });
  }

  async push(chunk: Buffer): Promise<void> {
    if (this.#inflated.bytes > ARCHIVE_BYTES_MAX)
      throw new TypeError(`its layers are larger than ${String(ARCHIVE_BYTES_MAX)} bytes`);
    const room = Promise.withResolvers<undefined>();
    this.#stream.write(chunk, () => {
      room.resolve(undefined);
    });
    await Promise.race([room.promise, this.#end]);
  }

  /** Undefined for what cannot be decompressed. */
  async digest(): Promise<string | undefined> {
    this.#stream.end();
    return (await this.#end) ? `sha256:${this.#hash.digest('hex')}` : undefined;
  }
}

/**
 * What becomes known of one file on its way: what it means where it is compressed, and its text where it may be a config.
 */
export class FileProbe {
  readonly #mayKeep: boolean;
  readonly #kept: Buffer[] = [];
  readonly #inflated: { bytes: number };
  /** The first bytes, until they say whether the file is compressed. */
  #head: Buffer | undefined = Buffer.alloc(0);
  #inflater: Inflater | undefined;

  /** `inflated`: what compressed files of the same archive have come to. */
  constructor(size: number, { keepMax, inflated }: { readonly keepMax: number; readonly inflated: { bytes: number } }) {
    this.#mayKeep = size > 0 && size <= keepMax;
    this.#inflated = inflated;
  }

  /** Takes what comes next; the bytes must stay as they are until then. */
  async take(part: Buffer): Promise<void> {
    if (this.#mayKeep) this.#kept.push(Buffer.from(part));
    if (this.#head === undefined) {
      await this.#inflater?.push(part);
      return;
    }
    this.#head = Buffer.concat([this.#head, part]);
    if (this.#head.length < MAGIC_BYTES) return;
    const compression = compressionOf(this.#head);
    if (compression === 'gzip' || compression === 'zstd') this.#inflater = new Inflater(compression, this.#inflated);
    await this.#inflater?.push(this.#head);
    this.#head = undefined;
  }

  /** The digest of what it means, where it is compressed. */
  async inflatedDigest(): Promise<string | undefined> {
    return await this.#inflater?.digest();
  }

  /** A config is a JSON object. */
  get text(): string | undefined {
    const bytes = Buffer.concat(this.#kept);
    return bytes[0] === 0x7b ? bytes.toString('utf8') : undefined;
  }
}
