/**
 * Price books as people write them: what a unit costs from an instant on, cheaper hours, plans with minimums and free allowances, credits. Pure.
 *
 * Amounts are decimals with up to six places, kept as texts; `parseMicros` makes integers of them.
 */
import * as z from 'zod';
import { HOUR_MS } from './hour-pieces.ts';
import { MICROS, parseMicros } from './money.ts';
import { isZone, timeWithinHour, WEEKDAYS } from './off-peak.ts';
import type { PriceKey } from './skus.ts';
import { SKUS } from './skus.ts';

/** More plans or tenants than these are a mistake of a program. */
const PLANS_MAX = 100;
const TENANTS_MAX = 100_000;
const CREDITS_MAX = 10_000;
const WINDOWS_MAX = 28;

const AMOUNT_FAULT = 'write an amount of at least 0 with up to six decimals, like 0.0125';
/** YAML reads `0.0125` as a number, whose shortest text is what was written. */
const amount = z
  .union([z.string(), z.number()], { error: AMOUNT_FAULT })
  .transform(String)
  .refine((text) => (parseMicros(text) ?? -1n) >= 0n, { error: AMOUNT_FAULT });

const time = z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$|^24:00$/, { error: 'write a time of the day like "22:00"' });
const tenantName = z.string().min(1).max(64);

function forEachPrice<T extends z.ZodType>(of: (about: string) => T): Record<PriceKey, T> {
  const [cpu, memory, egress, ingress, requests, snapshots, disk, streams] = SKUS.map(({ about, unit }) =>
    of(`${about}, by ${unit}.`),
  );
  if (!cpu || !memory || !egress || !ingress || !requests || !snapshots || !disk || !streams)
    throw new Error('a price without a SKU');
  return {
    vcpuHour: cpu,
    memoryGibHour: memory,
    egressGb: egress,
    ingressGb: ingress,
    millionRequests: requests,
    snapshotGibMonth: snapshots,
    diskGibMonth: disk,
    streamHour: streams,
  };
}

const prices = z.strictObject(forEachPrice((about) => amount.exactOptional().describe(about)));

const offPeak = z
  .strictObject({
    zone: z
      .string()
      .max(64)
      .refine(isZone, { error: 'there is no such time zone; write one like Europe/Paris' })
      .describe('A time zone of the IANA data base.'),
    windows: z
      .array(
        z.strictObject({
          days: z.array(z.enum(WEEKDAYS)).min(1).max(7).describe('On which days it begins.'),
          from: time,
          to: time.describe('At or before from: on the day after.'),
        }),
      )
      .min(1)
      .max(WINDOWS_MAX),
    prices: prices.describe('What is absent costs as always.'),
  })
  .describe('Cheaper hours.');

const plan = z.strictObject({
  tenants: z
    .array(tenantName)
    .max(TENANTS_MAX)
    .prefault([])
    .describe('Who has it. Others have the plan "default", if there is one.'),
  prices: prices.exactOptional().describe('In the place of the list prices.'),
  minimum: amount.exactOptional().describe('What a month costs at least.'),
  cap: amount.exactOptional().describe('What a month of use may cost: then its containers are put to sleep.'),
  free: prices.exactOptional().describe('How many units of each are free in a month.'),
});

const credit = z.strictObject({
  tenant: tenantName,
  month: z
    .string()
    .regex(/^\d{4}-(?:0[1-9]|1[0-2])$/, { error: 'write a month like 2026-12' })
    .describe('What is left of it then, lapses.'),
  amount,
  reason: z.string().min(1).max(200),
});

const PROCESSORS_MAX = 4096;
const PUE_FAULT = 'write a power usage effectiveness of at least 1, like 1.2';
const energy = z
  .strictObject({
    watts: amount.describe('What a host draws with all its processors busy.'),
    processors: z
      .int({ error: `write how many processors a host has: 1 to ${String(PROCESSORS_MAX)}` })
      .min(1)
      .max(PROCESSORS_MAX)
      .describe('How many a host has.'),
    pue: amount
      .refine((text) => (parseMicros(text) ?? 0n) >= MICROS, { error: PUE_FAULT })
      .prefault('1')
      .describe('Power usage effectiveness: what the building draws for each watt of its machines.'),
  })
  .describe('For an estimate of the energy that processor time took.');

