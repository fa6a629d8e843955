/** The tar of a `docker cp` into a container. */
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { describe, expect, test } from 'vitest';
import { rewriteArchive } from '#caas/docker-api/archive-rewrite.ts';
import { TenantSlots } from '#caas/docker-api/tenant-slots.ts';
import { runCommand } from '#command';

type Entry = readonly [Partial<Header> & { readonly name: string }, (string | Buffer)?];

async function tarOf(...entries: readonly Entry[]): Promise<Buffer> {
  const writer = pack();
  for (const [header, content] of entries) writer.entry(header, content ?? '');
  writer.finalize();
  return await buffer(writer);
}

async function rewrite(archive: Buffer): Promise<Buffer> {
  const chunks = await Array.fromAsync(rewriteArchive(Readable.from([archive], { objectMode: false })));
  return Buffer.concat(chunks);
}

async function entriesOf(archive: Buffer): Promise<readonly (readonly [Header, string])[]> {
  const reader = extract();
  const read: (readonly [Header, string])[] = [];
  Readable.from([archive], { objectMode: false }).pipe(reader);
  for await (const entry of reader) read.push([entry.header, (await buffer(entry)).toString('utf8')]);
  return read;
}

const FILES: readonly Entry[] = [
  [{ name: 'd/', type: 'directory', mode: 0o750, uid: 5, gid: 6 }],
  [{ name: 'd/file', mode: 0o4755, mtime: new Date(5000), uname: 'me' }, 'content'],
  [{ name: `d/${'long'.repeat(60)}`, pax: { 'SCHILY.xattr.user.a': 'b' } }, 'x'],
  [{ name: 'd/link', type: 'symlink', linkname: '../../etc/passwd' }],
  [{ name: 'd/hard', type: 'link', linkname: 'd/file' }],
  [{ name: 'd/pipe', type: 'fifo' }],
  [{ name: 'ünicode' }, ''],
];

describe('rewriteArchive()', () => {
  test('keeps files, links, owners, modes and times', async () => {
    const read = await entriesOf(await rewrite(await tarOf(...FILES)));
    expect(read.map(([{ name, type }, content]) => [name.replace(/\/$/, ''), type, content])).toEqual([
      ['d', 'directory', ''],
      ['d/file', 'file', 'content'],
      [`d/${'long'.repeat(60)}`, 'file', 'x'],
      ['d/link', 'symlink', ''],
      ['d/hard', 'link', ''],
      ['d/pipe', 'fifo', ''],
      ['ünicode', 'file', ''],
    ]);
    expect(read[0]?.[0]).toMatchObject({ mode: 0o750, uid: 5, gid: 6 });
    expect(read[1]?.[0]).toMatchObject({ mode: 0o4755, mtime: new Date(5000), uname: 'me' });
    expect(read[2]?.[0].pax).toMatchObject({ 'SCHILY.xattr.user.a': 'b' });
    expect(read[3]?.[0].linkname).toBe('../../etc/passwd');
  });

  test('takes every compression that Docker takes', async () => {
    const plain = await tarOf([{ name: 'a' }, Buffer.alloc(200_000, 1)]);
    const expected = await rewrite(plain);
    const by = async (program: string): Promise<Buffer> => {
      const text = await runCommand('sh', ['-c', `base64 -d | ${program} -c | base64 -w0`], { input: plain.toString('base64') });
      return Buffer.from(text, 'base64');
    };
    for (const packed of [gzipSync(plain), zstdCompressSync(plain), await by('xz'), await by('bzip2')]) {
      expect(packed.length).toBeLessThan(plain.length);
      expect(await rewrite(packed)).toEqual(expected);
    }
  });

  test.each<readonly [string, Entry, string]>([
    ['a device', [{ name: 'sda', type: 'block-device', devmajor: 8 }], 'sda in the archive is a device'],
    ['a terminal', [{ name: 'tty', type: 'character-device', devmajor: 5 }], 'tty in the archive is a device'],
  ])('refuses %s', async (_what, entry, message) => {
    await expect(rewrite(await tarOf(entry))).rejects.toThrow(message);
  });

  test('refuses a sparse file, which a kilobyte can make a terabyte', async () => {
    const archive = await tarOf([{ name: 'sparse' }, 'x']);
    archive[156] = 'S'.charCodeAt(0);
    archive.fill(' ', 148, 156);
    const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    await expect(rewrite(archive)).rejects.toThrow('is of a kind that is not supported');
    const read = await entriesOf(
      await rewrite(await tarOf([{ name: 'a', pax: { 'GNU.sparse.realsize': '1099511627776', 'GNU.sparse.major': '1' } }, 'x'])),
    );
    expect(read[0]?.[0].pax ?? {}).toEqual({});
  });

  test('refuses what is cut off or no tar at all', async () => {
    const whole = await tarOf([{ name: 'a' }, Buffer.alloc(5000)]);
    for (const broken of [
      whole.subarray(0, 3000),
      gzipSync(whole).subarray(0, 60),
      Buffer.alloc(2000, 7),
      Buffer.from('BZh9nothing'),
    ]) {
      await expect(rewrite(broken)).rejects.toThrow('Error processing tar file(exit status 1)');
    }
  });

  test('takes an empty archive', async () => {
    expect(await entriesOf(await rewrite(await tarOf()))).toEqual([]);
  });
});

test('TenantSlots lets so many run, and the rest in their order', async () => {
  const slots = new TenantSlots(2);
  const log: string[] = [];
  const job = async (tenant: string, name: string, ms: number): Promise<void> => {
    await slots.run(tenant, new AbortController().signal, async () => {
      log.push(`+${name}`);
      await delay(ms);
      log.push(`-${name}`);
    });
  };
  await Promise.all([job('a', '1', 20), job('a', '2', 60), job('a', '3', 20), job('b', '4', 5), job('a', '5', 1)]);
  expect(log).toEqual(['+1', '+2', '+4', '-4', '-1', '+3', '-3', '+5', '-5', '-2']);
  expect(
    await Promise.allSettled([slots.run('a', AbortSignal.abort(), async () => await Promise.reject(new Error('ran')))]),
  ).toEqual([{ status: 'fulfilled', value: undefined }]);
});
