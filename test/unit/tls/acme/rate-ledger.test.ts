import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CERTIFICATE_LIMITS, RateLedger, failureRowOf, LIMIT_PRESETS, nameSetOf, rowsOf } from '#tls/acme/rate-ledger.ts';
import type { CaLimits, Intent, LedgerRow, Renewal } from '#tls/acme/rate-ledger.ts';
import { registeredDomainOf } from '#tls/acme/registered-domain.ts';

const CA = 'https://ca.test/dir';
const LIMITS = LIMIT_PRESETS['lets-encrypt'];
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

function order(host: string, more: { readonly renewal?: Renewal; readonly account?: string } = {}): Intent {
  const { renewal = 'none', account = 'acct/1' } = more;
  return { kind: 'order', ca: CA, account, names: [host], domains: [registeredDomainOf(host)], renewal };
}

function spend(ledger: RateLedger, intent: Intent, nowMs: number, limits: CaLimits = LIMITS): readonly LedgerRow[] {
  const rows = rowsOf(intent, limits, { id: 'o', nowMs });
  ledger.add(rows);
  return rows;
}

describe('Let’s Encrypt’s limits', () => {
  test('the 301st order of an account waits until the first is three hours old', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 300; index += 1) spend(ledger, order(`h.d${String(index)}.test`), 1000 + index);
    const verdict = ledger.verdict(order('h.another.test'), LIMITS, 2000);
    expect(verdict).toMatchObject({ kind: 'wait', limit: 'orders-per-account', subject: 'acct/1' });
    if (verdict.kind !== 'wait') return;
    expect(verdict.untilMs - 1000).toBeGreaterThanOrEqual(3 * HOUR_MS);
    expect(verdict.untilMs - 1000).toBeLessThan(3.1 * HOUR_MS);
    expect(ledger.verdict(order('h.another.test'), LIMITS, verdict.untilMs)).toEqual({ kind: 'go' });
    expect(ledger.verdict(order('h.another.test', { account: 'acct/2' }), LIMITS, 2000)).toEqual({ kind: 'go' });
  });

  test('the 51st certificate of a registered domain waits for a week, and other domains do not', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 50; index += 1) spend(ledger, order(`h${String(index)}.shop.co.uk`), 0);
    expect(ledger.verdict(order('new.shop.co.uk'), LIMITS, DAY_MS)).toMatchObject({
      kind: 'wait',
      limit: 'certificates-per-domain',
      subject: 'shop.co.uk',
    });
    expect(ledger.verdict(order('new.other.co.uk'), LIMITS, DAY_MS)).toEqual({ kind: 'go' });
  });

  test('the sixth of the same names waits, and of several limits the one that keeps longest is said', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 5; index += 1) spend(ledger, order('a.test'), index * DAY_MS);
    expect(ledger.verdict(order('a.test'), LIMITS, 5 * DAY_MS)).toMatchObject({ limit: 'certificates-per-name-set' });
    expect(ledger.verdict(order('b.test'), LIMITS, 5 * DAY_MS)).toEqual({ kind: 'go' });
    ledger.add(
      Array.from({ length: 5 }, () =>
        failureRowOf({ ca: CA, account: 'acct/1', host: 'a.test' }, LIMITS, { id: 'o', nowMs: 5 * DAY_MS }),
      ).flat(),
    );
    expect(ledger.verdict(order('a.test'), LIMITS, 5 * DAY_MS)).toMatchObject({ limit: 'certificates-per-name-set' });
    expect(ledger.verdict(order('a.test'), LIMITS, 7.5 * DAY_MS)).toEqual({ kind: 'go' });
  });

  test('five failed validations of a host in an hour hold it, and no other', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 5; index += 1)
      ledger.add(failureRowOf({ ca: CA, account: 'acct/1', host: 'a.test' }, LIMITS, { id: 'o', nowMs: index }));
    expect(ledger.verdict(order('a.test'), LIMITS, 1000)).toMatchObject({ limit: 'failures-per-host', subject: 'acct/1 a.test' });
    expect(ledger.verdict(order('b.test'), LIMITS, 1000)).toEqual({ kind: 'go' });
  });

  test('accounts are counted by address', () => {
    const ledger = new RateLedger();
    const intent: Intent = { kind: 'account', ca: CA, address: 'node' };
    for (let index = 0; index < 10; index += 1) spend(ledger, intent, 0);
    expect(ledger.verdict(intent, LIMITS, 1)).toMatchObject({ limit: 'accounts-per-address' });
  });

  test('renewals with replaces are exempt, and count for nobody', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 5; index += 1) spend(ledger, order('a.test'), 0);
    expect(ledger.verdict(order('a.test', { renewal: 'replaces' }), LIMITS, 1)).toEqual({ kind: 'go' });
    expect(rowsOf(order('a.test', { renewal: 'replaces' }), LIMITS, { id: 'o', nowMs: 1 })).toEqual([]);
  });

  test('renewals of the same names count for their names alone', () => {
    const ledger = new RateLedger();
    for (let index = 0; index < 300; index += 1) spend(ledger, order(`h${String(index)}.shop.test`), 0);
    expect(ledger.verdict(order('h0.shop.test'), LIMITS, 1).kind).toBe('wait');
    const renewal = order('h0.shop.test', { renewal: 'same-names' });
    for (let index = 0; index < 4; index += 1) {
      expect(ledger.verdict(renewal, LIMITS, 1)).toEqual({ kind: 'go' });
      expect(spend(ledger, renewal, 1).map(({ limit }) => limit)).toEqual(['certificates-per-name-set']);
    }
    expect(ledger.verdict(renewal, LIMITS, 2)).toMatchObject({ kind: 'wait', limit: 'certificates-per-name-set' });
  });

  test('a CA that exempts none counts all', () => {
    const limits: CaLimits = { 'orders-per-account': { max: 1, spanMs: HOUR_MS } };
    const ledger = new RateLedger();
    spend(ledger, order('a.test', { renewal: 'same-names' }), 0, limits);
    expect(ledger.verdict(order('a.test', { renewal: 'same-names' }), limits, 1).kind).toBe('wait');
  });

  test('what was given back does not count', () => {
    const ledger = new RateLedger();
    const rows = Array.from({ length: 5 }, (_, index) => spend(ledger, order('a.test'), index)).flat();
    ledger.remove(rows.filter(({ limit, atMs }) => CERTIFICATE_LIMITS.includes(limit) && atMs === 2));
    expect(ledger.verdict(order('a.test'), LIMITS, 10)).toEqual({ kind: 'go' });
  });

  test('a private CA has none, and nothing is written down for it', () => {
    const ledger = new RateLedger();
    const limits = LIMIT_PRESETS.none;
    for (let index = 0; index < 1000; index += 1) expect(spend(ledger, order('a.test'), 0, limits)).toEqual([]);
    expect(ledger.verdict(order('a.test'), limits, 0)).toEqual({ kind: 'go' });
  });
});

