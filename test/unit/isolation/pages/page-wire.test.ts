import { randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { compressionPays, decodeBatch, encodeBatch, encodings } from '#isolation/pages/batch-encoding.ts';
import { isMountedAt } from '#isolation/memory-folder.ts';
import { failureOfPeer, failureText } from '#isolation/pages/page-errors.ts';
import { PAGE_BYTES } from '#isolation/pages/page-hash.ts';
import { progressOf } from '#isolation/pages/page-source.ts';
import { readExtents, writesPagesInOrder } from '#isolation/pages/sandbox-memory.ts';
import { fullBucket, takeBytes } from '#isolation/pages/token-bucket.ts';

test('over any time a bucket lets through no more than its rate, its burst and one frame', () => {
  const request = fc.record({ bytes: fc.integer({ min: 1, max: 1_100_000 }), pauseMs: fc.nat(200) });
  fc.assert(
    fc.property(
      fc.array(request, { minLength: 1, maxLength: 50 }),
      fc.integer({ min: 1000, max: 1e9 }),
      (requests, bytesPerSecond) => {
        let nowMs = 0;
        let bucket = fullBucket(bytesPerSecond, nowMs);
        let gone = 0;
        for (const { bytes, pauseMs } of requests) {
          nowMs += pauseMs;
          const taken = takeBytes(bucket, { bytes, bytesPerSecond, nowMs });
          bucket = taken.bucket;
          nowMs += taken.waitMs;
          gone += bytes;
          // Each waits until its bytes have been earned.
          expect(gone).toBeLessThanOrEqual((bytesPerSecond * (nowMs + 50)) / 1000 + 1);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('compression is for slow wires and content that shrinks', () => {
  const zstd = { compressBytesPerMs: 400_000, ratio: 0.5 };
  expect(compressionPays({ ...zstd, wireBytesPerMs: 125_000 })).toBe(true);
  expect(compressionPays({ ...zstd, wireBytesPerMs: 1_250_000 })).toBe(false);
  expect(compressionPays({ ...zstd, wireBytesPerMs: Number.POSITIVE_INFINITY })).toBe(false);
  expect(compressionPays({ ...zstd, ratio: 1, wireBytesPerMs: 1 })).toBe(false);
});

test('a wire that is not better is never given compressed pages, a worse one always where a better one is', () => {
  const rate = fc.double({ min: 1, max: 1e7, noNaN: true });
  const ratio = fc.double({ min: 0.01, max: 1.1, noNaN: true });
  fc.assert(
    fc.property(rate, rate, ratio, (wireBytesPerMs, compressBytesPerMs, left) => {
      const pays = compressionPays({ wireBytesPerMs, compressBytesPerMs, ratio: left });
      const paysSlower = compressionPays({ wireBytesPerMs: wireBytesPerMs / 2, compressBytesPerMs, ratio: left });
      expect(pays && !paysSlower).toBe(false);
    }),
    { numRuns: 100 },
  );
});

test('a batch comes back as it was, compressed or not', () => {
  const pages = Buffer.alloc(64 * PAGE_BYTES, 'a page that repeats itself ');
  const plain = encodeBatch(pages, Number.POSITIVE_INFINITY);
  const small = encodeBatch(pages, 1);
  expect([plain.encoding, small.encoding]).toEqual([encodings.plain, encodings.zstd]);
  expect(small.content.length).toBeLessThan(pages.length / 100);
  for (const batch of [plain, small]) expect(decodeBatch(batch, pages.length).equals(pages)).toBe(true);
  expect(encodeBatch(randomBytes(16 * PAGE_BYTES), 1).encoding).toBe(encodings.plain);
});

test('a batch that is shorter or longer than it should be, or no batch at all, is refused', () => {
  const pages = Buffer.alloc(4 * PAGE_BYTES, 1);
  const packed = encodeBatch(pages, 1);
  for (const bytes of [3 * PAGE_BYTES, 5 * PAGE_BYTES]) {
    for (const batch of [packed, { encoding: encodings.plain, content: pages }]) {
      expect(() => decodeBatch(batch, bytes)).toThrow('broken off');
    }
  }
  expect(() => decodeBatch({ encoding: 9, content: pages }, pages.length)).toThrow('unknown encoding');
  expect(() => decodeBatch({ encoding: encodings.zstd, content: randomBytes(100) }, pages.length)).toThrow('broken off');
});

test('extents are ascending pairs, and anything else is none', () => {
  expect(readExtents('0 4096\n8192 12288\n')).toEqual([
    { from: 0, to: 4096 },
    { from: 8192, to: 12_288 },
  ]);
  expect(readExtents('')).toEqual([]);
  for (const text of ['0', '0 0', '8 4', '0 8\n4 12', 'a b', '0 1 2', '-1 3']) expect(readExtents(text)).toBeUndefined();
});

test('pages.img is read while it grows only where the release is known to write it in order', () => {
  expect(writesPagesInOrder({ dateYmd: 20240729 })).toBe(true);
  expect(writesPagesInOrder({ dateYmd: 20260801 })).toBe(false);
  expect(writesPagesInOrder({ dateYmd: undefined })).toBe(false);
});

test('what another node says of a failure is bounded and printable', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 800 }), (text) => {
      const { code, message } = failureOfPeer(text);
      expect(code).toMatch(/^ECLUSE_[A-Z_]+$/);
      expect(message).toMatch(/^[ -~]*$/);
      expect(failureText(failureOfPeer(text)).length).toBeLessThanOrEqual(150);
    }),
    { numRuns: 60 },
  );
  expect(failureOfPeer('ECLUSE_PAGES_NO_ROOM no space left').code).toBe('ECLUSE_PAGES_NO_ROOM');
});

test('progress has an estimate once there is a rate', () => {
  const at = { doneBytes: 25, totalBytes: 100, sentBytes: 5 };
  expect(progressOf({ phase: 'round', round: 2, elapsedMs: 50 }, at)).toEqual({ phase: 'round', round: 2, ...at, etaMs: 150 });
  expect(progressOf({ phase: 'round', round: 2, elapsedMs: 50 }, { ...at, doneBytes: 0 }).etaMs).toBeUndefined();
});

test('what is mounted is told by its whole path', () => {
  const info = '24 1 0:22 / /dev/shm rw - tmpfs none rw\n90 24 0:50 / /dev/shm/a\\040b rw - tmpfs ecluse rw\n';
  expect([isMountedAt(info, '/dev/shm'), isMountedAt(info, '/dev/shm/a b'), isMountedAt(info, '/dev/shm/a')]).toEqual([
    true,
    true,
    false,
  ]);
});
