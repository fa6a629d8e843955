/** Memory that is used again must never be used too early: what is sent is what was hashed. */
import { createHash, randomBytes } from 'node:crypto';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setImmediate as turn } from 'node:timers/promises';
import { extract, pack } from 'tar-stream';
import { describe, expect, test } from 'vitest';
import { rewriteImageArchive } from '#caas/images/image-archive.ts';
import { PieceStream } from '#caas/images/piece-stream.ts';
import { plainArchive } from '#caas/images/plain-archive.ts';

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

const layers = [3_000_000, 1, 262_144, 700_001].map((bytes) => randomBytes(bytes));

async function archiveOf(diffIds: readonly string[]): Promise<Buffer> {
  const packing = pack();
  const whole = buffer(packing);
  packing.entry({ name: 'c.json' }, JSON.stringify({ rootfs: { diff_ids: diffIds } }));
  for (const [index, layer] of layers.entries()) packing.entry({ name: `${String(index)}.tar` }, layer);
  const Layers = layers.map((_layer, index) => `${String(index)}.tar`);
  packing.entry({ name: 'manifest.json' }, JSON.stringify([{ Config: 'c.json', RepoTags: ['x:1'], Layers }]));
  packing.finalize();
  return await whole;
}

/** As TLS brings it. */
function upload(bytes: Buffer): Readable {
  const source = new PassThrough();
  void (async () => {
    for (let at = 0; at < bytes.length; at += 11_000) {
      if (at % 5 === 0) await turn();
      source.write(bytes.subarray(at, at + 11_000));
    }
    source.end();
  })();
  return source;
}

describe('rewriteImageArchive() with memory that is used again', () => {
  test('what arrives is what was sent, for slow readers and quick ones', async () => {
    const archive = await archiveOf(layers.map(sha256));
    for (const isSlow of [false, true]) {
      const rewritten = rewriteImageArchive(await plainArchive(upload(archive)), { imagesMax: 1, nameOf: () => 'e:0' });
      const memories = new Set<ArrayBufferLike>();
      const received: Buffer[] = [];
      for await (const part of rewritten.archive as AsyncIterable<Buffer>) {
        if (isSlow) await turn();
        if (part.buffer instanceof SharedArrayBuffer) memories.add(part.buffer);
        received.push(Buffer.from(part));
        rewritten.onSent(part);
      }
      const reader = extract();
      reader.end(Buffer.concat(received));
      const digests: string[] = [];
      for await (const entry of reader) {
        const content = await buffer(entry);
        if (entry.header.name.endsWith('.tar')) digests.push(sha256(content));
      }
      expect(digests).toEqual(layers.map(sha256));
      expect(await rewritten.images).toHaveLength(1);
      expect(memories.size).toBeGreaterThan(1);
      expect(memories.size).toBeLessThan(12); // Of 16 pieces: some were used again.
    }
  });

  test('a layer that is not what its config says is found, wherever it lies', async () => {
    for (const wrong of layers.keys()) {
      const archive = await archiveOf(layers.map((layer, index) => sha256(index === wrong ? Buffer.from('x') : layer)));
      const rewritten = rewriteImageArchive(await plainArchive(upload(archive)), { imagesMax: 1, nameOf: () => 'e:0' });
      rewritten.archive.on('error', () => undefined).on('data', rewritten.onSent);
      await expect(rewritten.images).rejects.toThrow(`invalid diffID for layer ${String(wrong)}`);
    }
  });

  test('an archive that nobody reads to its end is told so', async () => {
    const archive = await archiveOf(layers.map(sha256));
    const source = upload(archive);
    const rewritten = rewriteImageArchive(await plainArchive(source), { imagesMax: 1, nameOf: () => 'e:0' });
    for await (const part of rewritten.archive) {
      expect(part).toBeInstanceOf(Buffer);
      break;
    }
    await expect(rewritten.images).rejects.toThrow('aborted');
    expect(source.destroyed).toBe(false); // The client's connection, on which the answer goes out.
  });
});

describe('PieceStream', () => {
  test('an upload that is cut off is a fault, and destroying leaves its source', async () => {
    const cut = new PassThrough();
    const read = buffer(new PieceStream(cut, { faultOf: (error) => new Error(`told: ${String(error)}`) }));
    cut.write('x');
    cut.destroy();
    await expect(read).rejects.toThrow('told: Error: the upload was cut off');
    const refused = new PassThrough();
    const pieces = new PieceStream(refused, {
      onBytes: () => {
        throw new Error('too much');
      },
    });
    refused.write('x');
    await expect(buffer(pieces)).rejects.toThrow('too much');
    expect(refused.destroyed).toBe(false);
  });

  test('a source that nobody reads from is not read ahead of its bound', async () => {
    let given = 0;
    const source = new Readable({
      read(): void {
        given += 65_536;
        this.push(Buffer.alloc(65_536));
      },
    });
    const pieces = new PieceStream(source);
    pieces.once('readable', () => undefined);
    for (let turns = 0; turns < 200; turns += 1) await turn();
    expect(given).toBeGreaterThan(0);
    expect(given).toBeLessThan(2 * 1024 * 1024);
    pieces.destroy();
    source.destroy();
  });
});
