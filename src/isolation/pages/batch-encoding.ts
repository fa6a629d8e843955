/** Pages compressed for the wire, where a sample shows that it pays. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { brokenPeer } from './page-errors.ts';
import { PAGE_BYTES } from './page-hash.ts';

export const encodings = { plain: 0, zstd: 1 } as const;

/** Level 1 shrinks heaps about as far as higher levels do, at several hundred MB/s. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
const SAMPLE_BYTES = 16 * PAGE_BYTES;
/** A gain below this is within what the measurement is wrong by. */
const GAIN_MIN = 0.1;

/** Whether compressing makes a byte arrive sooner. Rates in bytes of content a millisecond; `ratio` is what is left of a byte. Pure. */
export function compressionPays(rates: {
  /** What the wire carries; infinite while nothing ever waited for it. */
  readonly wireBytesPerMs: number;
  readonly compressBytesPerMs: number;
  readonly ratio: number;
}): boolean {
  const plainMs = 1 / rates.wireBytesPerMs;
  return 1 / rates.compressBytesPerMs + rates.ratio / rates.wireBytesPerMs < plainMs * (1 - GAIN_MIN);
}

export interface EncodedBatch {
  readonly encoding: number;
  readonly content: Buffer;
}

/** Encodes pages for a wire of this rate. */
export function encodeBatch(pages: Buffer, wireBytesPerMs: number): EncodedBatch {
  const plain = { encoding: encodings.plain, content: pages };
  if (!Number.isFinite(wireBytesPerMs)) return plain;
  const sample = pages.subarray(0, SAMPLE_BYTES);
  const fromMs = performance.now();
  const left = zstdCompressSync(sample, OPTIONS).length;
  const compressBytesPerMs = sample.length / Math.max(0.001, performance.now() - fromMs);
  if (!compressionPays({ wireBytesPerMs, compressBytesPerMs, ratio: left / sample.length })) return plain;
  const content = zstdCompressSync(pages, OPTIONS);
  return content.length < pages.length ? { encoding: encodings.zstd, content } : plain;
}

/** The pages of a batch, which must be `bytes` long whatever it claims. */
export function decodeBatch(batch: EncodedBatch, bytes: number): Buffer {
  switch (batch.encoding) {
    case encodings.plain: {
      if (batch.content.length !== bytes) throw brokenPeer('pages of another length than they should have');
      return batch.content;
    }
    case encodings.zstd: {
      let pages: Buffer;
      try {
        pages = zstdDecompressSync(batch.content, { maxOutputLength: bytes });
      } catch {
        throw brokenPeer('pages that do not decompress to their length');
      }
      if (pages.length !== bytes) throw brokenPeer('pages that do not decompress to their length');
      return pages;
    }
    default: {
      throw brokenPeer(`pages in an unknown encoding ${String(batch.encoding)}`);
    }
  }
}
