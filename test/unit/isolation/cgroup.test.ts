/** cgroup files, v1 and v2, on a tree of plain files. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { detectCgroups } from '#isolation/cgroup.ts';

let mount = '';

beforeEach(async () => {
  mount = await mkdtemp(join(tmpdir(), 'ecluse-cgroup-'));
});
afterEach(async () => {
  await rm(mount, { recursive: true, force: true });
});

async function put(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(mount, path)), { recursive: true });
    await writeFile(join(mount, path), content);
  }
}

const V1 = {
  'cpuacct/ecluse/t/c/cpuacct.usage': '123456789\n',
  'memory/ecluse/t/c/memory.usage_in_bytes': '1000\n',
  'memory/ecluse/t/c/memory.stat': 'cache 5\ninactive_file 9\ntotal_inactive_file 300\n',
};
const V2 = {
  'cgroup.controllers': 'cpu memory\n',
  'ecluse/t/c/cpu.stat': 'usage_usec 42\nuser_usec 1\n',
  'ecluse/t/c/memory.current': '1000\n',
  'ecluse/t/c/memory.stat': 'file 1\ninactive_file 1200\n',
};

test.each([
  ['v1', { 'cpu/ecluse/cpu.shares': '1024' }, 'cpu/ecluse/cpu.shares', '3072'],
  ['v2', { 'cgroup.controllers': 'cpu\n', 'ecluse/cpu.weight': '100' }, 'ecluse/cpu.weight', '300'],
])('all containers together weigh as much as the processors, %s', async (_, files, file, weight) => {
  await put(files);
  const cgroups = await detectCgroups(mount);
  await cgroups.weigh('/ecluse/host', 3);
  expect(await readFile(join(mount, file), 'utf8')).toBe(weight);
  expect(existsSync(join(mount, dirname(file), 'host'))).toBe(true);
  await cgroups.weigh('/ecluse/host', 1_000_000);
  expect(Number(await readFile(join(mount, file), 'utf8'))).toBeLessThan(1_000_000);
});

describe('usage', () => {
  test('is read from v1 trees', async () => {
    await put(V1);
    const cgroups = await detectCgroups(mount);
    expect(cgroups.version).toBe(1);
    expect(cgroups.usageOf('/ecluse/t/c')).toEqual({ cpuNs: 123_456_789, memoryBytes: 700 });
  });

  test('is read from the v2 tree, and is never below zero', async () => {
    await put(V2);
    const cgroups = await detectCgroups(mount);
    expect(cgroups.version).toBe(2);
    expect(cgroups.usageOf('/ecluse/t/c')).toEqual({ cpuNs: 42_000, memoryBytes: 0 });
    expect(cgroups.usageOf('/ecluse/t/x')).toBeUndefined();
  });

  test('of what does not exist is undefined', async () => {
    for (const files of [V1, V2]) {
      await put(files);
      const cgroups = await detectCgroups(mount);
      expect([cgroups.usageOf('/ecluse/t/x'), await cgroups.identityOf('/ecluse/t/x')]).toEqual([undefined, undefined]);
      await rm(join(mount, 'cgroup.controllers'), { force: true });
    }
  });

  test('that is damaged is an error, not a number', async () => {
    await put({ ...V1, 'cpuacct/ecluse/t/c/cpuacct.usage': 'many\n' });
    const cgroups = await detectCgroups(mount);
    expect(() => cgroups.usageOf('/ecluse/t/c')).toThrow('"many" is no counter');
  });
});

test('a cgroup that is made anew has another identity', async () => {
  await put(V1);
  const cgroups = await detectCgroups(mount);
  const first = await cgroups.identityOf('/ecluse/t/c');
  expect(first).toMatch(/^[0-9a-f-]{36}:\d+$/);
  expect(await cgroups.identityOf('/ecluse/t/c')).toBe(first);
  await mkdir(join(mount, 'cpuacct/ecluse/t/new'));
  expect(await cgroups.identityOf('/ecluse/t/new')).not.toBe(first);
});

describe('limits', () => {
  test('are lifted and come back, in v1 in the order that the kernel takes', async () => {
    const limits = { 'memory/x/memory.limit_in_bytes': '100\n', 'memory/x/memory.memsw.limit_in_bytes': '200\n' };
    await put({ ...V1, ...limits });
    const back = (await detectCgroups(mount)).liftMemoryLimit('/x');
    const read = async (): Promise<readonly string[]> =>
      await Promise.all(Object.keys(limits).map(async (path) => (await readFile(join(mount, path), 'utf8')).trim()));
    expect(await read()).toEqual(['-1', '-1']);
    await back();
    expect(await read()).toEqual(['100', '200']);
  });

  test('are lifted in v2', async () => {
    await put({ ...V2, 'x/memory.max': '100\n' });
    const cgroups = await detectCgroups(mount);
    const back = cgroups.liftMemoryLimit('/x');
    expect(await readFile(join(mount, 'x/memory.max'), 'utf8')).toBe('max');
    await back();
    expect(await readFile(join(mount, 'x/memory.max'), 'utf8')).toBe('100');
    expect(await cgroups.setMemoryLimit('/x', 50)).toBe(true);
    expect(await readFile(join(mount, 'x/memory.max'), 'utf8')).toBe('50');
    expect(await cgroups.setMemoryLimit('/gone', 50)).toBe(true);
  });
});

describe('processes and removal', () => {
  test('cover everything below, each process once', async () => {
    await put({
      'cpuacct/e/a/cgroup.procs': '7\n8\n',
      'cpuacct/e/cgroup.procs': '',
      'memory/e/a/cgroup.procs': '8\n',
      'memory/e/a/b/cgroup.procs': '9\n',
    });
    const pids = await (await detectCgroups(mount)).processesIn('/e');
    expect(new Set(pids)).toEqual(new Set([7, 8, 9]));
    expect(pids).toHaveLength(3);
  });

  test('removal takes children first, and says where something is left', async () => {
    await mkdir(join(mount, 'cpuacct/e/a/b'), { recursive: true });
    await mkdir(join(mount, 'memory'), { recursive: true });
    const cgroups = await detectCgroups(mount);
    expect(await cgroups.remove('/e')).toBe(true);
    expect(await cgroups.remove('/e')).toBe(true);
    await put({ 'memory/e/a/cgroup.procs': '7\n' }); // A plain file keeps its folder, as a process keeps a cgroup.
    expect(await cgroups.remove('/e')).toBe(false);
  });
});
