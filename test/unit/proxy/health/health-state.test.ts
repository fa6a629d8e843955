import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { healthAfter, inheritedHealth, newHealth, recounted } from '#proxy/health/health-state.ts';
import type { CheckOutcome, HealthState } from '#proxy/health/health-state.ts';

const PASSED: CheckOutcome = { kind: 'passed' };
const FAILED: CheckOutcome = { kind: 'failed', reason: 'no' };
const CHECK = { unhealthyAfter: 3, healthyAfter: 2 };

function after(state: HealthState, outcomes: readonly boolean[], check = CHECK): readonly HealthState[] {
  const states: HealthState[] = [];
  let now = state;
  for (const [index, passed] of outcomes.entries()) {
    now = healthAfter(now, passed ? PASSED : FAILED, check, index + 1);
    states.push(now);
  }
  return states;
}

/** What the last so many checks say, looked at anew each time. */
function naive(outcomes: readonly boolean[], { unhealthyAfter, healthyAfter }: typeof CHECK): readonly boolean[] {
  let isHealthy = true;
  let since = 0;
  return outcomes.map((_, index) => {
    const needed = isHealthy ? unhealthyAfter : healthyAfter;
    const last = outcomes.slice(Math.max(since, index + 1 - needed), index + 1);
    if (last.length === needed && last.every((passed) => passed !== isHealthy)) {
      isHealthy = !isHealthy;
      since = index + 1;
    }
    return isHealthy;
  });
}

describe('healthAfter()', () => {
  test('says what the last checks in a row say', () => {
    const check = fc.record({ unhealthyAfter: fc.integer({ min: 1, max: 4 }), healthyAfter: fc.integer({ min: 1, max: 4 }) });
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 60 }), check, (outcomes, counts) => {
        const states = after(newHealth(0), outcomes, counts);
        expect(states.map(({ isHealthy }) => isHealthy)).toEqual(naive(outcomes, counts));
        for (const [index, state] of states.entries()) {
          const before = states[index - 1] ?? newHealth(0);
          expect(state.checkedMs).toBe(index + 1);
          expect(state.sinceMs).toBe(state.isHealthy === before.isHealthy ? before.sinceMs : index + 1);
          expect(state.isHealthy || state.reason !== '').toBe(true);
        }
      }),
    );
  });

  test('one check in between begins the count anew', () => {
    const states = after(newHealth(0), [false, false, true, false, false, false, true, false, true, true]);
    expect(states.map(({ isHealthy }) => (isHealthy ? '+' : '-')).join('')).toBe('+++++----+');
  });

  test('keeps why it is unhealthy until it is not', () => {
    const states = after(newHealth(0), [false, false, false, true, true]);
    expect(states.map(({ reason }) => reason)).toEqual(['no', 'no', 'no', 'no', '']);
  });

  test('what was inherited needs as many passes as any', () => {
    const states = after(inheritedHealth(0), [true, true]);
    expect(states.map(({ isHealthy }) => isHealthy)).toEqual([false, true]);
  });

  test('a check that is another one counts anew, from what was found', () => {
    const [, second] = after(newHealth(0), [false, false]);
    const states = after(recounted(second ?? newHealth(0)), [false, false, false]);
    expect(states.map(({ isHealthy }) => isHealthy)).toEqual([true, true, false]);
  });
});
