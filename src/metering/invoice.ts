/**
 * From what was used in each hour to an invoice. Pure, and in integers only: a line is a quantity times a price, rounded once, half to even, to a millionth
 * of the currency; the total is the sum of the lines.
 *
 * Each hour has the prices of the book that was in force when it began. What counts for a month (the plan's minimum, free units) is that of the book in
 * force when the month began, or of the first one in it. Free units are taken evenly from all use of their kind: the line takes that part of its cost off.
 */
import { energyMicroWh } from './energy.ts';
import { hourPrices, pricesByHour } from './hour-prices.ts';
import { divideHalfEven, microsText } from './money.ts';
import { bookAt, microsOf, planOf, quantityOfUnits } from './price-book.ts';
import type { BookVersion } from './price-book.ts';
import { SKUS } from './skus.ts';
import type { PriceKey, Sku } from './skus.ts';
import { gather, gatherUse } from './usage-lines.ts';
import type { BriefUse, Gathered, PricedHour, UsageLine } from './usage-lines.ts';

export interface TermLine {
  readonly kind: 'allowance' | 'minimum' | 'credit';
  /** Of an allowance. */
  readonly sku: PriceKey | null;
  readonly about: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly amountMicros: bigint;
}

/** What an earlier month's invoice lacks, or has too much. */
export interface CorrectionLine {
  readonly kind: 'correction';
  /** The month that it is about, like `2026-10`. */
  readonly month: string;
  readonly of: 'usage' | TermLine['kind'];
  /** Of use; empty for terms. */
  readonly container: string;
  readonly name: string;
  readonly sku: PriceKey | null;
  readonly about: string;
  /** Of use, in the unit of the ledger: so much more, or less. */
  readonly quantity: bigint;
  readonly fromMs: number;
  readonly toMs: number;
  readonly amountMicros: bigint;
}

export type InvoiceLine = UsageLine | TermLine | CorrectionLine;

export interface Invoice {
  readonly tenant: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly currency: string;
  readonly issuer: string;
  readonly lines: readonly InvoiceLine[];
  readonly totalMicros: bigint;
  /** Watt-hours of its processor time, in millionths: an estimate, by what the price books say of hosts. Null: they say nothing. */
  readonly energyMicroWhEstimate: bigint | null;
  /** Which of the node's invoices it is, and when it was made out. Null: it was not, and is what the ledger and the prices say now. */
  readonly issued: { readonly number: number; readonly atMs: number } | null;
  /** What is to be known of it. */
  readonly notes: readonly string[];
}

interface PricingRequest {
  readonly tenant: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly books: readonly BookVersion[];
  readonly briefUse: BriefUse;
}

export interface InvoiceRequest extends Omit<PricingRequest, 'briefUse'> {
  /** `2026-11`: with what counts for a month. Undefined: use alone. */
  readonly month: string | undefined;
  readonly hours: readonly PricedHour[];
}

/** Undefined: there are no prices for any of it. */
export function invoiceOf({ month, hours, ...request }: InvoiceRequest): Invoice | undefined {
  const pricing = startPricing({ ...request, briefUse: 'apart' });
  for (const own of Map.groupBy(hours, ({ container }) => container).values()) pricing?.add(own);
  return pricing?.invoice(month);
}

/** An invoice of use that is read container by container: no more is kept of it than the lines that there will be. */
export interface Pricing {
  /** All hours of one container. */
  readonly add: (hours: readonly PricedHour[]) => void;
  /** `month`: as of a request. */
  readonly invoice: (month: string | undefined) => Invoice;
}

/** Undefined: there are no prices for any of it. */
export function startPricing(request: PricingRequest): Pricing | undefined {
  const { tenant, fromMs, toMs, books, briefUse } = request;
  const terms = bookAt(books, fromMs) ?? firstBookWithin(books, fromMs, toMs);
  if (terms === undefined) return undefined;
  const pricesAt = pricesByHour(tenant, books);
  const cpuByHour = new Map<number, bigint>();
  const used = gatherUse(briefUse);
  let unpriced = false;
  return {
    add: (hours) => {
      const own = new Map<string, Gathered>();
      for (const hour of hours.toSorted((one, other) => one.startMs - other.startMs)) {
        cpuByHour.set(hour.startMs, (cpuByHour.get(hour.startMs) ?? 0n) + hour.cpuNs);
        const prices = pricesAt(hour.startMs);
        if (prices === undefined) unpriced = true;
        else for (const sku of SKUS) gather(own, hour, sku, prices);
      }
      used.add(hours, [...own.values()]);
    },
    invoice: (month) => {
      const { lines: usage, notes } = used.lines();
      const lines: InvoiceLine[] = [...usage];
      if (month !== undefined) lines.push(...termLines(request, terms, usage, month));
      return {
        tenant,
        fromMs,
        toMs,
        currency: terms.book.currency,
        issuer: terms.book.issuer,
        lines,
        totalMicros: sumOf(lines),
        energyMicroWhEstimate: energyOf(cpuByHour, books),
        issued: null,
        notes: unpriced ? ['something was used before there were prices: it costs nothing', ...notes] : notes,
      };
    },
  };
}

