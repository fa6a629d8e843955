/** The FOCUS 1.2 export, judged by the specification's rules for each column; and CloudEvents. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { correctionsOf } from '#metering/invoice-corrections.ts';
import { invoiceOf, sumOf } from '#metering/invoice.ts';
import type { Invoice } from '#metering/invoice.ts';
import { FOCUS_COLUMNS, focusRows, invoiceEvents } from '#metering/invoice-formats.ts';
import type { FocusRow } from '#metering/invoice-formats.ts';
import * as z from 'zod';
import { parseMicros } from '#metering/money.ts';
import { bookFromMs, priceBookSchema } from '#metering/price-book.ts';
import { focusCsv } from '../../../src/cli-prices.ts';

const DECIMAL = /^-?\d+(?:\.\d+)?$/;
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/;

type Rule = (value: string, row: Readonly<Record<string, string>>) => boolean;
const text: Rule = (value) => value !== '' && value === value.trim();
const decimal: Rule = (value) => DECIMAL.test(value);
const instant: Rule = (value) => INSTANT.test(value) && !Number.isNaN(Date.parse(value));
const oneOf =
  (...values: readonly string[]): Rule =>
  (value) =>
    values.includes(value);
/** Of a correction of usage it may be null. */
const orCorrection =
  (rule: Rule): Rule =>
  (value, row) =>
    (value === '' && row['ChargeClass'] === 'Correction') || rule(value, row);
/** Null unless the row is of usage, where it must not be. */
const ofUsage =
  (rule: Rule): Rule =>
  (value, row) =>
    row['ChargeCategory'] === 'Usage' ? rule(value, row) : value === '';

/** The 21 mandatory columns of FOCUS 1.2, with their nullability, type, format and allowed values. */
const MANDATORY: Readonly<Record<string, Rule>> = {
  BilledCost: decimal,
  BillingAccountId: text,
  BillingAccountName: text,
  BillingCurrency: (value) => /^[A-Z]{3}$/.test(value),
  BillingPeriodEnd: instant,
  BillingPeriodStart: instant,
  ChargeCategory: oneOf('Usage', 'Purchase', 'Tax', 'Credit', 'Adjustment'),
  ChargeClass: oneOf('', 'Correction'),
  ChargeDescription: text,
  ChargePeriodEnd: instant,
  ChargePeriodStart: instant,
  ContractedCost: decimal,
  EffectiveCost: decimal,
  InvoiceIssuerName: text,
  ListCost: decimal,
  PricingQuantity: ofUsage(decimal),
  PricingUnit: ofUsage(text),
  ProviderName: text,
  PublisherName: text,
  ServiceCategory: oneOf('Compute'),
  ServiceName: text,
};

/** Those that its conditions ask of a provider with unit prices, measured use, price lists, negotiated prices and resources; and those recommended. */
const OTHERS: Readonly<Record<string, Rule>> = {
  ChargeFrequency: oneOf('One-Time', 'Recurring', 'Usage-Based'),
  ConsumedQuantity: ofUsage(decimal),
  ConsumedUnit: ofUsage(text),
  ContractedUnitPrice: orCorrection(ofUsage(decimal)),
  InvoiceId: text,
  ListUnitPrice: orCorrection(ofUsage(decimal)),
  PricingCategory: ofUsage(oneOf('Standard')),
  ResourceId: ofUsage(text),
  ResourceName: ofUsage(text),
  ResourceType: ofUsage(text),
  ServiceSubcategory: oneOf('Containers'),
  SkuId: ofUsage(text),
  SkuMeter: ofUsage(text),
  SkuPriceId: orCorrection(ofUsage(text)),
};

/** An exact product of two decimals and a cost are at most a millionth apart: the cost is rounded once. */
function matches(price: string, quantity: string, cost: string): boolean {
  const scaled = (value: string, digits: number): bigint => {
    const [whole = '0', part = ''] = value.replace('-', '').split('.');
    const size = BigInt(whole + part.padEnd(digits, '0'));
    return value.startsWith('-') ? -size : size;
  };
  const off = scaled(price, 6) * scaled(quantity, 18) - scaled(cost, 24);
  return (off < 0n ? -off : off) <= 10n ** 18n;
}

