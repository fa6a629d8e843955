/** Sums of the ledger. Pure. Sums are bigint: byte·ms of a month exceed 53 bits, and of a large tenant 63. */
import type { LedgerRow } from '#state/ledger.ts';
import { joinSpans } from '#state/usage-rollups.ts';

export type UsageGrouping = 'container' | 'tenant' | 'host' | 'hour';
/** With its container's name. */
export type NamedRow = LedgerRow & { readonly name: string };

export interface UsageTotal {
  readonly key: string;
  readonly tenant: string;
  readonly name: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly cpuNs: bigint;
  readonly memoryByteMs: bigint;
  readonly requests: bigint;
  readonly ingressBytes: bigint;
  readonly egressBytes: bigint;
  readonly heldMs: bigint;
  readonly snapshotByteMs: bigint;
}

const HOUR_MS = 3_600_000;

function keyOf(row: LedgerRow, by: UsageGrouping): string {
  switch (by) {
    case 'container':
      return row.container;
    case 'tenant':
      return row.tenant;
    case 'host':
      return row.host;
    case 'hour':
      return new Date(Math.floor(row.fromMs / HOUR_MS) * HOUR_MS).toISOString();
  }
}

function emptyTotal(key: string, row: NamedRow, by: UsageGrouping): UsageTotal {
  return {
    key,
    tenant: row.tenant,
    name: by === 'container' ? row.name : '',
    fromMs: row.fromMs,
    toMs: row.toMs,
    cpuNs: 0n,
    memoryByteMs: 0n,
    requests: 0n,
    ingressBytes: 0n,
    egressBytes: 0n,
    heldMs: 0n,
    snapshotByteMs: 0n,
  };
}

/** Totals a group, in order of first use. */
export function sumUsage(rows: readonly NamedRow[], by: UsageGrouping): readonly UsageTotal[] {
  const totals = new Map<string, UsageTotal>();
  for (const row of rows) {
    const key = keyOf(row, by);
    const before = totals.get(key) ?? emptyTotal(key, row, by);
    totals.set(key, {
      ...before,
      tenant: before.tenant === row.tenant ? row.tenant : '',
      fromMs: Math.min(before.fromMs, row.fromMs),
      toMs: Math.max(before.toMs, row.toMs),
      cpuNs: before.cpuNs + BigInt(row.cpuNs),
      memoryByteMs: before.memoryByteMs + row.memoryByteMs,
      requests: before.requests + BigInt(row.requests),
      ingressBytes: before.ingressBytes + BigInt(row.ingressBytes),
      egressBytes: before.egressBytes + BigInt(row.egressBytes),
      heldMs: before.heldMs + BigInt(row.heldMs),
      snapshotByteMs: before.snapshotByteMs + (row.snapshotByteMs ?? 0n),
    });
  }
  return [...totals.values()];
}

/** Totals of several sources as one: those of one key are added up. */
export function totalsOfSums(sums: readonly UsageTotal[]): readonly UsageTotal[] {
  const totals = new Map<string, UsageTotal>();
  for (const sum of sums) {
    const before = totals.get(sum.key);
    totals.set(
      sum.key,
      before === undefined ? sum : { ...joinSpans(before, sum), tenant: before.tenant === sum.tenant ? sum.tenant : '' },
    );
  }
  return [...totals.values()];
}