/** Each hour by the book that was in force when it began: of all containers at once, so that it is asked for and rounded once. */
function energyOf(byHour: ReadonlyMap<number, bigint>, books: readonly BookVersion[]): bigint | null {
  let sum: bigint | null = null;
  for (const [startMs, cpuNs] of byHour) {
    const model = bookAt(books, startMs)?.book.energy;
    if (model !== undefined) sum = (sum ?? 0n) + energyMicroWh(cpuNs, model);
  }
  return sum;
}

function firstBookWithin(books: readonly BookVersion[], fromMs: number, toMs: number): BookVersion | undefined {
  const within = books.filter((one) => one.fromMs >= fromMs && one.fromMs < toMs);
  const firstMs = Math.min(...within.map((one) => one.fromMs));
  return within.length === 0 ? undefined : bookAt(within, firstMs);
}

/** With what invoices of earlier months lack: what the tenant gets, and what it says where that is below zero. */
export function madeOut(invoice: Invoice, corrections: readonly CorrectionLine[]): Invoice {
  const lines = [...invoice.lines, ...corrections];
  const totalMicros = sumOf(lines);
  const owed = `the total is below zero: ${microsText(-totalMicros)} ${invoice.currency} are owed to the tenant`;
  return { ...invoice, lines, totalMicros, notes: totalMicros < 0n ? [...invoice.notes, owed] : invoice.notes };
}

export function sumOf(lines: readonly { readonly amountMicros: bigint }[]): bigint {
  return lines.reduce((sum, { amountMicros }) => sum + amountMicros, 0n);
}

/** What a unit of each thing costs a tenant at an instant, in millionths. Undefined: there are no prices yet. */
export function unitPricesAt(
  books: readonly BookVersion[],
  tenant: string,
  atMs: number,
): { readonly currency: string; readonly micros: (price: PriceKey) => bigint } | undefined {
  const found = bookAt(books, atMs);
  if (found === undefined) return undefined;
  const prices = hourPrices(found, tenant, atMs);
  return { currency: found.book.currency, micros: (price) => prices.of(skuOf(price)).unit };
}

/** What counts for a month: free units, then the minimum, then credits. */
function termLines(
  { tenant, fromMs, toMs }: PricingRequest,
  { book }: BookVersion,
  usage: readonly UsageLine[],
  month: string,
): readonly TermLine[] {
  const plan = planOf(book, tenant);
  const base = { fromMs, toMs };
  const lines: TermLine[] = SKUS.flatMap((sku) => {
    const free = quantityOfUnits(plan?.free?.[sku.price], sku.unitSize);
    const of = usage.filter((line) => line.sku === sku.price);
    const used = of.reduce((sum, { quantity }) => sum + quantity, 0n);
    const cost = sumOf(of);
    if (free === 0n || used <= 0n || cost < 0n) return [];
    const taken = free < used ? free : used;
    const amountMicros = -divideHalfEven(cost * taken, used);
    return [{ ...base, kind: 'allowance', sku: sku.price, about: `free: ${sku.about}`, amountMicros }];
  });
  const subtotal = sumOf(usage) + sumOf(lines);
  const minimum = microsOf(plan?.minimum);
  // Who agreed to no minimum is owed what corrections took off beyond the month's use.
  if (minimum > 0n && subtotal < minimum)
    lines.push({
      ...base,
      kind: 'minimum',
      sku: null,
      about: 'up to the minimum of the month',
      amountMicros: minimum - subtotal,
    });
  for (const credit of book.credits.filter((one) => one.tenant === tenant && one.month === month)) {
    const left = sumOf(usage) + sumOf(lines);
    const most = microsOf(credit.amount);
    const taken = left < most ? left : most;
    if (taken > 0n) lines.push({ ...base, kind: 'credit', sku: null, about: credit.reason, amountMicros: -taken });
  }
  return lines;
}

export function skuOf(price: PriceKey): Sku {
  const found = SKUS.find((sku) => sku.price === price);
  if (found === undefined) throw new Error(`there is no SKU ${price}`);
  return found;
}

/** `2026-11` as instants, by UTC; undefined where it is no month. */
export function monthSpan(month: string): { readonly fromMs: number; readonly toMs: number } | undefined {
  if (!/^\d{4}-(?:0[1-9]|1[0-2])$/.test(month)) return undefined;
  const from = Temporal.PlainYearMonth.from(month);
  return { fromMs: startOf(from), toMs: startOf(from.add({ months: 1 })) };
}

function startOf(month: Temporal.PlainYearMonth): number {
  return month.toPlainDate({ day: 1 }).toZonedDateTime('UTC').epochMilliseconds;
}
