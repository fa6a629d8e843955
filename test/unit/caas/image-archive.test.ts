/** `docker load` archives: what passes is rewritten, what is odd is refused, and no fault of an archive escapes. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { describe, expect, test } from 'vitest';
import { rewriteImageArchive } from '#caas/images/image-archive.ts';
import { plainArchive } from '#caas/images/plain-archive.ts';

type Entry = readonly [Partial<Header> & Pick<Header, 'name'>, string];

async function tar(...entries: readonly Entry[]): Promise<Buffer> {
  const packing = pack();
  for (const [header, body] of entries) packing.entry(header, body);
  packing.finalize();
  return await buffer(packing);
}

function sha256(content: string | Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

/** Of one image whose config is `c.json` and whose layer is `l.tar`. */
function manifest(...tags: readonly string[]): string {
  return JSON.stringify([{ Config: 'c.json', RepoTags: tags, Layers: ['l.tar'], Other: 1 }]);
}

function configOf(...layers: readonly (string | Buffer)[]): string {
  return JSON.stringify({ os: 'linux', rootfs: { type: 'layers', diff_ids: layers.map((layer) => sha256(layer)) } });
}

/** What the engine would read, by name, and the images; or the reason of the refusal. */
async function rewrite(archive: Buffer | Readable, imagesMax = 10): Promise<unknown> {
  const source = Buffer.isBuffer(archive) ? Readable.from([archive]) : archive;
  const rewritten = rewriteImageArchive(source, { nameOf: (index) => `engine:${String(index)}`, imagesMax });
  try {
    const bytes = await buffer(rewritten.archive);
    const files: Record<string, string> = {};
    const reader = extract();
    reader.end(bytes);
    for await (const entry of reader) {
      expect(entry.header.pax).toBeNull();
      files[entry.header.name] =
        entry.header.type === 'symlink' ? `-> ${entry.header.linkname}` : (await buffer(entry)).toString('utf8');
    }
    return { files, images: await rewritten.images };
  } catch (error) {
    return error instanceof Error ? error.message : error;
  }
}

/** As a socket gives it: some at a time, each after a turn of the event loop. */
function inPieces(archive: Buffer): Readable {
  return Readable.from(
    (async function* pieces() {
      for (let at = 0; at < archive.length; at += 64 * 1024) {
        await new Promise(setImmediate);
        yield archive.subarray(at, at + 64 * 1024);
      }
    })(),
  );
}

