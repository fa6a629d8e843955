import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ShardedMap } from '#sharded-map';

const key = fc.oneof(fc.constantFrom('a', 'b', 'c', '__proto__', ''), fc.string());
const change = fc.array(fc.tuple(key, fc.option(fc.nat(), { nil: undefined })), { maxLength: 20 });

describe('ShardedMap', () => {
  test('has what a Map has after the same changes, and so has every version before', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
        const versions = [{ map: ShardedMap.empty<number>(), reference: new Map<string, number>() }];
        for (const entries of changes) {
          const before = versions.at(-1);
          if (before === undefined) break;
          const reference = new Map(before.reference);
          for (const [name, value] of entries) {
            if (value === undefined) reference.delete(name);
            else reference.set(name, value);
          }
          versions.push({ map: before.map.with(new Map(entries)), reference });
        }
        for (const { map, reference } of versions) {
          expect(map.size).toBe(reference.size);
          for (const [name, value] of reference) expect(map.get(name)).toBe(value);
          expect([...map.values()].toSorted((one, other) => one - other)).toEqual(
            [...reference.values()].toSorted((one, other) => one - other),
          );
          for (const [name] of changes.flat()) expect(map.get(name)).toBe(reference.get(name));
        }
      }),
    );
  });

  test('spreads hosts evenly: no change copies much', { timeout: 10_000 }, () => {
    const hosts = Array.from(
      { length: 100_000 },
      (_, index) => [`app${String(index)}.tenant${String(index % 97)}.example.com`, index] as const,
    );
    const map = ShardedMap.empty<number>().with(new Map(hosts));
    expect(map.size).toBe(100_000);
    expect(map.largestShard).toBeLessThan(160);
  });

  test('is itself where nothing changes', () => {
    const map = ShardedMap.empty<number>();
    expect(map.with(new Map())).toBe(map);
  });
});
