/** What a directory takes on disk, whatever is in it: by the real program, on real files. */
import { spawnSync } from 'node:child_process';
import { link, mkdir, mkdtemp, open, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BlockReader, walkDisk } from '#isolation/disk-walk.ts';

const MIB = 1024 * 1024;

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-walk-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function walk(directory = folder, timeoutMs = 20_000): ReturnType<typeof walkDisk> {
  return await walkDisk(directory, { timeoutMs, signal: new AbortController().signal });
}

test('counts blocks of files in all directories, each once, and nothing that a link leads to', async () => {
  const outside = await mkdtemp(join(tmpdir(), 'ecluse-walk-'));
  await writeFile(join(outside, 'big'), Buffer.alloc(8 * MIB, 1));
  await mkdir(join(folder, 'a', 'b'), { recursive: true });
  await writeFile(join(folder, 'a', 'one'), Buffer.alloc(3 * MIB, 1));
  await link(join(folder, 'a', 'one'), join(folder, 'a', 'b', 'other name'));
  await symlink(outside, join(folder, 'away'));
  const sparse = await open(join(folder, 'sparse'), 'w');
  await sparse.truncate(1024 * MIB);
  await sparse.close();
  const found = await walk();
  expect(found?.isWhole).toBe(true);
  expect(found?.bytes).toBeGreaterThanOrEqual(3 * MIB);
  expect(found?.bytes).toBeLessThan(3 * MIB + 64 * 1024);
  await rm(outside, { recursive: true });
});

test('is the sum that the kernel says of each file, whatever their names are', async () => {
  const names = ['1\t2', '77\n88', 'é\u{1F40B}', '-rf', 'x'.repeat(200), ' '];
  let sum = 0;
  for (const name of names) {
    await mkdir(join(folder, name));
    await writeFile(join(folder, name, name), Buffer.alloc(20_000, 1));
    for (const path of [join(folder, name), join(folder, name, name)]) sum += (await stat(path)).blocks * 512;
  }
  sum += (await stat(folder)).blocks * 512;
  expect(await walk()).toEqual({ bytes: sum, isWhole: true });
});

test('what it found until its time was over counts, and says that there is more', async () => {
  // As many directories as cannot be looked at in a few milliseconds.
  const made = spawnSync('sh', ['-c', 'cd "$1" && seq 1 20000 | xargs mkdir', 'sh', folder]);
  expect(made.status).toBe(0);
  const whole = await walk();
  const part = await walk(folder, 10);
  expect(whole?.isWhole).toBe(true);
  expect(part?.isWhole).toBe(false);
  expect(part?.bytes).toBeLessThan(whole?.bytes ?? 0);
}, 60_000);

test('is ended with its signal, also one that was given before; a directory that is not there is not known', async () => {
  spawnSync('sh', ['-c', 'cd "$1" && seq 1 20000 | xargs mkdir', 'sh', folder]);
  const stop = new AbortController();
  const walking = walkDisk(folder, { timeoutMs: 20_000, signal: stop.signal });
  stop.abort();
  expect(await walking).toMatchObject({ isWhole: false });
  expect(await walkDisk(folder, { timeoutMs: 20_000, signal: stop.signal })).toMatchObject({ isWhole: false });
  expect(await walk(join(folder, 'gone'))).toBeUndefined();
}, 60_000);

test('where no program can be started, that is an error of the walk, and the process goes on', () => {
  const script = `
    import { openSync } from 'node:fs';
    import { walkDisk } from '#isolation/disk-walk.ts';
    const options = { timeoutMs: 5000, signal: new AbortController().signal };
    console.log((await walkDisk('.', options)).isWhole);
    try { for (;;) openSync('/dev/null'); } catch {}
    console.log(await walkDisk('.', options).catch(({ code }) => code));`;
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync('sh', ['-c', 'ulimit -n 60; exec "$@"', 'sh', ...node], { encoding: 'utf8' });
  expect([stdout, stderr]).toEqual(['true\nEMFILE\n', '']);
}, 20_000);

test('blocks are read whatever pieces they come in', () => {
  const entry = fc.tuple(fc.constantFrom('f', 'd', 'l'), fc.integer({ min: 1, max: 4 }), fc.nat(2 ** 30));
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), fc.array(fc.nat(200), { maxLength: 20 }), (entries, cuts) => {
      const bytes = Buffer.from(entries.map(([kind, names, blocks]) => `${kind}${String(names)} ${String(blocks)}\n`).join(''));
      const reader = new BlockReader();
      const at = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length].toSorted((one, other) => one - other);
      for (const [index, start] of at.entries()) reader.read(bytes.subarray(start, at[index + 1] ?? bytes.length));
      expect(reader.count).toBe(entries.length);
      const blocks = entries.map(([kind, names, all]) => (kind === 'd' ? all : all / names));
      expect(reader.bytes).toBe(Math.round(blocks.reduce((sum, one) => sum + one, 0) * 512));
    }),
  );
});
