/** Sums of the ledger. Pure. Sums are bigint: byte·ms of a month exceed 53 bits, and of a large tenant 63. */
import { quantitiesOf } from '#state/ledger.ts';
import type { LedgerRow } from '#state/ledger.ts';
import { joinSpans } from '#state/usage-rollups.ts';
import type { UsageSum } from '#state/usage-rollups.ts';

export type UsageGrouping = 'container' | 'tenant' | 'host' | 'hour';
/** With its container's name. */
export type NamedRow = LedgerRow & { readonly name: string };

export type UsageTotal = UsageSum;

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

/** Totals a group, in order of first use. */
export function sumUsage(rows: readonly NamedRow[], by: UsageGrouping): readonly UsageTotal[] {
  return totalsOfSums(
    rows.map((row) => ({
      ...quantitiesOf(row),
      key: keyOf(row, by),
      tenant: row.tenant,
      name: by === 'container' ? row.name : '',
      fromMs: row.fromMs,
      toMs: row.toMs,
    })),
  );
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