function faultsOf(row: FocusRow): readonly string[] {
  const columns = Object.entries({ ...MANDATORY, ...OTHERS });
  const faults = columns.filter(([name, rule]) => {
    const value: unknown = Reflect.get(row, name);
    return typeof value !== 'string' || !rule(value, row);
  });
  const more: readonly (readonly [string, boolean])[] = [
    ['the billing period', row.BillingPeriodStart < row.BillingPeriodEnd],
    ['the charge period', row.ChargePeriodStart < row.ChargePeriodEnd],
    [
      'the charge period is in the billing period, that of a correction before it',
      row.ChargeClass === 'Correction'
        ? row.ChargePeriodEnd <= row.BillingPeriodStart
        : row.ChargePeriodStart >= row.BillingPeriodStart && row.ChargePeriodEnd <= row.BillingPeriodEnd,
    ],
    ['no unit price is negative', !row.ListUnitPrice.startsWith('-') && !row.ContractedUnitPrice.startsWith('-')],
    [
      'ListCost is ListUnitPrice times PricingQuantity',
      row.ListUnitPrice === '' || matches(row.ListUnitPrice, row.PricingQuantity, row.ListCost),
    ],
    [
      'ContractedCost is its price times PricingQuantity',
      row.ContractedUnitPrice === '' || matches(row.ContractedUnitPrice, row.PricingQuantity, row.ContractedCost),
    ],
    [
      'costs of a credit are its BilledCost',
      row.ChargeCategory === 'Usage' || (row.ListCost === row.BilledCost && row.ContractedCost === row.BilledCost),
    ],
  ];
  return [...faults.map(([name]) => name), ...more.filter(([, holds]) => !holds).map(([what]) => what)];
}

const MONTH = { fromMs: Date.UTC(2026, 10, 1), toMs: Date.UTC(2026, 11, 1), month: '2026-11' };

interface Used {
  readonly at: number;
  readonly cpuNs: bigint;
  readonly egressBytes: bigint;
}

function invoice(used: readonly Used[], minimum = '3'): Invoice {
  const book = priceBookSchema.parse({
    currency: 'EUR',
    from: '2026-10-01T00:00:00Z',
    issuer: 'Example, SAS',
    prices: { vcpuHour: '0.012345', egressGb: '0.07' },
    offPeak: {
      zone: 'Europe/Paris',
      windows: [{ days: ['sat', 'sun'], from: '00:00', to: '24:00' }],
      prices: { vcpuHour: '0.004' },
    },
    plans: { default: { minimum, free: { egressGb: 5 } } },
    credits: [{ tenant: 'acme', month: '2026-11', amount: '1.5', reason: 'an outage, "on us"' }],
  });
  const none = { memoryByteMs: 7n, requests: 0n, ingressBytes: 0n, heldMs: 0n, snapshotByteMs: 0n, diskByteMs: 0n, streamMs: 0n };
  const hours = used.map(({ at, ...rest }) => ({
    ...none,
    ...rest,
    container: 'c'.repeat(64),
    name: 'web',
    startMs: MONTH.fromMs + at * 3_600_000,
  }));
  const made = invoiceOf({ tenant: 'acme', ...MONTH, books: [{ version: 1, fromMs: bookFromMs(book), book }], hours });
  if (made === undefined) throw new Error('there are no prices');
  return made;
}

const used = fc.record({
  at: fc.nat(719),
  cpuNs: fc.bigInt({ min: -(10n ** 12n), max: 10n ** 17n }),
  egressBytes: fc.bigInt({ min: 0n, max: 10n ** 13n }),
});

