/** Our tar reader and headers against tar-stream's, however the bytes are cut, and what is damaged. */
import { buffer } from 'node:stream/consumers';
import * as fc from 'fast-check';
import { extract, pack } from 'tar-stream';
import { describe, expect, test } from 'vitest';
import { headerBytes } from '#caas/images/tar-header.ts';
import type { WrittenHeader } from '#caas/images/tar-header.ts';
import { paddingOf, TarReader } from '#caas/images/tar-reader.ts';
import type { TarHeader } from '#caas/images/tar-reader.ts';

interface Read {
  readonly header: TarHeader;
  readonly content: string;
}

/** Reads an archive in pieces whose memory is used for the next one. */
function read(archive: Buffer, pieceBytes: number): readonly Read[] {
  const entries: Read[] = [];
  let header: TarHeader | undefined;
  let content: Buffer[] = [];
  const reader = new TarReader({
    entry: (next) => {
      header = next;
      content = [];
    },
    data: (part) => {
      content.push(Buffer.from(part));
    },
    end: () => {
      if (header !== undefined) entries.push({ header, content: Buffer.concat(content).toString() });
    },
  });
  const memory = Buffer.alloc(pieceBytes);
  for (let at = 0; at < archive.length; at += pieceBytes) {
    const copied = archive.copy(memory, 0, at);
    reader.push(memory.subarray(0, copied));
    memory.fill(0xff);
  }
  reader.finish();
  return entries;
}

async function tar(...entries: readonly (readonly [Parameters<ReturnType<typeof pack>['entry']>[0], string])[]): Promise<Buffer> {
  const packing = pack();
  for (const [header, content] of entries) packing.entry(header, content);
  packing.finalize();
  return await buffer(packing);
}

const mtime = new Date(1_700_000_000_000);

describe('TarReader', () => {
  test('reads what tar-stream writes, however it is cut', async () => {
    const long = `${'d'.repeat(120)}/${'é'.repeat(90)}`;
    const archive = await tar(
      [{ name: 'a', mtime }, 'content'],
      [{ name: 'd', type: 'directory', mtime }, ''],
      [{ name: long, mtime }, 'x'.repeat(1024)],
      [{ name: `${'p'.repeat(90)}/${'q'.repeat(90)}`, mtime }, ''],
      [{ name: 'l', type: 'symlink', linkname: long, mtime }, ''],
      [{ name: 'b', mtime }, 'y'.repeat(513)],
    );
    const expected = [
      ['a', 'file', 'content', ''],
      ['d', 'directory', '', ''],
      [long, 'file', 'x'.repeat(1024), ''],
      [`${'p'.repeat(90)}/${'q'.repeat(90)}`, 'file', '', ''],
      ['l', 'symlink', '', long],
      ['b', 'file', 'y'.repeat(513), ''],
    ];
    for (const pieceBytes of [1, 7, 511, 512, 513, 4096, archive.length]) {
      const entries = read(archive, pieceBytes).map(({ header, content }) => [
        header.name,
        header.type,
        content,
        header.linkname,
      ]);
      expect(entries, String(pieceBytes)).toEqual(expected);
    }
    expect(read(archive, 512)[0]?.header.mtimeSeconds).toBe(1_700_000_000);
  });

  test('GNU’s long names and binary numbers', async () => {
    const name = 'n'.repeat(300);
    const header = (flag: string, size: number, bytes: string): Buffer => {
      const block = headerBytes({ name: '././@LongLink', type: 'file', size, mode: 0o644, mtimeSeconds: 0, linkname: '' });
      block.write(flag, 156);
      block.write('ustar  \0', 257, 'latin1');
      block.fill(0, 329, 512);
      block.fill(0, 124, 136);
      block[124] = 0x80;
      block.writeUInt32BE(size, 132);
      block.fill(' ', 148, 156);
      block.write(
        `${block
          .reduce((sum, byte) => sum + byte, 0)
          .toString(8)
          .padStart(6, '0')}\0 `,
        148,
        'latin1',
      );
      return Buffer.concat([block, Buffer.from(bytes), Buffer.alloc(paddingOf(size))]);
    };
    const archive = Buffer.concat([
      header('L', 301, `${name}\0`),
      header('K', 6, 'target'),
      header('2', 0, ''),
      header('0', 3, 'abc'),
    ]);
    expect(read(archive, 100).map(({ header: { name: own, linkname }, content }) => [own, linkname, content])).toEqual([
      [name, 'target', ''],
      ['././@LongLink', '', 'abc'],
    ]);
  });

  test('what is cut or damaged is refused', async () => {
    const archive = await tar([{ name: 'a'.repeat(200), mtime }, 'content'], [{ name: 'b', mtime }, 'c']);
    for (const cut of [1, 511, 513, 600, 1024, 1600, 2000, 2047, 2049])
      expect(() => read(archive.subarray(0, cut), 512), String(cut)).toThrow('Unexpected end of data');
    const damages: readonly (readonly [number, string, string])[] = [
      [0, 'z', 'checksum'],
      [512, '9', 'PAX'],
      [512, ' ', 'PAX'],
    ];
    for (const [at, text, reason] of damages) {
      const damaged = Buffer.from(archive);
      damaged.write(text, at, 'latin1');
      expect(() => read(damaged, 512), reason).toThrow(new RegExp(`^Invalid tar header: .*${reason}`));
    }
    const tooLarge = headerBytes({ name: 'x', type: 'file', size: 5 * 1024 * 1024, mode: 0, mtimeSeconds: 0, linkname: '' });
    tooLarge.write('x', 156);
    tooLarge.fill(' ', 148, 156);
    tooLarge.write(
      `${tooLarge
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
      'latin1',
    );
    expect(() => read(tooLarge, 512)).toThrow('Header exceeds max size');
  });
});

describe('headerBytes()', () => {
  test('tar-stream reads the same', async () => {
    const header: fc.Arbitrary<WrittenHeader> = fc.record({
      name: fc
        .string({ minLength: 1, maxLength: 250, unit: fc.constantFrom('a', 'b', '/', 'é', '=', ' ', '\n') })
        .map((text) => `n${text}n`),
      type: fc.constantFrom('file', 'directory', 'symlink'),
      size: fc.constant(0),
      mode: fc.constantFrom(0o644, 0o755),
      mtimeSeconds: fc.nat(),
      linkname: fc.constant(''),
    });
    await fc.assert(
      fc.asyncProperty(header, fc.string({ unit: 'grapheme', minLength: 1, maxLength: 150 }), async (fields, link) => {
        const linkname = fields.type === 'symlink' ? link.replaceAll('\0', '') : '';
        const reader = extract();
        reader.end(headerBytes({ ...fields, linkname }));
        for await (const entry of reader) {
          expect(entry.header).toMatchObject({
            name: fields.name,
            type: fields.type,
            mode: fields.mode,
            mtime: new Date(fields.mtimeSeconds * 1000),
            linkname: fields.type === 'symlink' ? linkname : null,
          });
          entry.resume();
        }
      }),
      { numRuns: 200 },
    );
  });

  test('a file of more than eight gigabytes has its size beside', () => {
    const size = 9 * 1024 ** 3;
    const sizes: number[] = [];
    const reader = new TarReader({
      entry: (header) => sizes.push(header.size),
      data: () => undefined,
      end: () => undefined,
    });
    reader.push(headerBytes({ name: 'x', type: 'file', size, mode: 0o644, mtimeSeconds: 0, linkname: '' }));
    expect(sizes).toEqual([size]);
  });
});
