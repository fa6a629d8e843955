import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planOrders } from '#tls/acme/order-queue.ts';
import type { Candidate, QueueState } from '#tls/acme/order-queue.ts';
import type { Verdict } from '#tls/acme/rate-ledger.ts';

const GO: Verdict = { kind: 'go' };

function candidate(host: string, more: Partial<Candidate> = {}): Candidate {
  return { host, wantedMs: 0, current: undefined, isAskedFor: false, failures: new Map(), ...more };
}

function current(renewAtMs: number, more: Partial<NonNullable<Candidate['current']>> = {}): NonNullable<Candidate['current']> {
  return { notAfterMs: renewAtMs + 300, safetyMs: renewAtMs + 200, renewAtMs, ca: 'one', isReplaceable: false, ...more };
}

function state(more: Partial<QueueState> = {}): QueueState {
  return { nowMs: 1000, cas: [{ id: 'one', failures: undefined, underWay: 0 }], room: 100, admit: () => GO, ...more };
}

function hosts(candidates: readonly Candidate[], of: QueueState): readonly string[] {
  return planOrders(candidates, of).orders.map(({ host }) => host);
}

describe('planOrders', () => {
  test('asked for, in danger, without one, due: each by what ends or was wanted first', () => {
    const list = [
      candidate('due-late', { current: current(900) }),
      candidate('due-early', { current: current(850) }),
      candidate('none-late', { wantedMs: 500 }),
      candidate('none-early', { wantedMs: 400 }),
      candidate('danger', { current: current(700) }),
      candidate('asked', { isAskedFor: true, current: current(5000) }),
      candidate('not-due', { current: current(5000) }),
    ];
    expect(hosts(list, state())).toEqual(['asked', 'danger', 'none-early', 'none-late', 'due-early', 'due-late']);
    expect(planOrders(list, state()).againMs).toBe(5000);
  });

  test('begins no more than there is room for', () => {
    expect(hosts([candidate('a'), candidate('b'), candidate('c')], state({ room: 2 }))).toEqual(['a', 'b']);
  });

  test('a renewal tells the CA that made the certificate what it replaces, and no other CA', () => {
    const cas = [
      { id: 'one', failures: undefined, underWay: 0 },
      { id: 'two', failures: undefined, underWay: 0 },
    ];
    const list = [
      candidate('a', { current: current(900, { isReplaceable: true }) }),
      candidate('b', { current: current(901, { isReplaceable: true, ca: 'two' }) }),
      candidate('c', { current: current(902) }),
    ];
    expect(planOrders(list, state({ cas })).orders).toEqual([
      { host: 'a', ca: 'one', renewal: 'replaces' },
      { host: 'b', ca: 'one', renewal: 'none' },
      { host: 'c', ca: 'one', renewal: 'same-names' },
    ]);
  });

  test('passes over what a limit holds, counts it, and says when', () => {
    const wait: Verdict = { kind: 'wait', untilMs: 7000, limit: 'certificates-per-domain', subject: 'x' };
    const admit: QueueState['admit'] = ({ host }) => (host.endsWith('.x') ? wait : GO);
    const plan = planOrders([candidate('a.x'), candidate('b.x'), candidate('c.y')], state({ admit }));
    expect(plan.orders.map(({ host }) => host)).toEqual(['c.y']);
    expect(plan.againMs).toBe(7000);
    expect(plan.waiting).toEqual(new Map([['certificates-per-domain', 2]]));
  });

  test('an account that may order nothing more is asked about once, and renewals that are exempt go on', () => {
    let asked = 0;
    const admit: QueueState['admit'] = ({ renewal }) => {
      asked += 1;
      return renewal !== 'none' ? GO : { kind: 'wait', untilMs: 7000, limit: 'orders-per-account', subject: 'x' };
    };
    const list = [
      ...Array.from({ length: 50 }, (_, index) => candidate(`n${String(index)}`)),
      candidate('a', { current: current(900, { isReplaceable: true }) }),
      candidate('b', { current: current(900) }),
    ];
    expect(hosts(list, state({ admit }))).toEqual(['a', 'b']);
    expect(asked).toBe(3);
  });

  test('where one CA’s limit holds, a new name goes to the next; a renewal that has time waits', () => {
    const cas = [
      { id: 'one', failures: undefined, underWay: 0 },
      { id: 'two', failures: undefined, underWay: 0 },
    ];
    const until =
      (untilMs: number): QueueState['admit'] =>
      ({ ca }) =>
        ca === 'two' ? GO : { kind: 'wait', untilMs, limit: 'certificates-per-domain', subject: 'x' };
    const list = [candidate('new'), candidate('renewed', { current: current(900, { notAfterMs: 9000, safetyMs: 8000 }) })];
    expect(planOrders(list, state({ cas, admit: until(7000) })).orders).toEqual([{ host: 'new', ca: 'two', renewal: 'none' }]);
    expect(planOrders(list, state({ cas, admit: until(8500) })).orders.map(({ ca }) => ca)).toEqual(['two', 'two']);
  });

  test('a CA that has just failed is tried with one order, and no other while that is under way', () => {
    const failures = { count: 1, lastMs: 500, untilMs: 900 };
    const list = [candidate('a'), candidate('b')];
    expect(hosts(list, state({ cas: [{ id: 'one', failures, underWay: 0 }] }))).toEqual(['a']);
    expect(hosts(list, state({ cas: [{ id: 'one', failures, underWay: 1 }] }))).toEqual([]);
  });

  test('a name that failed waits for its time', () => {
    const failures = new Map([['one', { count: 1, lastMs: 900, untilMs: 1500 }]]);
    const plan = planOrders([candidate('a', { failures }), candidate('b')], state());
    expect(plan.orders.map(({ host }) => host)).toEqual(['b']);
    expect(plan.againMs).toBe(1500);
  });

  test('never orders a host twice, nor what is not due, nor more than there is room for', () => {
    const any = fc.record({
      renewAtMs: fc.option(fc.nat(2000), { nil: undefined }),
      isAskedFor: fc.boolean(),
      untilMs: fc.option(fc.nat(2000), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(any, { maxLength: 40 }), fc.nat(20), (list, room) => {
        const candidates = list.map(({ renewAtMs, isAskedFor, untilMs }, index) =>
          candidate(`h${String(index)}`, {
            isAskedFor,
            current: renewAtMs === undefined ? undefined : current(renewAtMs),
            failures: new Map(untilMs === undefined ? [] : [['one', { count: 1, lastMs: 0, untilMs }]]),
          }),
        );
        const plan = planOrders(candidates, state({ room }));
        expect(plan.orders.length).toBeLessThanOrEqual(room);
        expect(new Set(plan.orders.map(({ host }) => host)).size).toBe(plan.orders.length);
        for (const { host } of plan.orders) {
          const ordered = candidates[Number(host.slice(1))];
          expect((ordered?.current?.renewAtMs ?? 0) <= 1000 || ordered?.isAskedFor).toBe(true);
          expect(ordered?.failures.get('one')?.untilMs ?? 0).toBeLessThanOrEqual(1000);
        }
        expect(plan.againMs ?? 1001).toBeGreaterThan(1000);
      }),
    );
  });

  test('plans for a hundred thousand names in well under a second', () => {
    const list = Array.from({ length: 100_000 }, (_, index) => candidate(`h${String(index)}.test`, { current: current(index) }));
    const startMs = performance.now();
    expect(planOrders(list, state({ nowMs: 50_000 })).orders.length).toBe(100);
    expect(performance.now() - startMs).toBeLessThan(900);
  });
});
