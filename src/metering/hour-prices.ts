/** What a tenant pays in an hour: by the book that was in force when it began, its plan, and its tariff. Pure. */
import { isOffPeak } from './off-peak.ts';
import { bookAt, microsOf, planOf } from './price-book.ts';
import type { BookVersion } from './price-book.ts';
import type { PriceKey, Sku } from './skus.ts';

export type Tariff = 'standard' | 'off-peak';

export interface HourPrices {
  readonly version: number;
  readonly tariff: Tariff;
  readonly of: (sku: Sku) => { readonly unit: bigint; readonly list: bigint };
}

/** Prices by the hour in which something was used: asked once for each hour, not for each container. */
export function pricesByHour(tenant: string, books: readonly BookVersion[]): (startMs: number) => HourPrices | undefined {
  const known = new Map<number, HourPrices | undefined>();
  return (startMs) => {
    if (known.has(startMs)) return known.get(startMs);
    const found = bookAt(books, startMs);
    const prices = found === undefined ? undefined : hourPrices(found, tenant, startMs);
    known.set(startMs, prices);
    return prices;
  };
}

export function hourPrices({ version, book }: BookVersion, tenant: string, startMs: number): HourPrices {
  const { offPeak, prices: list } = book;
  const own = planOf(book, tenant)?.prices;
  const isCheaper = offPeak !== undefined && isOffPeak(offPeak.zone, offPeak.windows, startMs);
  const known = new Map<PriceKey, ReturnType<HourPrices['of']>>();
  return {
    version,
    tariff: isCheaper ? 'off-peak' : 'standard',
    of: ({ price }) => {
      const before = known.get(price);
      if (before !== undefined) return before;
      const usual = microsOf(own?.[price] ?? list[price]);
      const cheaper = isCheaper && offPeak.prices[price] !== undefined ? microsOf(offPeak.prices[price]) : usual;
      const found = { unit: cheaper < usual ? cheaper : usual, list: microsOf(list[price]) };
      known.set(price, found);
      return found;
    },
  };
}
