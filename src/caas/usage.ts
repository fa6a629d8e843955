/** Sums of the ledger. Pure. Sums are bigint: byte·ms of a month exceed 53 bits, and of a large tenant 63. */
import { joinSpans } from '#state/usage-rollups.ts';
import type { UsageSum } from '#state/usage-rollups.ts';

export type UsageGrouping = 'container' | 'tenant' | 'host' | 'hour';
export type UsageTotal = UsageSum;

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
