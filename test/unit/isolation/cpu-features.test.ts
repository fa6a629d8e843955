/** What /proc/cpuinfo says, and what it must not be taken for. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { missingFeatures, parseCpuInfo, readMachine } from '#isolation/cpu-features.ts';

const TWO = [
  'processor\t: 0',
  'model name\t: Intel(R) Xeon(R) Processor',
  'clflush size\t: 64',
  'flags\t\t: fpu sse2 constant_tsc cpuid_fault avx2 svm ibrs_enhanced',
  '',
  'processor\t: 1',
  'clflush size\t: 64',
  'flags\t\t: fpu sse2 avx2 avx512f svm tsc_known_freq',
  '',
].join('\n');

test('parseCpuInfo() keeps what all processors have, without the words that the kernel made up', () => {
  const cpu = parseCpuInfo(TWO);
  expect([...(cpu?.features ?? [])]).toEqual(['fpu', 'sse2', 'avx2', 'svm']);
  expect(cpu?.cacheLineBytes).toBe(64);
});

test('parseCpuInfo() of an Arm machine has features and no cache line', () => {
  const cpu = parseCpuInfo('processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\n');
  expect([...(cpu?.features ?? [])]).toEqual(['fp', 'asimd', 'evtstrm', 'crc32']);
  expect(cpu?.cacheLineBytes).toBe(0);
});

test('parseCpuInfo() of a text that says nothing is undefined, and lines of no sense are left out', () => {
  for (const text of ['', 'flags', 'flags :', 'flags\t: <b>!', `flags : ${'x '.repeat(20_000)}`]) {
    expect(parseCpuInfo(text)).toBeUndefined();
  }
  expect([...(parseCpuInfo('clflush size : 64e9\nflags : FPU sse2 __proto__')?.features ?? [])]).toEqual(['sse2', '__proto__']);
});

test('parseCpuInfo() takes any text', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (one, other) => {
      const cpu = parseCpuInfo(`${one}\nflags: ${other}\n`);
      return cpu === undefined || cpu.features.size > 0;
    }),
  );
});

test('missingFeatures() names what the target lacks, in order', () => {
  const cpu = (...features: readonly string[]) => ({ features: new Set(features), cacheLineBytes: 64 });
  expect(missingFeatures(cpu('b', 'a', 'c'), cpu('c'))).toEqual(['a', 'b']);
  expect(missingFeatures(cpu('c'), cpu('a', 'c'))).toEqual([]);
});

test('readMachine() knows this machine', async () => {
  const { cpu, pageBytes } = await readMachine();
  expect(cpu.features.size).toBeGreaterThan(3);
  expect(pageBytes % 4096).toBe(0);
});
