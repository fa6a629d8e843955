/** `docker update`. */
import { describe, expect, test } from 'vitest';
import { parseUpdate } from '#caas/spec/container-update.ts';
import type { UpdateResult } from '#caas/spec/container-update.ts';
import { specOf } from '../../support/caas-data.ts';

const MIB = 1024 * 1024;
const spec = specOf({ HostConfig: { Memory: 64 * MIB, NanoCpus: 1e9 } });

function update(body: unknown): Extract<UpdateResult, { kind: 'update' }> {
  const result = parseUpdate(body, spec, 64 * MIB);
  if (result.kind === 'refused') throw new Error(`${String(result.status)} ${result.reason}`);
  return result;
}

describe('parseUpdate()', () => {
  test('changes what is asked for, and leaves the rest', () => {
    const { spec: changed, memoryBytes, engineBody } = update({ Memory: 128 * MIB, CpuShares: 512, nanocpus: 0 });
    expect(memoryBytes).toBe(128 * MIB);
    expect(changed.hostConfig).toMatchObject({ Memory: 128 * MIB, CpuShares: 512, NanoCpus: 1e9 });
    expect(engineBody).toEqual({ Memory: 128 * MIB, MemorySwap: 128 * MIB, CpuShares: 512 });
  });

  test('asks nothing of the engine where nothing is asked for', () => {
    for (const body of [{}, undefined, { Memory: 0, CpusetCpus: '', RestartPolicy: { Name: '' }, Devices: null }]) {
      expect(update(body)).toEqual({ kind: 'update', spec, memoryBytes: 64 * MIB, engineBody: {} });
    }
  });

  test('keeps limits that always hold', () => {
    expect(update({ PidsLimit: -1 }).engineBody).toEqual({ PidsLimit: 4096 });
    expect(update({ PidsLimit: 1e6 }).engineBody).toEqual({ PidsLimit: 4096 });
    expect(update({ PidsLimit: 50 }).engineBody).toEqual({ PidsLimit: 50 });
    expect(update({ MemorySwap: -1 }).engineBody).toEqual({});
    expect(update({ MemoryReservation: 100 * MIB }).engineBody).toEqual({ MemoryReservation: 64 * MIB });
  });

  test('takes restart policies', () => {
    const policy = { Name: 'on-failure', MaximumRetryCount: 3 };
    expect(update({ RestartPolicy: policy }).engineBody).toEqual({ RestartPolicy: policy });
  });

  test.each([
    [{ Memory: 1 }, '400 Minimum memory limit allowed is 64MB'],
    [{ CpusetCpus: '0' }, '403 CpusetCpus is not supported'],
    [{ cgroupparent: '/' }, '403 CgroupParent is not supported'],
    [{ Devices: [{ PathOnHost: '/dev/sda' }] }, '403 Devices is not supported'],
    [{ Memory: 1, memory: 2 }, '403 memory is given twice'],
    [{ RestartPolicy: { Name: 'always', name: 'no' } }, 'given twice'],
    [{ Privileged: true }, '403 Privileged is not supported'],
    [{ NanoCpus: 'x' }, '400 NanoCpus'],
    [{ MemorySwappiness: 60 }, '403 MemorySwappiness is not supported'],
    [[], 'the body must be an object'],
  ])('refuses %j', (body, message) => {
    expect(() => update(body)).toThrow(message);
  });
});
