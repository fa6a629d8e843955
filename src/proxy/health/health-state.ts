/**
 * Whether an endpoint is healthy, from one check to the next. Pure.
 *
 * LIFECYCLE   healthy ──`unhealthyAfter` checks in a row fail──▶ unhealthy ──`healthyAfter` checks in a row pass──▶ healthy
 *
 * It begins healthy: a service that is new, or a node that starts, serves at once.
 */
import type { HealthCheck } from '#routing/route-table.ts';

/** What one check found. */
export type CheckOutcome = { readonly kind: 'passed' } | { readonly kind: 'failed'; readonly reason: string };

export interface HealthState {
  readonly isHealthy: boolean;
  /** Checks in a row, up to the last one, that said the contrary of `isHealthy`. */
  readonly against: number;
  /** Why the last check that failed did; empty: none did since the last that passed. */
  readonly reason: string;
  /** Since when it is what it is, and when it was checked last, in ms since 1970; 0: not yet. */
  readonly sinceMs: number;
  readonly checkedMs: number;
}

export function newHealth(nowMs: number): HealthState {
  return { isHealthy: true, against: 0, reason: '', sinceMs: nowMs, checkedMs: 0 };
}

/** As somebody else found it, before the first check of our own. */
export function inheritedHealth(nowMs: number): HealthState {
  return { ...newHealth(nowMs), isHealthy: false, reason: 'found by the primary before this one' };
}

/** For a check that is another one now: what it was found to be stays, what was counted does not. */
export function recounted(state: HealthState): HealthState {
  return { ...state, against: 0 };
}

export function healthAfter(
  state: HealthState,
  outcome: CheckOutcome,
  check: Pick<HealthCheck, 'healthyAfter' | 'unhealthyAfter'>,
  nowMs: number,
): HealthState {
  const passed = outcome.kind === 'passed';
  const against = passed === state.isHealthy ? 0 : state.against + 1;
  const seen = { reason: passed ? '' : outcome.reason, checkedMs: nowMs };
  if (against < (state.isHealthy ? check.unhealthyAfter : check.healthyAfter)) {
    // One pass of one that is unhealthy does not yet say that what was wrong is right.
    const reason = passed && !state.isHealthy ? state.reason : seen.reason;
    return { ...state, ...seen, reason, against };
  }
  return { ...seen, isHealthy: !state.isHealthy, against: 0, sinceMs: nowMs };
}
