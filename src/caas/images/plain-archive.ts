/** Archives that clients send: taken plain, with gzip or with zstd, and counted after decompression, so that a small upload is no large one. */
import { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Gunzip, ZstdDecompress } from 'node:zlib';
import { EcluseError, reasonOf } from '#errors';
import { bufferOf } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { PieceStream } from './piece-stream.ts';

/** The largest images in use are some ten gigabytes; the engine's disk is shared. */
export const ARCHIVE_BYTES_MAX = 32 * 1024 ** 3;

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
  const words = isCut
    ? 'unexpected EOF'
    : reason.startsWith('Invalid tar header')
      ? 'archive/tar: invalid tar header'
      : undefined;
  return words === undefined ? undefined : `Error processing tar file(exit status 1): ${words}`;
}

/** What the first bytes of a file say about its compression. */
export function compressionOf(head: Uint8Array): Compression {
  return MAGIC.find(([, magic]) => magic.every((byte, index) => head[index] === byte))?.[0] ?? 'none';
}

export function decompressorFor(compression: 'gzip' | 'zstd'): Gunzip | ZstdDecompress {
  return compression === 'gzip' ? createGunzip() : createZstdDecompress();
}

/** The first bytes of a stream, which stay in it. */
async function headOf(source: Readable): Promise<{ readonly head: Buffer; readonly whole: Readable }> {
  const first: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of source.iterator({ destroyOnReturn: false })) {
    first.push(bufferOf(chunk));
    bytes += first.at(-1)?.length ?? 0;
    if (bytes >= MAGIC_BYTES) break;
  }
  const head = Buffer.concat(first);
  if (bytes < MAGIC_BYTES) return { head, whole: Readable.from([head]) };
  source.unshift(head);
  return { head, whole: source };
}

function decompressed(source: Readable, compression: 'gzip' | 'zstd'): Readable {
  const decompressor = decompressorFor(compression);
  // Not `pipeline`: it would destroy the client's connection, on which the refusal has to go out.
  source.once('error', (error) => decompressor.destroy(error));
  source.once('close', () => {
    if (!source.readableEnded) decompressor.destroy(new Error('the upload was cut off'));
  });
  decompressor.on('error', () => undefined); // Who reads it sees it; nobody may have begun.
  return source.pipe(decompressor);
}

/** The archive itself. Refuses what this node does not decompress: dockerd gives xz to a program that runs as root. */
export async function plainArchive(source: Readable, bytesMax = ARCHIVE_BYTES_MAX): Promise<PieceStream> {
  const { head, whole } = await headOf(source);
  const compression = compressionOf(head);
  if (compression === 'bzip2' || compression === 'xz') {
    const program = compression === 'xz' ? 'xz' : 'bzip2';
    throw dockerError(
      400,
      `ecluse: an archive that is compressed with ${compression} is not taken; decompress it before: ${program} -dc FILE | docker …`,
    );
  }
  let bytes = 0;
  return new PieceStream(compression === 'none' ? whole : decompressed(whole, compression), {
    ownsSource: compression !== 'none',
    onBytes: (count) => {
      bytes += count;
      if (bytes > bytesMax) throw dockerError(413, `ecluse: the archive is larger than ${String(bytesMax)} bytes`);
    },
    // The client's bytes, not the engine: without this it would be told as an engine that does not answer.
    faultOf: (error) => (error instanceof EcluseError ? error : dockerError(400, `the archive is damaged: ${reasonOf(error)}`)),
  });
}
