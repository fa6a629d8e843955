/** Which host takes a container: what rules one out, what decides, and that the record says why. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { place, placementRecord } from '#caas/placement.ts';
import type { HostFacts } from '#caas/placement.ts';

const GIB = 1024 ** 3;

function host(name: string, change: Partial<HostFacts> = {}): HostFacts {
  return {
    name,
    outOfService: undefined,
    memoryBytes: 8 * GIB,
    cpus: 4,
    promisedMemoryBytes: 0,
    usedMemoryBytes: 0,
    usedCpuMilli: 0,
    hasImage: false,
    replicas: 0,
    containers: 0,
    ...change,
  };
}

function chosen(hosts: readonly HostFacts[], volumeHost?: string): string {
  const result = place(hosts, { memoryBytes: GIB, volumeHost }, 1);
  return result.kind === 'placed' ? result.record.host : `refused: ${result.reasons.join('; ')}`;
}

describe('place()', () => {
  test('spreads replicas before it looks at anything else', () => {
    expect(chosen([host('a', { replicas: 1, hasImage: true }), host('b', { usedMemoryBytes: 4 * GIB, containers: 9 })])).toBe(
      'b',
    );
  });

  test('prefers room by measure, room by promise, idle processors and the image, other things equal', () => {
    expect(chosen([host('a', { usedMemoryBytes: 2 * GIB }), host('b')])).toBe('b');
    expect(chosen([host('a', { promisedMemoryBytes: 6 * GIB }), host('b')])).toBe('b');
    expect(chosen([host('a', { usedCpuMilli: 2000 }), host('b')])).toBe('b');
    expect(chosen([host('a'), host('b', { hasImage: true })])).toBe('b');
    expect(chosen([host('a', { containers: 2 }), host('b', { containers: 1 })])).toBe('b');
    expect(chosen([host('a'), host('b')])).toBe('a');
  });

  test('follows volumes, and never an engine that does not answer or a host without memory', () => {
    expect(chosen([host('a'), host('b', { replicas: 5 })], 'b')).toBe('b');
    expect(chosen([host('a', { outOfService: 'its engine does not answer' }), host('b', { replicas: 9 })])).toBe('b');
    expect(chosen([host('a', { usedMemoryBytes: 7.5 * GIB })])).toBe('refused: a: 94 % of its memory is in use');
    expect(chosen([host('a', { promisedMemoryBytes: 15.5 * GIB })])).toMatch(
      /^refused: a: the limits of its containers would add up/,
    );
    expect(chosen([host('a', { outOfService: 'x' })], 'a')).toBe('refused: a: x');
  });

  test('tells why: every host is either considered or ruled out, and the record can be read back', () => {
    const facts = fc.record({
      outOfService: fc.option(fc.constant('it is away'), { nil: undefined }),
      promisedMemoryBytes: fc.integer({ min: 0, max: 20 * GIB }),
      usedMemoryBytes: fc.integer({ min: 0, max: 8 * GIB }),
      usedCpuMilli: fc.integer({ min: 0, max: 8000 }),
      hasImage: fc.boolean(),
      replicas: fc.integer({ min: 0, max: 50 }),
      containers: fc.integer({ min: 0, max: 500 }),
    });
    fc.assert(
      fc.property(fc.array(facts, { minLength: 1, maxLength: 6 }), (list) => {
        const hosts = list.map((change, index) => host(`h${String(index)}`, change));
        const result = place(hosts, { memoryBytes: GIB, volumeHost: undefined }, 1);
        fc.pre(result.kind === 'placed');
        const record = placementRecord.parse(JSON.parse(JSON.stringify(result.record)));
        expect(record.considered.length + record.ruledOut.length).toBe(hosts.length);
        expect(record.host).toBe(record.considered[0]?.host);
        for (const verdict of record.considered) expect(verdict.score).toBeLessThanOrEqual(record.considered[0]?.score ?? 0);
      }),
    );
  });
});
