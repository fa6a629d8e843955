/** `docker load` archives: what passes is rewritten, what is odd is refused, and no fault of an archive escapes. */
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import * as fc from 'fast-check';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { describe, expect, test } from 'vitest';
import { rewriteImageArchive } from '#caas/image-archive.ts';

type Entry = readonly [Partial<Header> & Pick<Header, 'name'>, string];

async function tar(...entries: readonly Entry[]): Promise<Buffer> {
  const packing = pack();
  for (const [header, body] of entries) packing.entry(header, body);
  packing.finalize();
  return await buffer(packing);
}

function manifest(...tags: readonly string[]): string {
  return JSON.stringify([{ Config: 'c.json', RepoTags: tags, Layers: ['l.tar'], Other: 1 }]);
}

/** What the engine would read, by name, and the references; or the reason of the refusal. */
async function rewrite(archive: Buffer | Readable, imagesMax = 10): Promise<unknown> {
  const source = Buffer.isBuffer(archive) ? Readable.from([archive]) : archive;
  const rewritten = rewriteImageArchive(source, { rename: (whole) => `engine/${whole}`, imagesMax });
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
    return { files, references: [...(await rewritten.references)] };
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
    const archive = await tar(
      [{ name: 'c.json' }, '{}'],
      [{ name: 'one', type: 'directory' }, ''],
      [{ name: 'one/layer.tar' }, 'layer'],
      [{ name: 'two/layer.tar', type: 'symlink', linkname: '../one/layer.tar' }, ''],
      [{ name: 'repositories' }, '{"x":{}}'],
      [{ name: 'index.json' }, '{}'],
      [{ name: './manifest.json' }, manifest('x:1', 'a.test/b')],
    );
    expect(await rewrite(archive)).toEqual({
      files: {
        'c.json': '{}',
        one: '',
        'one/layer.tar': 'layer',
        'two/layer.tar': '-> ../one/layer.tar',
        'manifest.json': JSON.stringify([
          { Config: 'c.json', Layers: ['l.tar'], RepoTags: ['engine/docker.io/library/x:1', 'engine/a.test/b:latest'] },
        ]),
      },
      references: [
        ['docker.io/library/x:1', 'engine/docker.io/library/x:1'],
        ['a.test/b:latest', 'engine/a.test/b:latest'],
      ],
    });
  });

  test('drops PAX records that name a file for Go only', async () => {
    const pax = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'manifest.json' };
    const archive = await tar([{ name: 'manifest.json' }, '[]'], [{ name: 'harmless', pax }, manifest('x:1')]);
    expect(await rewrite(archive)).toMatchObject({ files: { harmless: manifest('x:1'), 'manifest.json': '[]' }, references: [] });
  });

  test('refuses what has no plain place in an archive', async () => {
    const good: Entry = [{ name: 'manifest.json' }, manifest('x:1')];
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
      ['is no image reference', [[{ name: 'manifest.json' }, manifest('A B')]]],
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
    const archive = await tar([{ name: 'l.tar' }, 'x'.repeat(2000)], [{ name: 'manifest.json' }, manifest('x:1')]);
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
        const refusal = 'the archive is no docker save archive or is damaged: ';
        expect(typeof result === 'string' ? result.slice(0, refusal.length) : refusal).toBe(refusal);
      }),
      { numRuns: 100 },
    );
  });
});
