/**
 * From what was used in each hour to an invoice. Pure, and in integers only: a line is a quantity times a price, rounded once, half to even, to a millionth
 * of the currency; the total is the sum of the lines.
 *
 * Each hour has the prices of the book that was in force when it began. What counts for a month (the plan's minimum, free units) is that of the book in
 * force when the month began, or of the first one in it. Free units are taken evenly from all use of their kind: the line takes that part of its cost off.
 */
import { energyMicroWh } from './energy.ts';
import type { Quantities } from './ledger-chain.ts';
import { divideHalfEven, microsText } from './money.ts';
import { isOffPeak } from './off-peak.ts';
import { bookAt, microsOf, planOf, quantityOfUnits } from './price-book.ts';
import type { BookVersion } from './price-book.ts';
import { SKUS } from './skus.ts';
import type { PriceKey, Sku } from './skus.ts';

/** What a container used in one hour of UTC. */
export interface PricedHour extends Quantities {
  readonly container: string;
  readonly name: string;
  readonly startMs: number;
}

export type Tariff = 'standard' | 'off-peak';

export interface UsageLine {
  readonly kind: 'usage';
  readonly container: string;
  readonly name: string;
  readonly sku: PriceKey;
  readonly tariff: Tariff;
  /** Of the price book. */
  readonly version: number;
  readonly fromMs: number;
  readonly toMs: number;
  /** In the unit of the ledger: nanoseconds, byte·ms, bytes, requests. */
  readonly quantity: bigint;
  /** Of one unit, in millionths. */
  readonly unitPriceMicros: bigint;
  readonly listPriceMicros: bigint;
  readonly amountMicros: bigint;
}

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

export interface InvoiceRequest {
  readonly tenant: string;
  readonly fromMs: number;
  readonly toMs: number;
  /** `2026-11`: with what counts for a month. Undefined: use alone. */
  readonly month: string | undefined;
  readonly books: readonly BookVersion[];
  readonly hours: readonly PricedHour[];
}

/** Undefined: there are no prices for any of it. */
export function invoiceOf(request: InvoiceRequest): Invoice | undefined {
  const { tenant, fromMs, toMs, books } = request;
  const terms = bookAt(books, fromMs) ?? firstBookWithin(books, fromMs, toMs);
  if (terms === undefined) return undefined;
  const { lines: usage, unpriced } = usageLines(request);
  const lines: InvoiceLine[] = [...usage];
  if (request.month !== undefined) lines.push(...termLines(request, terms, usage, request.month));
  return {
    tenant,
    fromMs,
    toMs,
    currency: terms.book.currency,
    issuer: terms.book.issuer,
    lines,
    totalMicros: sumOf(lines),
    energyMicroWhEstimate: energyOf(request),
    issued: null,
    notes: unpriced ? ['something was used before there were prices: it costs nothing'] : [],
  };
}

/** Each hour by the book that was in force when it began: of all containers at once, so that it is asked for and rounded once. */
function energyOf({ books, hours }: InvoiceRequest): bigint | null {
  const byHour = new Map<number, bigint>();
  for (const { startMs, cpuNs } of hours) byHour.set(startMs, (byHour.get(startMs) ?? 0n) + cpuNs);
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

interface HourPrices {
  readonly version: number;
  readonly tariff: Tariff;
  readonly of: (sku: Sku) => { readonly unit: bigint; readonly list: bigint };
}

/** Prices by the hour in which something was used: asked once for each hour, not for each container. */
function pricesByHour({ tenant, books }: InvoiceRequest): (startMs: number) => HourPrices | undefined {
  const known = new Map<number, HourPrices | undefined>();
  return (startMs) => {
    if (known.has(startMs)) return known.get(startMs);
    const found = bookAt(books, startMs);
    const prices = found === undefined ? undefined : hourPrices(found, tenant, startMs);
    known.set(startMs, prices);
    return prices;
  };
}

function hourPrices({ version, book }: BookVersion, tenant: string, startMs: number): HourPrices {
  const { offPeak, prices: list } = book;
  const own = planOf(book, tenant)?.prices;
  const isCheaper = offPeak !== undefined && isOffPeak(offPeak.zone, offPeak.windows, startMs);
  return {
    version,
    tariff: isCheaper ? 'off-peak' : 'standard',
    of: ({ price }) => {
      const usual = microsOf(own?.[price] ?? list[price]);
      const cheaper = isCheaper && offPeak.prices[price] !== undefined ? microsOf(offPeak.prices[price]) : usual;
      return { unit: cheaper < usual ? cheaper : usual, list: microsOf(list[price]) };
    },
  };
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

interface Gathered {
  readonly line: Omit<UsageLine, 'amountMicros' | 'quantity' | 'toMs'>;
  readonly sku: Sku;
  quantity: bigint;
  toMs: number;
}

const HOUR_MS = 3_600_000;

/** One line for each container, kind, tariff and price book, in that order. */
function usageLines(request: InvoiceRequest): { readonly lines: readonly UsageLine[]; readonly unpriced: boolean } {
  const pricesAt = pricesByHour(request);
  const gathered = new Map<string, Gathered>();
  let unpriced = false;
  for (const hour of request.hours.toSorted(byContainerAndTime)) {
    const prices = pricesAt(hour.startMs);
    if (prices === undefined) {
      unpriced = true;
      continue;
    }
    for (const sku of SKUS) gather(gathered, hour, sku, prices);
  }
  const lines = [...gathered.values()].map(({ line, sku, quantity, toMs }) => ({
    ...line,
    quantity,
    toMs,
    amountMicros: divideHalfEven(quantity * line.unitPriceMicros, sku.unitSize),
  }));
  const sorted = lines.toSorted(
    (one, other) =>
      one.name.localeCompare(other.name) || one.container.localeCompare(other.container) || order(one.sku) - order(other.sku),
  );
  return { lines: sorted, unpriced };
}

function order(key: PriceKey): number {
  return SKUS.findIndex(({ price }) => price === key);
}

function byContainerAndTime(one: PricedHour, other: PricedHour): number {
  return one.container.localeCompare(other.container) || one.startMs - other.startMs;
}

function gather(gathered: Map<string, Gathered>, hour: PricedHour, sku: Sku, prices: HourPrices): void {
  const quantity = hour[sku.quantity];
  const { unit, list } = prices.of(sku);
  if (quantity === 0n || (unit === 0n && list === 0n)) return;
  const { version, tariff } = prices;
  const key = `${hour.container} ${sku.price} ${tariff} ${String(version)}`;
  const before = gathered.get(key);
  if (before !== undefined) {
    before.quantity += quantity;
    before.toMs = hour.startMs + HOUR_MS;
    return;
  }
  gathered.set(key, {
    line: {
      kind: 'usage',
      container: hour.container,
      name: hour.name,
      sku: sku.price,
      tariff,
      version,
      fromMs: hour.startMs,
      unitPriceMicros: unit,
      listPriceMicros: list,
    },
    sku,
    quantity,
    toMs: hour.startMs + HOUR_MS,
  });
}

/** What counts for a month: free units, then the minimum, then credits. */
function termLines(
  { tenant, fromMs, toMs }: InvoiceRequest,
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
