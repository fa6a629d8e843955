import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LETS_ENCRYPT_LIMITS, LETS_ENCRYPT_RULES, RateLimiter, registeredDomainOf } from '../../support/acme-ca/limits.ts';
import type { LimitRules, OrderFacts } from '../../support/acme-ca/limits.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const WINDOW: LimitRules = { ...LETS_ENCRYPT_RULES, kept: 'window' };

function order(name: string, renewal: OrderFacts['renewal'] = 'none'): OrderFacts {
  return { account: 'a', names: [name], renewal };
}

describe('RateLimiter', () => {
  test('lets 300 orders of an account through, then one every 36 s', () => {
    const limiter = new RateLimiter(LETS_ENCRYPT_RULES);
    const ask = (index: number, nowMs: number): number | undefined =>
      limiter.newOrder(order(`h${String(index)}.test`), nowMs)?.waitMs;
    for (let index = 0; index < 300; index += 1) expect(ask(index, 0)).toBeUndefined();
    expect(ask(300, 0)).toBe(36_000);
    expect(ask(300, 35_999)).toBe(1);
    expect(ask(300, 36_000)).toBeUndefined();
    expect(ask(301, 36_000)).toBe(36_000);
    expect(limiter.newOrder({ ...order('h.test'), account: 'b' }, 36_000)).toBeUndefined();
    // Full again after three hours, and not fuller.
    for (let index = 0; index < 300; index += 1) expect(ask(index, 40 * HOUR_MS)).toBeUndefined();
    expect(ask(300, 40 * HOUR_MS)).toBe(36_000);
  });

  test('counts certificates by domain and by names when they are issued, over all accounts', () => {
    const limiter = new RateLimiter(LETS_ENCRYPT_RULES);
    for (let index = 0; index < 50; index += 1) {
      const one = { ...order(`h${String(index)}.many.test`), account: `a${String(index)}` };
      expect(limiter.newOrder(one, 0) ?? limiter.issue(one, 0)).toBeUndefined();
    }
    expect(limiter.newOrder(order('h50.many.test'), 0)).toMatchObject({ limit: 'domainCertificates', key: 'many.test' });
    expect(limiter.newOrder(order('h50.other.test'), 0)).toBeUndefined();
  });

  test('a certificate of the same names is free of some limits, a renewal by ARI of all', () => {
    const limiter = new RateLimiter(LETS_ENCRYPT_RULES);
    for (let index = 0; index < 5; index += 1) {
      const again = order('a.test', index === 0 ? 'none' : 'same-names');
      expect(limiter.newOrder(again, 0) ?? limiter.issue(again, 0)).toBeUndefined();
    }
    expect(limiter.newOrder(order('a.test', 'same-names'), 0)).toMatchObject({ limit: 'sameNames', waitMs: (7 * DAY_MS) / 5 });
    expect(limiter.newOrder(order('a.test', 'ari'), 0) ?? limiter.issue(order('a.test', 'ari'), 0)).toBeUndefined();
    expect(limiter.mostOf('newOrders')).toBe(1);
    const strict = new RateLimiter({ ...LETS_ENCRYPT_RULES, exempt: 'ari' });
    expect(strict.newOrder(order('a.test', 'same-names'), 0)).toBeUndefined();
    expect(strict.mostOf('newOrders')).toBe(1);
  });

  test('five failed validations of a name close it for its account, and the others not', () => {
    const limiter = new RateLimiter(LETS_ENCRYPT_RULES);
    for (let index = 0; index < 5; index += 1) limiter.failedValidation('a', 'a.test', 0);
    expect(limiter.newOrder(order('a.test'), 0)).toMatchObject({ limit: 'failedValidations', waitMs: 720_000 });
    expect(limiter.newOrder(order('b.test'), 0)).toBeUndefined();
    expect(limiter.newOrder({ ...order('a.test'), account: 'b' }, 0)).toBeUndefined();
    expect(limiter.newOrder(order('a.test'), 720_000)).toBeUndefined();
  });

  test('ten accounts of an address', () => {
    const limiter = new RateLimiter(LETS_ENCRYPT_RULES);
    for (let index = 0; index < 10; index += 1) expect(limiter.newAccount('127.0.0.1', 0)).toBeUndefined();
    expect(limiter.newAccount('127.0.0.1', 0)).toMatchObject({ limit: 'newAccounts', waitMs: 18 * 60_000 });
    expect(limiter.newAccount('127.0.0.2', 0)).toBeUndefined();
  });

  test('as a window that slides, no period holds more than the count, and what is refused may come when it says', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 5 * 60_000 }), { minLength: 1, maxLength: 700 });
    const { count, periodMs } = LETS_ENCRYPT_LIMITS.newOrders;
    fc.assert(
      fc.property(gaps, (given) => {
        const limiter = new RateLimiter(WINDOW);
        const taken: number[] = [];
        let nowMs = 0;
        for (const gapMs of given) {
          nowMs += gapMs / 10;
          const within = taken.filter((atMs) => atMs > nowMs - periodMs).length;
          const refusal = limiter.newOrder(order('a.test'), nowMs);
          expect(refusal === undefined).toBe(within < count);
          if (refusal === undefined) taken.push(nowMs);
          else nowMs += refusal.waitMs;
        }
      }),
      { numRuns: 20 },
    );
  });

  test('what a window lets through, a bucket does as well', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 60_000 }), { minLength: 300, maxLength: 900 });
    fc.assert(
      fc.property(gaps, (given) => {
        const [window, bucket] = [new RateLimiter(WINDOW), new RateLimiter(LETS_ENCRYPT_RULES)];
        let nowMs = 0;
        for (const gapMs of given) {
          nowMs += gapMs;
          const refusal = window.newOrder(order('a.test'), nowMs);
          if (refusal !== undefined) nowMs += refusal.waitMs;
          if (refusal !== undefined) window.newOrder(order('a.test'), nowMs);
          expect(bucket.newOrder(order('a.test'), nowMs)).toBeUndefined();
        }
      }),
      { numRuns: 20 },
    );
  });
});

test('registeredDomainOf() is what was bought', () => {
  expect(['a.test', 'b.a.test', 'c.b.a.test'].map(registeredDomainOf)).toEqual(['a.test', 'a.test', 'a.test']);
});
