/** What a directory takes on disk, whatever is in it: by the real program, on real files. */
import { spawnSync } from 'node:child_process';
import { link, mkdir, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BlockReader, DiskWalker } from '#isolation/disk-walk.ts';

const MIB = 1024 * 1024;

let folder: string;
let walker: DiskWalker;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-walk-'));
  walker = new DiskWalker();
});

afterEach(async () => {
  await walker[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function walk(directory = folder, timeoutMs = 20_000): ReturnType<DiskWalker['walk']> {
  return await walker.walk(directory, { timeoutMs, signal: new AbortController().signal });
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
  const walking = walker.walk(folder, { timeoutMs: 20_000, signal: stop.signal });
  stop.abort();
  expect(await walking).toMatchObject({ isWhole: false });
  expect(await walker.walk(folder, { timeoutMs: 20_000, signal: stop.signal })).toMatchObject({ isWhole: false });
  expect(await walk(join(folder, 'gone'))).toBeUndefined();
}, 60_000);

test('one program stands by, of the lowest priority, and takes up after one that was ended', async () => {
  const standing = (): readonly string[] => {
    const { stdout } = spawnSync('ps', ['--ppid', String(process.pid), '-o', 'pid=,ni=,comm='], { encoding: 'utf8' });
    return stdout.split('\n').filter((line) => line.endsWith(' sh'));
  };
  await walk();
  const first = standing();
  await walk();
  expect(standing()).toEqual(first);
  expect(first).toEqual([expect.stringMatching(/^ *\d+ +19 sh$/u)]);
  const groups = await readFile(`/proc/${String(Number.parseInt(first[0] ?? '', 10))}/autogroup`, 'utf8').catch(() => 'none');
  expect(groups).toMatch(/ nice 19\n$|^none$/u);
  process.kill(Number.parseInt(first[0] ?? '', 10), 'SIGKILL');
  expect(await walk()).toMatchObject({ isWhole: true }); // Node has not heard of it.
  const [next = ''] = standing();
  process.kill(Number.parseInt(next, 10), 'SIGKILL');
  const endMs = performance.now() + 5_000;
  while (standing().length > 0 && performance.now() < endMs) await delay(5);
  expect(await walk()).toMatchObject({ isWhole: true });
  expect(standing()).toHaveLength(1);
  expect(standing()).not.toEqual([next]);
  const walking = walk();
  await walker[Symbol.asyncDispose]();
  expect(await walking).toMatchObject({ isWhole: false });
  expect(standing()).toEqual([]);
});

test('one directory at a time, whose name is one line; what is asked for wrongly costs the next one nothing', async () => {
  const walking = walk();
  await expect(walk()).rejects.toThrow('another directory is being looked at');
  expect(await walking).toMatchObject({ isWhole: true });
  await expect(walk(`${folder}\n/etc`)).rejects.toThrow('a line end in its name');
  const named = join(folder, `$(exit 3) "'\\n* `);
  await mkdir(named);
  expect(await walk(named)).toEqual({ bytes: (await stat(named)).blocks * 512, isWhole: true });
});

test('ends with the process that it works for, however that ends', () => {
  const script = `
    import { DiskWalker } from '#isolation/disk-walk.ts';
    import { execFileSync } from 'node:child_process';
    await new DiskWalker().walk('.', { timeoutMs: 5000, signal: new AbortController().signal });
    console.log(execFileSync('pgrep', ['-P', String(process.pid), '-x', 'sh'], { encoding: 'utf8' }).trim());
    process.kill(process.pid, 'SIGKILL');`;
  const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(signal).toBe('SIGKILL');
  expect(Number(stdout)).toBeGreaterThan(1);
  const { status } = spawnSync('timeout', ['10', 'tail', '-f', '/dev/null', `--pid=${stdout.trim()}`]);
  expect(status).toBe(0);
}, 20_000);

test('where no program can be started, that is an error of the walk, and the process goes on', () => {
  const script = `
    import { openSync } from 'node:fs';
    import { DiskWalker } from '#isolation/disk-walk.ts';
    const options = { timeoutMs: 5000, signal: new AbortController().signal };
    const walker = new DiskWalker();
    console.log((await walker.walk('.', options)).isWhole);
    try { for (;;) openSync('/dev/null'); } catch {}
    console.log((await walker.walk('.', options)).isWhole); // It stands by.
    const other = new DiskWalker();
    for (const _ of [1, 2]) console.log(await other.walk('.', options).catch(({ code }) => code));
    await other[Symbol.asyncDispose]();
    await walker[Symbol.asyncDispose]();`;
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync('sh', ['-c', 'ulimit -n 60; exec "$@"', 'sh', ...node], { encoding: 'utf8' });
  expect([stdout, stderr]).toEqual(['true\ntrue\nEMFILE\nEMFILE\n', '']);
}, 20_000);

test('where there is no find, that is an error of the walk', () => {
  const script = `
    import { DiskWalker } from '#isolation/disk-walk.ts';
    await using walker = new DiskWalker();
    console.log(await walker.walk('.', { timeoutMs: 5000, signal: new AbortController().signal }).catch(({ message }) => message));`;
  const bin = join(folder, 'bin');
  const made = spawnSync('sh', ['-c', 'mkdir "$1" && ln -s "$(command -v sh)" "$1/sh"', 'sh', bin]);
  expect(made.status).toBe(0);
  const env = { ...process.env, PATH: bin };
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', env });
  expect(stdout).toContain('there is no program `find`');
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
