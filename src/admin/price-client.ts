/** Prices and invoices of a node, over its admin API. */
import type { Invoice } from '#metering/invoice.ts';
import { withQuery } from './admin-call.ts';
import type { Call } from './admin-call.ts';
import type { IssueAnswer, PriceBookView, PriceControl } from './metering-control.ts';

/** Of an invoice: integers that can exceed what a double holds. */
const INVOICE_BIGINTS: ReadonlySet<string> = new Set([
  'quantity',
  'unitPriceMicros',
  'listPriceMicros',
  'amountMicros',
  'totalMicros',
  'energyMicroWhEstimate',
]);

/** A thousand tenants with a hundred containers each take half a second each. */
const ISSUE_TIMEOUT_MS = 15 * 60_000;

export function priceClient(ask: <T>(call: Call) => Promise<T>): PriceControl {
  return {
    history: async () => (await ask<{ books: readonly PriceBookView[] }>({ method: 'GET', path: 'prices' })).books,
    show: async (version) => await ask<PriceBookView>({ method: 'GET', path: `prices/${String(version ?? 'last')}` }),
    apply: async ({ book, note, dryRun }) =>
      await ask<PriceBookView>({
        method: 'POST',
        path: withQuery('prices', { note: note === '' ? undefined : note, dryRun: dryRun ? '1' : undefined }),
        body: book,
      }),
    invoice: async ({ tenant, month }) => {
      const path = withQuery(`invoices/${encodeURIComponent(tenant)}`, { month });
      return await ask<Invoice>({ method: 'GET', path, bigints: INVOICE_BIGINTS });
    },
    issue: async ({ month, tenant }) => {
      const body = tenant === undefined ? { month } : { month, tenant };
      return await ask<IssueAnswer>({
        method: 'POST',
        path: 'invoices',
        body,
        bigints: INVOICE_BIGINTS,
        patienceMs: ISSUE_TIMEOUT_MS,
      });
    },
  };
}