describe('rewriteImageArchive()', () => {
  test('renames, leaves out what repeats names, and copies the rest', async () => {
    const config = configOf('layer', 'layer');
    const archive = await tar(
      [
        { name: './manifest.json' },
        JSON.stringify([
          { Config: 'c.json', RepoTags: ['x:1', 'a.test/b'], Layers: ['one/layer.tar', 'two/layer.tar'], Parent: 'p' },
        ]),
      ],
      [{ name: 'c.json' }, config],
      [{ name: 'one', type: 'directory' }, ''],
      [{ name: 'one/layer.tar' }, 'layer'],
      [{ name: 'two/layer.tar', type: 'symlink', linkname: '../one/layer.tar' }, ''],
      [{ name: 'repositories' }, '{"x":{}}'],
      [{ name: 'index.json' }, '{}'],
    );
    expect(await rewrite(archive)).toEqual({
      files: {
        'c.json': config,
        one: '',
        'one/layer.tar': 'layer',
        'two/layer.tar': '-> ../one/layer.tar',
        'manifest.json': JSON.stringify([
          { Config: 'c.json', RepoTags: ['engine:0'], Layers: ['one/layer.tar', 'two/layer.tar'] },
        ]),
      },
      images: [
        {
          imageId: sha256(config),
          references: ['docker.io/library/x:1', 'docker.io/a.test/b:latest'].map((name) =>
            name.replace('docker.io/a.test', 'a.test'),
          ),
          engineName: 'engine:0',
        },
      ],
    });
  });

  test('layers must be there and be what their config says, whatever an engine has', async () => {
    const good = configOf('layer');
    const cases: readonly (readonly [string, readonly Entry[]])[] = [
      ['l.tar: no such file or directory', [[{ name: 'c.json' }, good]]],
      [
        'invalid diffID for layer 0: expected sha256:',
        [
          [{ name: 'c.json' }, good],
          [{ name: 'l.tar' }, 'other'],
        ],
      ],
      [
        'invalid diffID',
        [
          [{ name: 'c.json' }, good],
          [{ name: 'l.tar' }, ''],
        ],
      ],
      [
        'layers length mismatch: expected 2, got 1',
        [
          [{ name: 'c.json' }, configOf('layer', 'x')],
          [{ name: 'l.tar' }, 'layer'],
        ],
      ],
      [
        'layers length mismatch: expected 0, got 1',
        [
          [{ name: 'c.json' }, configOf()],
          [{ name: 'l.tar' }, 'layer'],
        ],
      ],
      ['c.json: no such file', [[{ name: 'l.tar' }, 'layer']]],
      [
        'c.json is no image config',
        [
          [{ name: 'c.json' }, 'text'],
          [{ name: 'l.tar' }, 'layer'],
        ],
      ],
      [
        'no such file',
        [
          [{ name: 'c.json' }, good],
          [{ name: 'l.tar', type: 'symlink', linkname: '../../etc/passwd' }, ''],
        ],
      ],
      [
        'is there twice',
        [
          [{ name: 'c.json' }, good],
          [{ name: 'l.tar' }, 'layer'],
          [{ name: 'l.tar' }, 'other'],
        ],
      ],
    ];
    for (const [reason, entries] of cases) {
      expect(await rewrite(await tar(...entries, [{ name: 'manifest.json' }, manifest('x:1')])), reason).toMatch(
        new RegExp(reason),
      );
    }
  });

  test('compressed layers, as newer archives have them, count by what they mean', async () => {
    for (const compress of [gzipSync, zstdCompressSync]) {
      const packing = pack();
      packing.entry({ name: 'c.json' }, configOf('layer'));
      packing.entry({ name: 'l.tar' }, compress(Buffer.from('layer')));
      packing.entry({ name: 'manifest.json' }, manifest('x:1'));
      packing.finalize();
      expect(await rewrite(inPieces(await buffer(packing)))).toMatchObject({ images: [{ imageId: sha256(configOf('layer')) }] });
    }
  });

  test('refuses what has no plain place in an archive', async () => {
    const good: Entry = [{ name: 'manifest.json' }, '[]'];
    const cases: readonly (readonly [string, readonly Entry[]])[] = [
      ['it has no manifest.json', [[{ name: 'x' }, 'x']]],
      ['is not plain', [good, [{ name: 'x/../manifest.json' }, '']]],
      ['is not plain', [good, [{ name: '/manifest.json' }, '']]],
      ['is not plain', [good, [{ name: '././manifest.json' }, '']]],
      ['is not plain', [good, [{ name: 'a//b' }, '']]],
      ['leads through a link', [good, [{ name: 'd', type: 'symlink', linkname: '.' }, ''], [{ name: 'd/manifest.json' }, '']]],
      ['neither a file', [good, [{ name: 'm', type: 'link', linkname: 'manifest.json' }, '']]],
      ['neither a file', [good, [{ name: 'm', type: 'fifo' }, '']]],
      ['JSON', [[{ name: 'manifest.json', type: 'symlink', linkname: 'x' }, '']]],
      ['manifest.json is larger than 4194304 bytes', [[{ name: 'manifest.json' }, `[${' '.repeat(5 * 1024 * 1024)}]`]]],
      [
        'is no image reference',
        [
          [{ name: 'c.json' }, configOf('')],
          [{ name: 'l.tar' }, ''],
          [{ name: 'manifest.json' }, manifest('A B')],
        ],
      ],
      [
        'it has 11 images, and the quota leaves room for 10',
        [[{ name: 'manifest.json' }, JSON.stringify(Array.from({ length: 11 }, () => ({ Config: 'c' })))]],
      ],
    ];
    for (const [reason, entries] of cases) {
      const wanted = new RegExp(`^the archive is no docker save archive or is damaged: .*${reason}`);
      const archive = await tar(...entries);
      expect(await rewrite(archive), reason).toMatch(wanted);
      expect(await rewrite(inPieces(archive)), reason).toMatch(wanted);
    }
  });

  test('a fault is a refusal, wherever the bytes are cut or changed', async () => {
    const layer = 'x'.repeat(2000);
    const archive = await tar(
      [{ name: 'l.tar' }, layer],
      [{ name: 'c.json' }, configOf(layer)],
      [{ name: 'manifest.json' }, manifest('x:1')],
    );
    const refusal =
      /^(?:the archive is no docker save archive or is damaged: .|Error processing tar file\(exit status 1\): (?:unexpected EOF|archive\/tar: invalid tar header)$)/;
    const change = fc.record({
      cut: fc.nat(archive.length),
      at: fc.nat(archive.length - 1),
      byte: fc.nat(255),
      chunk: fc.integer({ min: 1, max: 3000 }),
    });
    await fc.assert(
      fc.asyncProperty(change, async ({ cut, at, byte, chunk }) => {
        const damaged = Buffer.from(archive);
        damaged[at] = byte;
        const chunks: Buffer[] = [];
        for (let from = 0; from < cut; from += chunk) chunks.push(damaged.subarray(from, Math.min(cut, from + chunk)));
        const result = await rewrite(Readable.from(chunks));
        expect(typeof result !== 'string' || refusal.test(result), String(result)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});

describe('plainArchive()', () => {
  const content = Buffer.from('content '.repeat(10_000));
  const read = async (bytes: Buffer, max?: number): Promise<Buffer> =>
    await buffer(await plainArchive(Readable.from([bytes.subarray(0, 3), bytes.subarray(3)]), max));

  test('takes plain, gzip and zstd alike', async () => {
    for (const bytes of [content, gzipSync(content), zstdCompressSync(content)])
      expect((await read(bytes)).equals(content)).toBe(true);
    expect((await buffer(await plainArchive(Readable.from([])))).length).toBe(0);
  });

  test('counts what comes out, and refuses what it does not decompress', async () => {
    await expect(read(gzipSync(content), 1000)).rejects.toThrow('larger than 1000 bytes');
    await expect(read(content, 1000)).rejects.toThrow('larger than 1000 bytes');
    await expect(read(gzipSync(content).subarray(0, 40))).rejects.toThrow('unexpected end of file');
    await expect(read(Buffer.from('BZh91AY&SY'))).rejects.toThrow('bzip2 -dc FILE');
    await expect(read(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0, 0]))).rejects.toThrow('xz -dc FILE');
  });
});
