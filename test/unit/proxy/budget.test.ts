import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BUDGET_KINDS, Budgets, OTHER_TENANTS, shareLimits, shareOf } from '#proxy/budget.ts';
import type { BudgetLimits } from '#proxy/budget.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';

const LIMITS: BudgetLimits = {
  connections: 3,
  exchanges: 2,
  heldRequests: 0,
  heldBytes: 50,
  bufferedBytes: 100,
  upgradedStreams: 1,
};

describe('TenantBudget', () => {
  test('takes up to the limit, one kind beside the other', () => {
    const budget = new Budgets(LIMITS).of('acme');
    expect([1, 2, 3].map(() => budget.tryEnter('exchanges'))).toEqual([true, true, false]);
    expect(budget.tryEnter('upgradedStreams')).toBe(true);
    expect(budget.tryEnter('heldRequests')).toBe(false);
    expect(budget.held('exchanges')).toBe(2);
    budget.leave('exchanges');
    expect(budget.tryEnter('exchanges')).toBe(true);
  });

  test('takes bytes whole or not at all', () => {
    const budget = new Budgets(LIMITS).of('acme');
    expect(budget.tryEnter('bufferedBytes', 60)).toBe(true);
    expect(budget.tryEnter('bufferedBytes', 41)).toBe(false);
    expect(budget.held('bufferedBytes')).toBe(60);
    expect(budget.tryEnter('bufferedBytes', 40)).toBe(true);
    expect(budget.tryEnter('bufferedBytes', 0)).toBe(true);
    budget.leave('bufferedBytes', 100);
    expect(budget.held('bufferedBytes')).toBe(0);
  });

  test('of one tenant is not that of another', () => {
    const budgets = new Budgets(LIMITS);
    expect(budgets.of('acme').tryEnter('upgradedStreams')).toBe(true);
    expect(budgets.of('acme').tryEnter('upgradedStreams')).toBe(false);
    expect(budgets.of('other').tryEnter('upgradedStreams')).toBe(true);
  });

  test('giving back what was not taken is counted and changes nothing else', () => {
    const budgets = new Budgets(LIMITS);
    const budget = budgets.of('acme');
    budget.leave('exchanges');
    expect([budgets.faults, budgets.size, budget.held('exchanges')]).toEqual([1, 0, 0]);
    budget.tryEnter('bufferedBytes', 10);
    budget.leave('bufferedBytes', 11);
    budget.leave('exchanges');
    expect([budgets.faults, budgets.size, budget.held('bufferedBytes')]).toEqual([3, 0, 0]);
  });

  test('has an entry only while something is held', () => {
    const budgets = new Budgets(LIMITS);
    const budget = budgets.of('acme');
    expect(budgets.size).toBe(0);
    budget.tryEnter('heldRequests');
    budget.tryEnter('bufferedBytes', 0);
    expect(budgets.size).toBe(0);
    budget.tryEnter('exchanges');
    budget.tryEnter('bufferedBytes', 5);
    expect(budgets.size).toBe(1);
    budget.leave('exchanges');
    expect(budgets.size).toBe(1);
    budget.leave('bufferedBytes', 5);
    expect(budgets.size).toBe(0);
  });

  test('all that are given out for a tenant count as one, before and after it held nothing', () => {
    const budgets = new Budgets(LIMITS);
    const [one, other] = [budgets.of('acme'), budgets.of('acme')];
    expect(one).not.toBe(other);
    expect([one.tryEnter('exchanges'), other.tryEnter('exchanges'), one.tryEnter('exchanges')]).toEqual([true, true, false]);
    one.leave('exchanges');
    other.leave('exchanges');
    expect(budgets.size).toBe(0);
    const third = budgets.of('acme');
    expect([third.tryEnter('exchanges'), one.tryEnter('exchanges'), other.tryEnter('exchanges')]).toEqual([true, true, false]);
    expect([one.held('exchanges'), third.held('exchanges')]).toEqual([2, 2]);
  });
});

