/** Prices: exact to the last millionth, each hour by the book and the tariff that it had. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { invoiceOf, madeOut, monthSpan, sumOf } from '#metering/invoice.ts';
import type { CorrectionLine, Invoice } from '#metering/invoice.ts';
import { decimalText, divideHalfEven, microsText, parseMicros } from '#metering/money.ts';
import { isOffPeak, timeWithinHour } from '#metering/off-peak.ts';
import { bookAt, bookFromMs, priceBookSchema, successionFault } from '#metering/price-book.ts';
import type { BookVersion } from '#metering/price-book.ts';
import { mapQuantities } from '#metering/ledger-chain.ts';
import { SKUS } from '#metering/skus.ts';
import type { PricedHour } from '#metering/usage-lines.ts';

const NONE = mapQuantities(() => 0n);
const HOUR_MS = 3_600_000;
const VCPU_HOUR_NS = 3_600_000_000_000n;
const NOVEMBER = { fromMs: Date.UTC(2026, 10, 1), toMs: Date.UTC(2026, 11, 1), month: '2026-11' };

function book(version: number, more: object): BookVersion {
  const parsed = priceBookSchema.parse({ currency: 'EUR', from: '2026-11-01T00:00:00Z', prices: {}, ...more });
  return { version, fromMs: bookFromMs(parsed), book: parsed };
}

function hour(atMs: number, used: Partial<PricedHour>): PricedHour {
  return { ...NONE, container: 'c1', name: 'web', startMs: atMs, ...used };
}

function bill(books: readonly BookVersion[], hours: readonly PricedHour[], tenant = 'acme'): Invoice {
  const invoice = invoiceOf({ tenant, ...NOVEMBER, books, hours });
  if (invoice === undefined) throw new Error('there are no prices');
  return invoice;
}

describe('amounts', () => {
  test('are read and written without a double', () => {
    expect(parseMicros('0.0125')).toBe(12_500n);
    expect(parseMicros('999999999999.999999')).toBe(999_999_999_999_999_999n);
    expect(parseMicros('-3.5')).toBe(-3_500_000n);
    for (const text of ['', '1.', '.5', '1e3', '0.0000001', '1,5', ' 1', '+1']) expect(parseMicros(text), text).toBeUndefined();
    expect(microsText(-1n)).toBe('-0.000001');
    expect(microsText(12_345_678n)).toBe('12.345678');
    expect(decimalText(1n, 3n, 4)).toBe('0.3333');
  });

  test('are rounded half to even, to both sides of zero', () => {
    expect([5n, 15n, 25n, -5n, -15n, 14n, 16n].map((value) => divideHalfEven(value, 10n))).toEqual([0n, 2n, 2n, 0n, -2n, 1n, 2n]);
    fc.assert(
      fc.property(fc.bigInt(), fc.bigInt({ min: 1n, max: 2n ** 80n }), (dividend, divisor) => {
        const rest = dividend - divideHalfEven(dividend, divisor) * divisor;
        expect((rest < 0n ? -rest : rest) * 2n <= divisor).toBe(true);
      }),
    );
  });
});

describe('energy', () => {
  const model = { watts: 180, processors: 32, pue: '1.2' };

  test('is that of each hour by its book, and marked as an estimate', () => {
    const before = book(1, {});
    const from = book(2, { from: '2026-11-10T00:00:00Z', energy: model });
    const more = book(3, { from: '2026-11-20T00:00:00Z', energy: { ...model, watts: '90.5', pue: 1 } });
    const on = (day: number): number => Date.UTC(2026, 10, day);
    const hours = [9, 10, 19, 20].map((day) => hour(on(day), { cpuNs: VCPU_HOUR_NS / 2n }));
    // Half an hour of a processor each: 3.375 Wh twice, 1.4140625 once, and nothing where the book says nothing.
    expect(bill([before, from, more], hours).energyMicroWhEstimate).toBe(8_164_062n);
    expect(bill([before], hours).energyMicroWhEstimate).toBeNull();
  });

  test('of a host that cannot be is refused', () => {
    const fault = (energy: object): string =>
      JSON.stringify(
        priceBookSchema.safeParse({ currency: 'EUR', from: '2026-11-01T00:00:00Z', prices: {}, energy }).error?.issues,
      );
    expect(fault({ ...model, pue: 0.9 })).toContain('at least 1');
    expect(fault({ ...model, processors: 0 })).toContain('processors');
    expect(fault({ ...model, watts: -1 })).toContain('an amount of at least 0');
    expect(fault({ watts: 100 })).toContain('processors');
  });
});

describe('cheaper hours', () => {
  const nights = [{ days: ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'], from: '22:00', to: '06:00' }] as const;
  const weekend = [{ days: ['sat', 'sun'], from: '00:00', to: '24:00' }] as const;

  test('are by the clock of their place, across midnight and with its summer time', () => {
    const paris = (iso: string): boolean => isOffPeak('Europe/Paris', nights, Date.parse(iso));
    expect(paris('2026-11-10T20:59:59Z')).toBe(false);
    expect(paris('2026-11-10T21:00:00Z')).toBe(true);
    expect(paris('2026-11-11T04:59:59Z')).toBe(true);
    expect(paris('2026-11-11T05:00:00Z')).toBe(false);
    expect(paris('2026-07-10T20:00:00Z')).toBe(true); // In summer 22:00 is an hour earlier.
    const days = [{ days: ['fri'], from: '22:00', to: '06:00' }] as const;
    expect(isOffPeak('Europe/Paris', days, Date.parse('2026-11-14T03:00:00Z'))).toBe(true); // Saturday morning, begun on Friday.
    expect(isOffPeak('Europe/Paris', days, Date.parse('2026-11-13T03:00:00Z'))).toBe(false);
    expect(isOffPeak('UTC', weekend, Date.parse('2026-11-15T23:59:00Z'))).toBe(true);
    expect(isOffPeak('UTC', weekend, Date.parse('2026-11-16T00:00:00Z'))).toBe(false);
  });

  test('begin and end on a full hour of UTC, or are refused with the time that does not', () => {
    const from = Date.UTC(2026, 10, 1);
    const at = (time: string) => [{ days: ['mon'], from: time, to: '24:00' }] as const;
    expect(timeWithinHour('Europe/Paris', at('22:00'), from)).toBeUndefined();
    expect(timeWithinHour('Europe/Paris', at('22:30'), from)).toBe('22:30');
    expect(timeWithinHour('Asia/Kolkata', [{ days: ['mon'], from: '22:30', to: '06:30' }], from)).toBeUndefined();
    expect(timeWithinHour('Asia/Kolkata', at('22:30'), from)).toBe('24:00');
    expect(timeWithinHour('Australia/Lord_Howe', at('22:00'), from)).toBeDefined(); // Half an hour off in winter only.
  });
});

describe('a price book', () => {
  const faults = (value: object): readonly string[] => {
    const parsed = priceBookSchema.safeParse({
      currency: 'EUR',
      from: '2026-12-01T00:00:00Z',
      prices: { vcpuHour: 1 },
      ...value,
    });
    return parsed.success ? [] : parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  };

  test('is refused with a path for each thing that is wrong', () => {
    expect(faults({})).toEqual([]);
    expect(faults({ currency: 'ABC' })[0]).toMatch(/^currency: write a currency/);
    expect(faults({ from: '2026-12-01T00:30:00Z' })[0]).toMatch(/^from: prices change on a full hour/);
    expect(faults({ prices: { vcpuHour: -1 } })[0]).toMatch(/^prices.vcpuHour: write an amount/);
    expect(faults({ prices: { vcpuHour: 0.000_000_1 } })[0]).toMatch(/^prices.vcpuHour: write an amount/);
    expect(faults({ plans: { a: { tenants: ['x'] }, b: { tenants: ['y', 'x'] } } })).toEqual([
      'plans.b.tenants.1: x has the plan a already',
    ]);
    const offPeak = { zone: 'Europe/Paris', windows: [{ days: ['mon'], from: '22:00', to: '06:00' }], prices: { vcpuHour: 2 } };
    expect(faults({ offPeak })).toEqual(['offPeak.prices.vcpuHour: it is more than the list price: cheaper hours are cheaper']);
    expect(faults({ offPeak: { ...offPeak, zone: 'Europe/Atlantis' } })[0]).toMatch(/there is no such time zone/);
  });

  test('follows those that there are, and changes nothing that was in force', () => {
    const first = book(1, {});
    const next = book(2, { from: '2026-12-01T00:00:00Z' });
    expect(successionFault([], first.book, Date.UTC(2030, 0))).toBeUndefined();
    expect(successionFault([first], next.book, Date.UTC(2026, 10, 30))).toBeUndefined();
    expect(successionFault([first], next.book, Date.UTC(2026, 11, 2))).toMatch(/^from: .* is over/);
    expect(successionFault([first], { ...next.book, currency: 'USD' }, 0)).toMatch(/^currency: it is EUR so far/);
    expect(bookAt([first, next], next.fromMs - 1)?.version).toBe(1);
    expect(bookAt([first, next, { ...next, version: 3 }], next.fromMs)?.version).toBe(3);
    expect(bookAt([first], first.fromMs - 1)).toBeUndefined();
  });
});

describe('an invoice', () => {
  test('has the price of each hour: of its book from the moment on, and of its tariff', () => {
    const offPeak = { zone: 'UTC', windows: [{ days: ['sun'], from: '00:00', to: '24:00' }], prices: { vcpuHour: '0.4' } };
    const books = [
      book(1, { prices: { vcpuHour: 1 }, offPeak }),
      book(2, { from: '2026-11-16T12:00:00Z', prices: { vcpuHour: 2 } }),
    ];
    const at = (day: number, hours: number): number => Date.UTC(2026, 10, day, hours);
    const used = { cpuNs: VCPU_HOUR_NS };
    const { lines, totalMicros } = bill(books, [
      hour(at(2, 3), used),
      hour(at(15, 3), used), // A Sunday.
      hour(at(16, 11), used),
      hour(at(16, 12), used),
      hour(at(16, 13), used),
    ]);
    expect(lines.map((line) => (line.kind === 'usage' ? [line.version, line.tariff, line.amountMicros] : []))).toEqual([
      [1, 'standard', 2_000_000n],
      [1, 'off-peak', 400_000n],
      [2, 'standard', 4_000_000n],
    ]);
    expect(totalMicros).toBe(6_400_000n);
  });

  test('rounds once a line, however many hours there are', () => {
    // A third of a millionth each hour: rounded by the hour there would be nothing.
    const hours = Array.from({ length: 30 }, (_, index) =>
      hour(NOVEMBER.fromMs + index * HOUR_MS, { cpuNs: VCPU_HOUR_NS / 3_000_000n }),
    );
    expect(bill([book(1, { prices: { vcpuHour: 1 } })], hours).lines.map(({ amountMicros }) => amountMicros)).toEqual([10n]);
  });

  test('takes free units, the minimum, and credits in that order', () => {
    const plans = { pro: { tenants: ['acme'], minimum: '5', free: { vcpuHour: 2 }, prices: { vcpuHour: '0.8' } } };
    const credits = [{ tenant: 'acme', month: '2026-11', amount: '7', reason: 'an outage' }];
    const used = [hour(NOVEMBER.fromMs, { cpuNs: 4n * VCPU_HOUR_NS })];
    const { lines, totalMicros } = bill([book(1, { prices: { vcpuHour: 1 }, plans, credits })], used);
    expect(lines.map(({ kind, amountMicros }) => [kind, amountMicros])).toEqual([
      ['usage', 3_200_000n],
      ['allowance', -1_600_000n],
      ['minimum', 3_400_000n],
      ['credit', -5_000_000n],
    ]);
    expect(totalMicros).toBe(0n);
    // What is all free costs nothing, to the last millionth.
    const third = [hour(NOVEMBER.fromMs, { cpuNs: 1n }), hour(NOVEMBER.fromMs, { cpuNs: VCPU_HOUR_NS / 3n, container: 'c2' })];
    expect(bill([book(1, { prices: { vcpuHour: 1 }, plans: { default: { free: { vcpuHour: 1 } } } })], third).totalMicros).toBe(
      0n,
    );
    expect(bill([book(1, { prices: { vcpuHour: 1 }, plans })], used, 'other').totalMicros).toBe(4_000_000n);
  });

  test('is below zero where corrections took off more than was used, unless there is a minimum', () => {
    const credits = [{ tenant: 'acme', month: '2026-11', amount: '7', reason: 'an outage' }];
    const hours = [hour(NOVEMBER.fromMs, { cpuNs: VCPU_HOUR_NS }), hour(NOVEMBER.fromMs, { cpuNs: -4n * VCPU_HOUR_NS })];
    const linesOf = (plan: object): readonly unknown[] =>
      bill([book(1, { prices: { vcpuHour: 1 }, plans: { default: plan }, credits })], hours).lines.map((line) => [
        line.kind,
        line.amountMicros,
      ]);
    // Neither a credit nor free units are used up.
    for (const plan of [{}, { minimum: 0 }, { free: { vcpuHour: 2 } }]) expect(linesOf(plan)).toEqual([['usage', -3_000_000n]]);
    expect(linesOf({ minimum: 5 })).toEqual([
      ['usage', -3_000_000n],
      ['minimum', 8_000_000n],
      ['credit', -5_000_000n],
    ]);
  });

  test('has no free units for what corrections made cheaper than nothing', () => {
    const offPeak = { zone: 'UTC', windows: [{ days: ['sun'], from: '00:00', to: '24:00' }], prices: { vcpuHour: '0.4' } };
    const books = [book(1, { prices: { vcpuHour: 1 }, offPeak, plans: { default: { free: { vcpuHour: 9 } } } })];
    // The first of November is a Sunday.
    const hours = [
      hour(NOVEMBER.fromMs, { cpuNs: 2n * VCPU_HOUR_NS }),
      hour(NOVEMBER.fromMs + 24 * HOUR_MS, { cpuNs: -VCPU_HOUR_NS }),
    ];
    expect(bill(books, hours).totalMicros).toBe(-200_000n);
  });

  test('says that it is owed to the tenant where it is below zero, with what earlier months lack', () => {
    const used = bill([book(1, { prices: { vcpuHour: 1 } })], [hour(NOVEMBER.fromMs, { cpuNs: -VCPU_HOUR_NS })]);
    const note = (amount: string): string => `the total is below zero: ${amount} EUR are owed to the tenant`;
    expect(madeOut(used, [])).toEqual({ ...used, notes: [note('1.000000')] });
    const correction: Omit<CorrectionLine, 'amountMicros'> = {
      kind: 'correction',
      month: '2026-10',
      of: 'usage',
      container: 'c1',
      name: 'web',
      sku: 'vcpuHour',
      about: 'late',
      quantity: 1n,
      fromMs: 0,
      toMs: 1,
    };
    const more = madeOut(used, [{ ...correction, amountMicros: -1n }]);
    expect([more.totalMicros, more.notes]).toEqual([-1_000_001n, [note('1.000001')]]);
    const less = madeOut(used, [{ ...correction, amountMicros: 1_000_000n }]);
    expect([less.totalMicros, less.notes]).toEqual([0n, []]);
  });

  test('says where something was used before there were prices, and is none where there are none', () => {
    const later = [book(1, { from: '2026-11-10T00:00:00Z', prices: { vcpuHour: 1 } })];
    const invoice = bill(later, [hour(NOVEMBER.fromMs, { cpuNs: VCPU_HOUR_NS })]);
    expect([invoice.totalMicros, invoice.notes]).toEqual([0n, ['something was used before there were prices: it costs nothing']]);
    expect(invoiceOf({ tenant: 'acme', ...NOVEMBER, books: [], hours: [] })).toBeUndefined();
    expect(monthSpan('2026-11')).toEqual({ fromMs: NOVEMBER.fromMs, toMs: NOVEMBER.toMs });
    expect(monthSpan('2026-13')).toBeUndefined();
  });

  test('is the sum of its lines, and no line is further than half a millionth from what it is exactly', () => {
    const quantity = fc.bigInt({ min: 0n, max: 2n ** 62n });
    const used = fc.record({
      at: fc.nat(719),
      container: fc.constantFrom('c1', 'c2', 'c3'),
      cpuNs: quantity,
      memoryByteMs: fc.bigInt({ min: 0n, max: 2n ** 80n }),
      requests: quantity,
      ingressBytes: quantity,
      egressBytes: quantity,
      snapshotByteMs: quantity,
    });
    const price = fc.integer({ min: 0, max: 10 ** 9 }).map((micros) => microsText(BigInt(micros)));
    const prices = fc.record(Object.fromEntries(SKUS.map((sku) => [sku.price, price])));
    const plan = fc.record({ minimum: price, free: prices });
    fc.assert(
      fc.property(
        fc.array(used, { maxLength: 30 }),
        fc.tuple(prices, prices),
        plan,
        price,
        (hours, [first, second], terms, amount) => {
          const more = { plans: { default: terms }, credits: [{ tenant: 'acme', month: '2026-11', amount, reason: 'x' }] };
          const books = [book(1, { prices: first, ...more }), book(2, { prices: second, from: '2026-11-11T05:00:00Z' })];
          const priced = hours.map(({ at, ...rest }) => hour(NOVEMBER.fromMs + at * HOUR_MS, { ...rest, name: rest.container }));
          const { lines, totalMicros } = bill(books, priced);
          expect(sumOf(lines)).toBe(totalMicros);
          expect(totalMicros >= 0n).toBe(true);
          let counted = 0n;
          for (const line of lines) {
            if (line.kind !== 'usage') continue;
            const unit = SKUS.find((sku) => sku.price === line.sku)?.unitSize ?? 0n;
            const off = line.amountMicros * unit - line.quantity * line.unitPriceMicros;
            expect((off < 0n ? -off : off) * 2n <= unit).toBe(true);
            if (line.sku === 'vcpuHour') counted += line.quantity;
          }
          const all = priced.filter(
            ({ startMs }) =>
              parseMicros(startMs < Date.UTC(2026, 10, 11, 5) ? (first['vcpuHour'] ?? '') : (second['vcpuHour'] ?? '')) !== 0n,
          );
          expect(counted).toBe(all.reduce((sum, { cpuNs }) => sum + cpuNs, 0n));
        },
      ),
      { numRuns: 60 },
    );
  }, 20_000);
});