describe('FOCUS 1.2', () => {
  test('has every mandatory column, and no column that it does not know', () => {
    expect(FOCUS_COLUMNS.toSorted()).toEqual(Object.keys({ ...MANDATORY, ...OTHERS }).toSorted());
    expect(Object.keys(MANDATORY)).toHaveLength(21);
  });

  test('every row keeps every rule, and the billed costs add up to the invoice', () => {
    fc.assert(
      fc.property(fc.array(used, { maxLength: 20 }), fc.constantFrom('0', '3'), (hours, minimum) => {
        const made = invoice(hours, minimum);
        const rows = focusRows(made);
        expect(rows.flatMap(faultsOf)).toEqual([]);
        expect(rows.reduce((sum, row) => sum + (parseMicros(row.BilledCost) ?? 0n), 0n)).toBe(made.totalMicros);
        expect(new Set(rows.map(({ InvoiceId }) => InvoiceId)).size).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('so do rows of corrections', () => {
    const october = { fromMs: Date.UTC(2026, 9, 1), toMs: MONTH.fromMs };
    fc.assert(
      fc.property(fc.array(used, { maxLength: 9 }), fc.array(used, { maxLength: 9 }), (before, after) => {
        const [issued, now] = [invoice(before), { ...invoice(after), ...october }];
        const corrections = correctionsOf({ month: '2026-10', now, issued: issued.lines, corrected: [] });
        const lines = [...issued.lines, ...corrections];
        const rows = focusRows({ ...issued, lines, totalMicros: sumOf(lines) });
        expect(rows.flatMap(faultsOf)).toEqual([]);
        expect(rows.filter(({ ChargeClass }) => ChargeClass === 'Correction')).toHaveLength(corrections.length);
        expect(rows.reduce((sum, row) => sum + (parseMicros(row.BilledCost) ?? 0n), 0n)).toBe(now.totalMicros);
      }),
    );
  });

  test('the rules find what is against them', () => {
    const [row] = focusRows(invoice([{ at: 1, cpuNs: 10n ** 13n, egressBytes: 0n }]));
    if (row === undefined) throw new Error('there is no row');
    expect(faultsOf(row)).toEqual([]);
    expect(faultsOf({ ...row, BilledCost: '1e3' })).toEqual(['BilledCost']);
    expect(faultsOf({ ...row, PricingQuantity: '' })).toContain('PricingQuantity');
    expect(faultsOf({ ...row, ListCost: '99.000000' })).toEqual(['ListCost is ListUnitPrice times PricingQuantity']);
    expect(faultsOf({ ...row, ChargeCategory: 'Credit' })).toContain('SkuId');
  });

  test('is CSV with the quotes that it needs', () => {
    const csv = focusCsv([invoice([{ at: 1, cpuNs: 10n ** 13n, egressBytes: 0n }])]);
    expect(csv.split('\r\n')[0]).toBe(FOCUS_COLUMNS.join(','));
    expect(csv).toContain('"Example, SAS"');
    expect(csv).toContain('"an outage, ""on us"""');
  });
});

test('CloudEvents have what 1.0 asks for, and the same ids again', () => {
  const draft = invoice([{ at: 1, cpuNs: 10n ** 13n, egressBytes: 10n ** 10n }]);
  const made = { ...draft, issued: { number: 7, atMs: MONTH.toMs } };
  const events = invoiceEvents(made, 'ecluse');
  expect(events).toHaveLength(made.lines.length);
  expect(events[0]).toMatchObject({
    specversion: '1.0',
    type: 'ecluse.invoice.line',
    source: 'ecluse',
    subject: 'acme',
    id: 'acme-2026-11-1',
  });
  expect(invoiceEvents(made, 'ecluse')).toEqual(events);
  // Of one that is not issued they are others, and others again when it says something else.
  const idsOf = (of: Invoice): readonly string[] =>
    invoiceEvents(of, 'ecluse').map((event) => z.looseObject({ id: z.string() }).parse(event).id);
  const later = invoice([{ at: 1, cpuNs: 10n ** 14n, egressBytes: 10n ** 10n }]);
  expect(idsOf(draft)).toEqual(idsOf(draft));
  expect(new Set([...idsOf(made), ...idsOf(draft)]).size).toBe(2 * made.lines.length);
  expect(idsOf(later)[0]).not.toBe(idsOf(draft)[0]);
  // Lines that say the same are events of their own: a credit that was given twice.
  const lines = draft.lines.flatMap((line) => (line.kind === 'credit' ? [line, line] : [line]));
  const twice = idsOf({ ...draft, lines });
  expect(new Set(twice).size).toBe(draft.lines.length + 1);
  expect(twice).toEqual(expect.arrayContaining([...idsOf(draft)]));
});
