/** The images that are made of this machine's programs: the same every time, and what is in them runs. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { extract } from 'tar-stream';
import { expect, test } from 'vitest';
import { runCommand } from '#command';
import { writeDemoImage } from '../../../src/demo-image.ts';
import { writeBusyboxImage } from '../../support/busybox-image.ts';
import { startHello } from '../../support/hello-app.ts';
import { imageArchive } from '../../support/image-archive.ts';

async function scratchFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'ecluse-test-image-'));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true });
    },
  };
}

/** Writes an image twice, once to a file and once to a stream, and unpacks it. */
async function unpacked(write: (target: Writable | string) => Promise<void>, folder: string): Promise<string> {
  const file = join(folder, 'image.tar');
  await write(file);
  const hash = createHash('sha256');
  await write(hash);
  expect(
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex'),
  ).toBe(hash.digest('hex'));
  const root = join(folder, 'root');
  await runCommand('mkdir', [root]);
  await runCommand('tar', ['-xpf', file, '-C', root]);
  return root;
}

test('writeDemoImage() writes the same tar every time, and the app in it runs as its own user', async () => {
  await using scratch = await scratchFolder();
  const root = await unpacked(writeDemoImage, scratch.path);
  await using app = await startHello({}, ['chroot', '--userspec=1000:1000', root, '/usr/local/bin/node', '/app/hello.js']);
  expect(await (await fetch(`${app.url}/count`)).json()).toMatchObject({ count: 1 });
  expect(await runCommand('chroot', [root, '/usr/local/bin/node', '--version'])).toBe(`${process.version}\n`);
  expect(await runCommand('chroot', [root, '/bin/sh', '-c', 'id -u app; stat -c %a /tmp'])).toBe('1000\n1777\n');
});

test('writeDemoImage() fails, and ends, when its target does', async () => {
  await expect(writeDemoImage('/nowhere/image.tar')).rejects.toMatchObject({ code: 'ENOENT' });
  let writes = 0;
  const target = new Writable({
    write: (_chunk, _encoding, done) => {
      writes += 1;
      done(writes > 3 ? new Error('the engine went away') : null);
    },
  });
  await expect(writeDemoImage(target)).rejects.toThrow('the engine went away');
});

test('writeBusyboxImage() writes the same tar every time, and its applets run', async () => {
  await using scratch = await scratchFolder();
  const root = await unpacked(writeBusyboxImage, scratch.path);
  expect(await runCommand('chroot', [root, '/bin/sh', '-c', '/bin/echo hi | /bin/wc -c; /bin/whoami; cd /root; pwd'])).toBe(
    '3\nroot\n/root\n',
  );
});

test('imageArchive() names the layer by what is in it', async () => {
  await using scratch = await scratchFolder();
  const file = join(scratch.path, 'rootfs.tar');
  await writeBusyboxImage(file);
  const rootFs = await readFile(file);
  const entries = new Map<string, Buffer>();
  const reader = extract();
  Readable.from([await imageArchive({ repoTags: ['ecluse-test/busybox:latest'], rootFs, config: { Cmd: ['sh'] } })]).pipe(reader);
  for await (const entry of reader) entries.set(entry.header.name, await buffer(entry));
  const sha256 = createHash('sha256').update(rootFs).digest('hex');
  const [config = '', layer = '', manifest = ''] = entries.keys();
  expect(JSON.parse(String(entries.get(manifest)))).toEqual([
    { Config: config, RepoTags: ['ecluse-test/busybox:latest'], Layers: [layer] },
  ]);
  expect(JSON.parse(String(entries.get(config)))).toMatchObject({
    config: { Cmd: ['sh'] },
    rootfs: { diff_ids: [`sha256:${sha256}`] },
  });
  expect(entries.get(layer)?.equals(rootFs)).toBe(true);
});
