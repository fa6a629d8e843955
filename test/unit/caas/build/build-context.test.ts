import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { CONTEXT_LIMITS, ENGINE_DOCKERFILE, rewriteContext } from '#caas/build/build-context.ts';
import type { ContextLimits } from '#caas/build/build-context.ts';

type Entry = readonly [Partial<Header> & { readonly name: string }, string?];

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const archive = pack();
  for (const [header, content] of entries) archive.entry(header, content ?? '');
  archive.finalize();
  return await buffer(archive);
}

interface Options {
  readonly dockerfile?: string;
  readonly limits?: Partial<ContextLimits>;
}

/** What the engine gets: paths with their content or what they link to. The Dockerfile comes in capitals. */
async function rewritten(archive: Buffer, options: Options = {}): Promise<readonly (readonly [string, string])[]> {
  // In pieces, as a connection brings it.
  const pieces = Array.from({ length: Math.ceil(archive.length / 700) }, (_, index) =>
    archive.subarray(index * 700, (index + 1) * 700),
  );
  const context = rewriteContext(Readable.from(pieces), {
    dockerfile: options.dockerfile ?? 'Dockerfile',
    limits: { ...CONTEXT_LIMITS, ...options.limits },
    rewrite: async (dockerfile, name) => await Promise.resolve(`${name}: ${dockerfile.toString('utf8').toUpperCase()}`),
  });
  const whole = await buffer(context);
  const found: (readonly [string, string])[] = [];
  for await (const entry of Readable.from([whole]).pipe(extract())) {
    const content = (await buffer(Readable.from(entry, { objectMode: false }))).toString('utf8');
    const { name, type, linkname } = entry.header;
    found.push([name, type === 'file' ? content : type === 'directory' ? type : `${type} ${linkname}`]);
  }
  return found;
}

const OURS = ['.dockerignore', `.dockerignore\n${ENGINE_DOCKERFILE}\n`] as const;

