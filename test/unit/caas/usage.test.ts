/** Sums of the ledger. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { sumUsage } from '../../support/sum-usage.ts';
import type { LedgerRow } from '#state/ledger.ts';

type NamedRow = LedgerRow & { readonly name: string };

const HOUR_MS = 3_600_000;

function rowAt(change: Partial<NamedRow> = {}): NamedRow {
  return {
    container: 'c1',
    incarnation: 1,
    seq: 1,
    tenant: 'acme',
    host: 'a',
    name: 'web',
    fromMs: 0,
    toMs: 1000,
    cpuNs: 5,
    memoryByteMs: 7n,
    requests: 1,
    ingressBytes: 2,
    egressBytes: 3,
    heldMs: 4,
    streamMs: 5,
    ...change,
  };
}

describe('sumUsage()', () => {
  test('adds up by container, tenant, host and hour', () => {
    const rows = [
      rowAt(),
      rowAt({ container: 'c2', name: 'db', host: 'b', fromMs: 1000, toMs: HOUR_MS }),
      rowAt({ tenant: 'globex', container: 'c3', fromMs: HOUR_MS, toMs: HOUR_MS + 1 }),
    ];
    expect(sumUsage(rows, 'container').map(({ key, name, tenant }) => [key, name, tenant])).toEqual([
      ['c1', 'web', 'acme'],
      ['c2', 'db', 'acme'],
      ['c3', 'web', 'globex'],
    ]);
    expect(sumUsage(rows, 'tenant')).toMatchObject([
      { key: 'acme', name: '', fromMs: 0, toMs: HOUR_MS, cpuNs: 10n, memoryByteMs: 14n, requests: 2n, heldMs: 8n, streamMs: 10n },
      { key: 'globex' },
    ]);
    expect(sumUsage(rows, 'host')).toMatchObject([
      { key: 'a', tenant: '', egressBytes: 6n },
      { key: 'b', tenant: 'acme' },
    ]);
    expect(sumUsage(rows, 'hour').map(({ key }) => key)).toEqual(['1970-01-01T00:00:00.000Z', '1970-01-01T01:00:00.000Z']);
    expect(sumUsage([], 'tenant')).toEqual([]);
  });

  test('loses nothing, whatever the grouping and the size', () => {
    const row = fc.record({
      container: fc.constantFrom('x', 'y'),
      tenant: fc.constantFrom('t', 'u'),
      host: fc.constantFrom('a', 'b'),
      fromMs: fc.nat(10 * HOUR_MS),
      cpuNs: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      memoryByteMs: fc.bigInt(0n, 2n ** 63n - 1n),
    });
    fc.assert(
      fc.property(fc.array(row), fc.constantFrom('container', 'tenant', 'host', 'hour'), (changes, by) => {
        const rows = changes.map((change) => rowAt(change));
        const totals = sumUsage(rows, by);
        const sum = (values: readonly bigint[]): bigint => values.reduce((total, value) => total + value, 0n);
        expect(sum(totals.map(({ cpuNs }) => cpuNs))).toBe(sum(rows.map(({ cpuNs }) => BigInt(cpuNs))));
        expect(sum(totals.map(({ memoryByteMs }) => memoryByteMs))).toBe(sum(rows.map(({ memoryByteMs }) => memoryByteMs)));
      }),
    );
  });
});
