/** Archives that clients send: taken plain, with gzip or with zstd, and counted after decompression, so that a small upload is no large one. */
import { Readable, Transform } from 'node:stream';
import type { TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Gunzip, ZstdDecompress } from 'node:zlib';
import { EcluseError, reasonOf } from '#errors';
import { chunksOf } from './byte-stream.ts';
import { dockerError } from './docker-api/docker-error.ts';

/** The largest images in use are some ten gigabytes; the engine's disk is shared. */
export const ARCHIVE_BYTES_MAX = 32 * 1024 ** 3;

const PIECE_BYTES = 256 * 1024;

export type Compression = 'none' | 'gzip' | 'zstd' | 'bzip2' | 'xz';

const MAGIC: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b, 0x08]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
];
/** As many as tell. */
export const MAGIC_BYTES = 6;

/** A tar that cannot be read, in the words of Docker's reader; undefined for another fault. */
export function tarFault(error: unknown): string | undefined {
  const reason = reasonOf(error);
  const isCut = /^(?:Unexpected end of data|unexpected end of file)$/.test(reason);
  const words = isCut ? 'unexpected EOF' : reason.startsWith('Invalid tar header') ? 'archive/tar: invalid tar header' : undefined;
  return words === undefined ? undefined : `Error processing tar file(exit status 1): ${words}`;
}

/** What the first bytes of a file say about its compression. */
export function compressionOf(head: Uint8Array): Compression {
  return MAGIC.find(([, magic]) => magic.every((byte, index) => head[index] === byte))?.[0] ?? 'none';
}

export function decompressorFor(compression: 'gzip' | 'zstd'): Gunzip | ZstdDecompress {
  return compression === 'gzip' ? createGunzip() : createZstdDecompress();
}

async function* counted(source: Readable, bytesMax: number): AsyncGenerator<Buffer> {
  let bytes = 0;
  try {
    for await (const chunk of chunksOf(source)) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw dockerError(413, `ecluse: the archive is larger than ${String(bytesMax)} bytes`);
      yield chunk;
    }
  } catch (error) {
    // The client's bytes, not the engine: without this it would be told as an engine that does not answer.
    throw error instanceof EcluseError ? error : dockerError(400, `the archive is damaged: ${reasonOf(error)}`);
  }
}

/**
 * The same bytes in larger pieces: TLS brings 16 KiB at a time, and each piece passes half a dozen queues on its way to the engine (that, not the
 * bytes, was most of what a load cost here).
 */
class Gathering extends Transform {
  #piece = Buffer.alloc(0);
  #bytes = 0;

  constructor() {
    super({ readableHighWaterMark: 4 * PIECE_BYTES });
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#bytes === this.#piece.length) this.#renew();
      const copied = chunk.copy(this.#piece, this.#bytes, at);
      at += copied;
      this.#bytes += copied;
    }
    done();
  }

  override _flush(done: TransformCallback): void {
    done(null, this.#piece.subarray(0, this.#bytes));
  }

  #renew(): void {
    if (this.#bytes > 0) this.push(this.#piece);
    this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
    this.#bytes = 0;
  }
}

function gathered(source: Readable): Readable {
  const pieces = new Gathering();
  // The reader of the pieces sees the same error.
  pipeline(source, pieces).catch(() => undefined);
  return pieces;
}

/** The archive itself. Refuses what this node does not decompress: dockerd gives xz to a program that runs as root. */
export async function plainArchive(source: Readable, bytesMax = ARCHIVE_BYTES_MAX): Promise<Readable> {
  const chunks = chunksOf(gathered(source));
  const head: Buffer[] = [];
  let headBytes = 0;
  while (headBytes < MAGIC_BYTES) {
    const next = await chunks.next();
    if (next.done === true) break;
    head.push(next.value);
    headBytes += next.value.length;
  }
  const whole = Readable.from(
    (async function* joined() {
      yield* head;
      yield* chunks;
    })(),
    { objectMode: false },
  );
  const compression = compressionOf(Buffer.concat(head));
  if (compression === 'bzip2' || compression === 'xz') {
    const program = compression === 'xz' ? 'xz' : 'bzip2';
    throw dockerError(
      400,
      `ecluse: an archive that is compressed with ${compression} is not taken; decompress it before: ${program} -dc FILE | docker …`,
    );
  }
  if (compression === 'none') return Readable.from(counted(whole, bytesMax), { objectMode: false });
  const decompressor = decompressorFor(compression);
  // The reader of the decompressor sees the same error.
  pipeline(whole, decompressor).catch(() => undefined);
  return Readable.from(counted(decompressor, bytesMax), { objectMode: false });
}
