/** Totals from single rows, one after the other: what sums are compared with. */
import { totalsOfSums } from '#caas/usage.ts';
import type { UsageGrouping, UsageTotal } from '#caas/usage.ts';
import { quantitiesOf } from '#state/ledger.ts';
import type { LedgerRow } from '#state/ledger.ts';

type NamedRow = LedgerRow & { readonly name: string };

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
      tenant: by === 'hour' ? '' : row.tenant,
      name: by === 'container' ? row.name : '',
      fromMs: row.fromMs,
      toMs: row.toMs,
    })),
  );
}