describe('RateLedger', () => {
  const LIMIT = { max: 3, spanMs: 100_000 };
  const limits: CaLimits = { 'orders-per-account': LIMIT };

  test('whatever is asked and whenever, no span has more than its limit, and the wait that is said is enough', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(60_000), { maxLength: 60 }), (pauses) => {
        const ledger = new RateLedger();
        const taken: number[] = [];
        let nowMs = 0;
        for (const pauseMs of pauses) {
          nowMs += pauseMs;
          const verdict = ledger.verdict(order('a.test'), limits, nowMs);
          const freeMs = verdict.kind === 'go' ? nowMs : verdict.untilMs;
          expect(freeMs).toBeGreaterThanOrEqual(nowMs);
          expect(ledger.verdict(order('a.test'), limits, freeMs)).toEqual({ kind: 'go' });
          if (verdict.kind === 'wait') continue;
          spend(ledger, order('a.test'), nowMs, limits);
          taken.push(nowMs);
        }
        for (const fromMs of taken) {
          const inSpan = taken.filter((atMs) => atMs >= fromMs && atMs <= fromMs + LIMIT.spanMs);
          expect(inSpan.length).toBeLessThanOrEqual(LIMIT.max);
        }
      }),
    );
  });

  test('says the same after a restart, in whatever order the store gives its rows', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(400_000), { maxLength: 30 }), fc.nat(500_000), (times, nowMs) => {
        const rows = times.flatMap((atMs) => rowsOf(order('a.test'), limits, { id: 'o', nowMs: atMs }));
        const live = new RateLedger();
        for (const row of rows.toSorted((one, other) => one.atMs - other.atMs)) live.add([row]);
        expect(RateLedger.of(rows).verdict(order('a.test'), limits, nowMs)).toEqual(live.verdict(order('a.test'), limits, nowMs));
      }),
    );
  });

  test('forgets what no limit counts any more, and nothing else', () => {
    const ledger = new RateLedger();
    for (const atMs of [0, 1, 2]) spend(ledger, order('a.test'), atMs, limits);
    ledger.forget(new Map([[CA, limits]]), 50_000);
    expect(ledger.verdict(order('a.test'), limits, 50_000).kind).toBe('wait');
    const beforeMs = ledger.forget(new Map([[CA, limits]]), 1_000_000);
    expect(beforeMs).toBeLessThan(1_000_000 - LIMIT.spanMs);
    expect(ledger.verdict(order('a.test'), limits, 50_000)).toEqual({ kind: 'go' });
  });
});

test('a set of names is the same in any order', () => {
  expect(nameSetOf(['b.test', 'a.test'])).toBe(nameSetOf(['a.test', 'b.test']));
  expect(nameSetOf(['a.test'])).not.toBe(nameSetOf(['b.test']));
});

test('registered domains follow the public suffix list with its private part', () => {
  expect(registeredDomainOf('a.b.example.co.uk')).toBe('example.co.uk');
  expect(registeredDomainOf('*.shop.example.com')).toBe('example.com');
  expect(registeredDomainOf('me.github.io')).toBe('me.github.io');
  expect(registeredDomainOf('x.me.github.io')).toBe('me.github.io');
  expect(registeredDomainOf('co.uk')).toBe('co.uk');
});