test('budgets count as a map of numbers would, whichever of a tenant is asked', () => {
  const step = fc.record({
    handle: fc.nat(5),
    isFresh: fc.boolean(),
    kind: fc.constantFrom(...BUDGET_KINDS),
    amount: fc.nat(3),
    isLeaving: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const budgets = new Budgets(LIMITS);
      const tenants = ['a', 'b'];
      const handles = Array.from({ length: 6 }, (_, index) => budgets.of(tenants[index % 2] ?? ''));
      const model = new Map<string, number>();
      /** What each handle took and has to give back. */
      const taken = new Map<string, number>();
      const answers: [given: boolean, right: boolean][] = [];
      for (const { handle, isFresh, kind, amount, isLeaving } of steps) {
        const tenant = tenants[handle % 2] ?? '';
        const budget = isFresh ? budgets.of(tenant) : (handles[handle] ?? budgets.of(tenant));
        if (isFresh && !isLeaving) handles[handle] = budget;
        const key = `${tenant} ${kind}`;
        const held = model.get(key) ?? 0;
        const own = taken.get(`${String(handle)} ${kind}`) ?? 0;
        if (isLeaving) {
          (handles[handle] ?? budget).leave(kind, own);
          taken.delete(`${String(handle)} ${kind}`);
          model.set(key, held - own);
        } else {
          const isTaken = budget.tryEnter(kind, amount);
          answers.push([isTaken, held + amount <= LIMITS[kind]]);
          if (isTaken) {
            model.set(key, held + amount);
            taken.set(`${String(handle)} ${kind}`, own + amount);
          }
        }
        expect(budgets.of(tenant).held(kind)).toBe(model.get(key) ?? 0);
      }
      expect(answers.filter(([given, right]) => given !== right)).toEqual([]);
      const holding = tenants.filter((tenant) => BUDGET_KINDS.some((kind) => (model.get(`${tenant} ${kind}`) ?? 0) > 0));
      expect([budgets.size, budgets.faults]).toEqual([holding.length, 0]);
    }),
  );
});

describe('Budgets.refusals()', () => {
  test('tells how often each tenant was refused, by kind', () => {
    const budgets = new Budgets(LIMITS);
    budgets.of('acme').tryEnter('heldRequests');
    budgets.of('acme').tryEnter('heldRequests');
    budgets.of('acme').tryEnter('bufferedBytes', 101);
    budgets.of('other').tryEnter('heldRequests');
    expect([...budgets.refusals()]).toEqual([
      { tenant: 'acme', kind: 'heldRequests', count: 2 },
      { tenant: 'acme', kind: 'bufferedBytes', count: 1 },
      { tenant: 'other', kind: 'heldRequests', count: 1 },
    ]);
  });

  test('is bounded: later tenants are summed', () => {
    const budgets = new Budgets(LIMITS);
    for (let index = 0; index < 1_000; index += 1) budgets.of(`t${String(index)}`).tryEnter('heldRequests');
    budgets.of('t0').tryEnter('heldRequests');
    const told = [...budgets.refusals()];
    expect(told).toHaveLength(257);
    expect(told[0]).toEqual({ tenant: 't0', kind: 'heldRequests', count: 2 });
    expect(told.at(-1)).toEqual({ tenant: OTHER_TENANTS, kind: 'heldRequests', count: 744 });
  });
});

test.each([
  [8_192, 1, 8_192],
  [8_192, 4, 2_048],
  [1_024, 3, 342],
  [1, 64, 1],
  [0, 4, 0],
])('shareOf(%i, %i) is %i', (limit, workers, share) => {
  expect(shareOf(limit, workers)).toBe(share);
});

test('shareLimits() shares every kind', () => {
  expect(shareLimits(EDGE_LIMITS.tenant, 2)).toEqual({
    connections: 8_192,
    exchanges: 4_096,
    heldRequests: 2_048,
    heldBytes: 32 * 1024 ** 2,
    bufferedBytes: 32 * 1024 ** 2,
    upgradedStreams: 4_096,
  });
});