describe('a build context on its way to the engine', () => {
  it('passes its entries, and has the rewritten Dockerfile at its end', async () => {
    const archive = await tarOf([
      [{ name: './', type: 'directory' }],
      [{ name: 'Dockerfile' }, 'from a'],
      [{ name: './sub/', type: 'directory' }],
      [{ name: 'sub/x', mode: 0o755 }, 'content'],
      [{ name: 'link', type: 'symlink', linkname: '/etc/passwd' }],
      [{ name: 'copy', type: 'link', linkname: './sub/x' }],
    ]);
    const expected = [
      ['sub', 'directory'],
      ['sub/x', 'content'],
      ['link', 'symlink /etc/passwd'],
      ['copy', 'link sub/x'],
      ['Dockerfile', 'from a'],
      OURS,
      [ENGINE_DOCKERFILE, 'Dockerfile: FROM A'],
    ];
    expect(await rewritten(archive)).toEqual(expected);
    expect(await rewritten(gzipSync(archive))).toEqual(expected);
  });

  it('takes the last of several Dockerfiles, as an engine that unpacks them would', async () => {
    const archive = await tarOf([
      [{ name: 'Dockerfile' }, 'one'],
      [{ name: 'hard', type: 'link', linkname: 'Dockerfile' }],
      [{ name: './Dockerfile' }, 'two'],
    ]);
    expect(await rewritten(archive)).toEqual([
      ['hard', 'one'],
      ['Dockerfile', 'two'],
      OURS,
      [ENGINE_DOCKERFILE, 'Dockerfile: TWO'],
    ]);
  });

  it('finds dockerfile where none is named, and a named one anywhere', async () => {
    expect((await rewritten(await tarOf([[{ name: 'dockerfile' }, 'x']]))).at(-1)).toEqual([ENGINE_DOCKERFILE, 'dockerfile: X']);
    const archive = await tarOf([
      [{ name: 'a/b' }, 'x'],
      [{ name: 'Dockerfile' }, 'y'],
    ]);
    expect(await rewritten(archive, { dockerfile: './a/b' })).toEqual([
      ['Dockerfile', 'y'],
      ['a/b', 'x'],
      OURS,
      [ENGINE_DOCKERFILE, 'a/b: X'],
    ]);
  });

  it.each([
    ['Dockerfile', [['.dockerignore', `Dockerfile\n${ENGINE_DOCKERFILE}\n`]]],
    [
      'x\n',
      [
        ['Dockerfile', 'd'],
        ['.dockerignore', `x\n${ENGINE_DOCKERFILE}\n`],
      ],
    ],
    ['.dockerignore\nDockerfile', [OURS]],
    ['*', [OURS]],
  ])('leaves out what the .dockerignore %j excludes of the two files', async (ignore, expected) => {
    const archive = await tarOf([
      [{ name: '.dockerignore' }, ignore],
      [{ name: 'Dockerfile' }, 'd'],
    ]);
    expect(await rewritten(archive)).toEqual([...expected, [ENGINE_DOCKERFILE, 'Dockerfile: D']]);
  });

  it.each<readonly [string, readonly Entry[], Options, string | RegExp]>([
    ['no Dockerfile', [[{ name: 'x' }]], {}, 'Cannot locate specified Dockerfile: Dockerfile'],
    ['a path that climbs', [[{ name: 'a/../../x' }]], {}, /the path a\/\.\.\/\.\.\/x .* is not plain/],
    ['a Dockerfile that climbs', [[{ name: 'x' }]], { dockerfile: '../x' }, /is not plain/],
    ['a Dockerfile that is a link', [[{ name: 'Dockerfile', type: 'symlink', linkname: 'x' }]], {}, /is a link/],
    ['a hard link that climbs', [[{ name: 'x', type: 'link', linkname: '../x' }]], {}, /is not plain/],
    ['a device', [[{ name: 'x', type: 'character-device' }]], {}, /is a device, a pipe or a socket/],
    ['a name of ours', [[{ name: ENGINE_DOCKERFILE }]], {}, /is taken/],
    ['a folder of our name', [[{ name: `${ENGINE_DOCKERFILE}/x` }]], {}, /is taken/],
    ['a root that is no folder', [[{ name: '.', type: 'symlink', linkname: '/etc' }]], {}, /the root of the context/],
    ['too many bytes', [[{ name: 'x' }, 'x'.repeat(11)]], { limits: { bytesMax: 10 } }, /more than 10 bytes/],
    ['too many entries', [[{ name: 'x' }], [{ name: 'y' }]], { limits: { entriesMax: 1 } }, /more than 1 entries/],
    [
      'too long a Dockerfile',
      [[{ name: 'Dockerfile' }, 'x'.repeat(11)]],
      { limits: { textBytesMax: 10 } },
      /Dockerfile has more than 10 bytes/,
    ],
  ])('refuses %s', async (_what, entries, options, message) => {
    // What follows is read no further: a refusal comes at once.
    await expect(rewritten(await tarOf([...entries, [{ name: 'zzz' }, 'z'.repeat(3000)]]), options)).rejects.toThrow(message);
  });

  it('refuses by a header, before what it announces', async () => {
    const archive = pack();
    archive.entry({ name: 'huge', size: 100 * 1024 ** 3 });
    const { promise, resolve } = Promise.withResolvers<unknown>();
    archive.once('data', resolve);
    const never = new Readable({ read: () => undefined });
    never.push(await promise);
    const context = rewriteContext(never, {
      dockerfile: 'Dockerfile',
      limits: CONTEXT_LIMITS,
      rewrite: async () => await Promise.resolve(''),
    });
    await expect(buffer(context)).rejects.toThrow(/more than 2147483648 bytes/);
    // The connection is still to be answered.
    expect(never.destroyed).toBe(false);
  });

  it('says in Docker’s words that an archive is damaged', async () => {
    const archive = await tarOf([[{ name: 'Dockerfile' }, 'x'.repeat(2000)]]);
    const cut = 'unexpected EOF';
    await expect(rewritten(archive.subarray(0, 1500))).rejects.toThrow(cut);
    await expect(rewritten(gzipSync(archive).subarray(0, 40))).rejects.toThrow(cut);
    await expect(rewritten(Buffer.from('FROM busybox\n'.repeat(200)))).rejects.toThrow('archive/tar: invalid tar header');
    await expect(rewritten(Buffer.from('BZh91AY&SY'))).rejects.toThrow(/compressed with gzip/);
  });
});
