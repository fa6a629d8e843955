import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Cgroups } from '#isolation/cgroup.ts';

const CGROUP = '/ecluse/t/acme/c1';

let mount: string;

beforeEach(async () => {
  mount = await mkdtemp('/tmp/cgroup-reader-');
});

afterEach(async () => {
  await rm(mount, { recursive: true });
});

async function v1(cpu: string, memory: string, memoryStat: string): Promise<void> {
  for (const controller of ['cpuacct', 'memory']) await mkdir(join(mount, controller, CGROUP), { recursive: true });
  await writeFile(join(mount, 'cpuacct', CGROUP, 'cpuacct.usage'), cpu);
  await writeFile(join(mount, 'memory', CGROUP, 'memory.usage_in_bytes'), memory);
  await writeFile(join(mount, 'memory', CGROUP, 'memory.stat'), memoryStat);
}

const openFiles = (): number => readdirSync('/proc/self/fd').length;

describe('a reader', () => {
  test('of v1 says what is there, with what is not in use as it was read last', async () => {
    using reader = new Cgroups(1, [], mount).readerOf(CGROUP);
    expect([reader.usage(), reader.memoryBytes(), reader.glance()]).toEqual([undefined, undefined, undefined]);
    await v1(
      '123456789012345\n',
      '5000\n',
      'inactive_file 7\nx_total_inactive_file 9\ntotal_inactive_file 1000\ntotal_active_file 3\n',
    );
    expect(reader.memoryBytes()).toBe(4000);
    expect(reader.usage()).toEqual({ cpuNs: 123_456_789_012_345, memoryBytes: 4000 });
    await v1('123456789012346\n', '6000\n', 'total_inactive_file 9000\n');
    expect([reader.memoryBytes(), reader.glance()]).toEqual([5000, { cpuNs: 123_456_789_012_346, memoryBytes: 5000 }]);
    expect(reader.usage()).toEqual({ cpuNs: 123_456_789_012_346, memoryBytes: 0 });
  });

  test('of v2 as well', async () => {
    await mkdir(join(mount, CGROUP), { recursive: true });
    await writeFile(join(mount, CGROUP, 'cpu.stat'), 'usage_usec 12\nuser_usec 3\n');
    await writeFile(join(mount, CGROUP, 'memory.current'), '500\n');
    await writeFile(join(mount, CGROUP, 'memory.stat'), 'anon 1\ninactive_file 20\n');
    using reader = new Cgroups(2, [mount], mount).readerOf(CGROUP);
    expect(reader.usage()).toEqual({ cpuNs: 12_000, memoryBytes: 480 });
  });

  test.each([
    ['no number', 'much\n', '5000\n', 'total_inactive_file 1\n'],
    ['a sign', '-1\n', '5000\n', 'total_inactive_file 1\n'],
    ['a fraction', '1.5\n', '5000\n', 'total_inactive_file 1\n'],
    ['a word', '1\n', 'max\n', 'total_inactive_file 1\n'],
    ['a number and more', '12 13\n', '5000\n', 'total_inactive_file 1\n'],
    ['nothing', '1\n', '', 'total_inactive_file 1\n'],
    ['no such line', '1\n', '5000\n', 'total_active_file 1\n'],
    ['more than a store holds', '99999999999999999999\n', '5000\n', 'total_inactive_file 1\n'],
  ])('does not believe %s', async (_what, cpu, memory, memoryStat) => {
    await v1(cpu, memory, memoryStat);
    using reader = new Cgroups(1, [], mount).readerOf(CGROUP);
    expect(reader.usage()).toBeUndefined();
    expect(reader.fault === undefined).toBe(memory === '');
  });

  test('says what it cannot know, as far as it is no end', async () => {
    await v1('1\n', '5000\n', 'total_inactive_file 1\n');
    await rm(join(mount, 'memory', CGROUP, 'memory.stat'));
    await mkdir(join(mount, 'memory', CGROUP, 'memory.stat'));
    using reader = new Cgroups(1, [], mount).readerOf(CGROUP);
    expect([reader.usage(), reader.fault]).toEqual([undefined, 'EISDIR']);
  });

  test('finds a cgroup that was made anew after it has let the old one go, and leaves no file open', async () => {
    const before = openFiles();
    {
      await v1('10\n', '100\n', 'total_inactive_file 0\n');
      using reader = new Cgroups(1, [], mount).readerOf(CGROUP);
      expect(reader.usage()?.cpuNs).toBe(10);
      expect(openFiles()).toBe(before + 3);
      for (const controller of ['cpuacct', 'memory']) await rename(join(mount, controller), join(mount, `${controller}-old`));
      reader[Symbol.dispose]();
      expect(reader.usage()).toBeUndefined();
      await v1('20\n', '200\n', 'total_inactive_file 0\n');
      expect(reader.usage()).toEqual({ cpuNs: 20, memoryBytes: 200 });
    }
    expect(openFiles()).toBe(before);
  });
});
