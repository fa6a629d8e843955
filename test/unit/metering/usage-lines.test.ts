/** Lines of use: where many containers come and go they share some, and nothing is lost by it. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { invoiceOf, startPricing, sumOf } from '#metering/invoice.ts';
import type { Invoice, InvoiceLine } from '#metering/invoice.ts';
import { focusRows } from '#metering/invoice-formats.ts';
import { issuedText, parseIssued } from '#metering/issued-invoice.ts';
import { mapQuantities } from '#metering/ledger-chain.ts';
import { bookFromMs, priceBookSchema } from '#metering/price-book.ts';
import { BRIEF_MAX, hasSharedLines } from '#metering/usage-lines.ts';
import type { BriefUse, PricedHour, UsageLine } from '#metering/usage-lines.ts';

const HOUR_MS = 3_600_000;
const NONE = mapQuantities(() => 0n);
const MONTH = { tenant: 'acme', fromMs: Date.UTC(2026, 10, 1), toMs: Date.UTC(2026, 11, 1) };
const BOOKS = ['2026-11-01T00:00:00Z', '2026-11-01T07:00:00Z'].map((from, index) => {
  const book = priceBookSchema.parse({
    currency: 'EUR',
    from,
    prices: { vcpuHour: `0.01${String(index)}`, egressGb: '0.07', diskGibMonth: '0.1' },
    offPeak: { zone: 'UTC', windows: [{ days: ['sun'], from: '02:00', to: '05:00' }], prices: { vcpuHour: '0.004' } },
    plans: { default: { free: { egressGb: 1 }, minimum: '0.5' } },
  });
  return { version: index + 1, fromMs: bookFromMs(book), book };
});

/** Of one container: `startHour` and the hours that it was used in. */
function hoursOf(container: string, startHour: number, hours: number, seed: number): readonly PricedHour[] {
  return Array.from({ length: hours }, (_, index) => ({
    ...NONE,
    container,
    name: `job-${String(seed % 7)}`,
    startMs: MONTH.fromMs + (startHour + index) * HOUR_MS,
    cpuNs: BigInt(seed) * 104_729_000_000n + 7n,
    egressBytes: BigInt(seed) * 7_919_000n,
    diskByteMs: container.startsWith('volume/') ? BigInt(seed) * 2n ** 50n : 0n,
  }));
}

function made(briefUse: BriefUse, containers: readonly (readonly PricedHour[])[]): Invoice {
  const pricing = startPricing({ ...MONTH, books: BOOKS, briefUse });
  if (pricing === undefined) throw new Error('there are no prices');
  for (const hours of containers) pricing.add(hours);
  return pricing.invoice('2026-11');
}

const isUsage = (line: InvoiceLine): line is UsageLine => line.kind === 'usage';

function brief(count: number): readonly (readonly PricedHour[])[] {
  return Array.from({ length: count }, (_, index) =>
    hoursOf(`${index % 5 === 0 ? 'volume/' : ''}c${String(index)}`, index % 9, 1 + (index % 2), index + 1),
  );
}

test('so many as people can read have lines of their own, one more and they share some', () => {
  const long = hoursOf('long', 0, 3, 5);
  const few = made('by-number', [long, ...brief(BRIEF_MAX)]);
  expect(few).toEqual(invoiceOf({ ...MONTH, month: '2026-11', books: BOOKS, hours: [long, ...brief(BRIEF_MAX)].flat() }));
  expect([few.notes, hasSharedLines(few.lines)]).toEqual([[], false]);
  const many = made('by-number', [long, ...brief(BRIEF_MAX + 1)]);
  expect(hasSharedLines(many.lines)).toBe(true);
  expect(many.notes).toEqual([
    '1001 containers and volumes of less than two hours share lines, because they are many; see: ecluse usage --by container',
  ]);
  const usage = many.lines.filter(isUsage);
  expect(new Set(usage.map(({ container }) => container))).toEqual(new Set(['long', 'brief', 'volume/brief']));
  expect(usage.filter(({ container }) => container === 'long')).toEqual(
    few.lines.filter((line) => isUsage(line) && line.container === 'long'),
  );
  expect(many.lines.length).toBeLessThan(40); // By kind, tariff and book.
});

test('shared or not, everything used is on a line once, each is rounded once, and the total is their sum', () => {
  const one = fc.record({
    startHour: fc.nat(700),
    hours: fc.integer({ min: 1, max: 3 }),
    seed: fc.nat(10 ** 6),
    disk: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 40 }), (list) => {
      const containers = list.map(({ startHour, hours, seed, disk }, index) =>
        hoursOf(`${disk ? 'volume/' : ''}c${String(index)}`, startHour, hours, seed),
      );
      const [apart, shared] = [made('apart', containers), made('shared', containers)];
      expect(shared.totalMicros).toBe(sumOf(shared.lines));
      const quantities = ({ lines }: Invoice): ReadonlyMap<string, bigint> => {
        const sums = new Map<string, bigint>();
        for (const { sku, tariff, version, quantity } of lines.filter(isUsage)) {
          const key = `${sku} ${tariff} ${String(version)}`;
          sums.set(key, (sums.get(key) ?? 0n) + quantity);
        }
        return sums;
      };
      expect(quantities(shared)).toEqual(quantities(apart));
      // Half a millionth for each line that is rounded, and one for free units.
      const off = sumOf(shared.lines.filter(isUsage)) - sumOf(apart.lines.filter(isUsage));
      expect(2 * Math.abs(Number(off))).toBeLessThanOrEqual(apart.lines.length + shared.lines.length);
      expect(shared.lines.every(({ fromMs, toMs }) => fromMs >= MONTH.fromMs && fromMs < toMs && toMs <= MONTH.toMs)).toBe(true);
      expect(shared.energyMicroWhEstimate).toEqual(apart.energyMicroWhEstimate);
      const issued = { number: 1, atMs: MONTH.toMs };
      expect(parseIssued(issuedText(shared), issued)).toEqual({ ...shared, issued });
      // FOCUS asks for a resource in each row of usage.
      const rows = focusRows(shared).filter(({ ChargeCategory }) => ChargeCategory === 'Usage');
      expect(rows.every((row) => row.ResourceId !== '' && row.ResourceName !== '' && row.ResourceType !== '')).toBe(true);
    }),
    { numRuns: 60 },
  );
});