export const priceBookSchema = z
  .strictObject({
    currency: z
      .string()
      .refine((code) => Intl.supportedValuesOf('currency').includes(code), {
        error: 'write a currency by its ISO 4217 code, like EUR',
      })
      .describe('ISO 4217.'),
    issuer: z.string().min(1).max(200).prefault('Écluse').describe('Who makes out the invoices.'),
    from: z.iso
      .datetime({ offset: true, error: 'write an instant like 2026-12-01T00:00:00Z', abort: true })
      .refine((text) => instantOf(text) % HOUR_MS === 0, {
        error: 'prices change on a full hour of UTC, because use is known by the hour',
      })
      .describe('From when on these prices apply: a full hour.'),
    prices: prices.describe('List prices of one unit each. What is absent costs nothing.'),
    offPeak: offPeak.exactOptional(),
    plans: z
      .record(
        z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, { error: 'a plan has a name of small letters, digits and hyphens' }),
        plan,
      )
      .prefault({})
      .refine((plans) => Object.keys(plans).length <= PLANS_MAX, { error: `there are more than ${String(PLANS_MAX)} plans` })
      .describe('By name.'),
    credits: z.array(credit).max(CREDITS_MAX).prefault([]),
    energy: energy.exactOptional(),
  })
  .superRefine((book, context) => {
    for (const { path, message } of bookFaults(book)) context.addIssue({ code: 'custom', path: [...path], message });
  });

/** Keys that are known anywhere in a price book, for a word that was meant. */
export const PRICE_BOOK_KEYS: readonly string[] = [
  ...Object.keys(priceBookSchema.shape),
  ...Object.keys(prices.shape),
  ...Object.keys(offPeak.shape),
  ...Object.keys(plan.shape),
  ...Object.keys(credit.shape),
  ...Object.keys(energy.shape),
  'days',
  'to',
];

export type PriceBook = z.output<typeof priceBookSchema>;
export type Plan = z.output<typeof plan>;

/** A price book in force: none is changed after it was applied. */
export interface BookVersion {
  /** Counts from 1. */
  readonly version: number;
  readonly fromMs: number;
  readonly book: PriceBook;
}

/** Not a number where it is no instant: a fault is looked for in books that have others. */
function instantOf(text: string): number {
  try {
    return Temporal.Instant.from(text).epochMilliseconds;
  } catch {
    return Number.NaN;
  }
}

export function bookFromMs({ from }: Pick<PriceBook, 'from'>): number {
  return instantOf(from);
}

interface Fault {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

type Unchecked = Pick<PriceBook, 'from' | 'prices' | 'offPeak' | 'plans'>;

function bookFaults({ from, prices: list, offPeak: cheaper, plans }: Unchecked): readonly Fault[] {
  const faults: Fault[] = [];
  if (cheaper !== undefined && isZone(cheaper.zone) && !Number.isNaN(instantOf(from))) {
    const within = timeWithinHour(cheaper.zone, cheaper.windows, instantOf(from));
    if (within !== undefined) {
      const message = `${within} in ${cheaper.zone} is in the middle of an hour of UTC, and use is known by the hour`;
      faults.push({ path: ['offPeak', 'windows'], message });
    }
    for (const { price } of SKUS) {
      if (microsOf(cheaper.prices[price]) > microsOf(list[price]))
        faults.push({ path: ['offPeak', 'prices', price], message: 'it is more than the list price: cheaper hours are cheaper' });
    }
  }
  const holders = new Map<string, string>();
  for (const [name, { tenants }] of Object.entries(plans)) {
    for (const [index, tenant] of tenants.entries()) {
      const other = holders.get(tenant);
      if (other !== undefined)
        faults.push({ path: ['plans', name, 'tenants', index], message: `${tenant} has the plan ${other} already` });
      holders.set(tenant, name);
    }
  }
  return faults;
}

/** Absent: nothing. */
export function microsOf(text: string | undefined): bigint {
  return text === undefined ? 0n : (parseMicros(text) ?? 0n);
}

export function planOf({ plans }: PriceBook, tenant: string): Plan | undefined {
  return Object.values(plans).find(({ tenants }) => tenants.includes(tenant)) ?? plans['default'];
}

/** The book that is in force at an instant: the one that began last. Undefined: there was none yet. */
export function bookAt(books: readonly BookVersion[], atMs: number): BookVersion | undefined {
  let found: BookVersion | undefined;
  for (const one of books) {
    if (one.fromMs > atMs) continue;
    if (found === undefined || one.fromMs > found.fromMs || (one.fromMs === found.fromMs && one.version > found.version))
      found = one;
  }
  return found;
}

/** Why a book cannot follow those that there are; undefined: it can. Prices that were in force are not changed. */
export function successionFault(books: readonly BookVersion[], next: PriceBook, nowMs: number): string | undefined {
  const [first] = books;
  if (first === undefined) return undefined;
  if (first.book.currency !== next.currency) return `currency: it is ${first.book.currency} so far, and cannot change`;
  const fromMs = bookFromMs(next);
  if (fromMs <= nowMs) return `from: ${next.from} is over, and prices that were in force are not changed; write a later hour`;
  return undefined;
}

/** Free units as so much of the quantity that is counted. */
export function quantityOfUnits(text: string | undefined, unitSize: bigint): bigint {
  return (microsOf(text) * unitSize) / MICROS;
}
