/** Prices and invoices of a node, over its admin API. */
import type { Invoice } from '#metering/invoice.ts';
import { withQuery } from './admin-call.ts';
import type { Call } from './admin-call.ts';
import type { IssueAnswer, IssuedView, IssueProgress, PriceBookView, PriceControl } from './metering-control.ts';

/** Of an invoice: integers that can exceed what a double holds. */
const INVOICE_BIGINTS: ReadonlySet<string> = new Set([
  'quantity',
  'unitPriceMicros',
  'listPriceMicros',
  'amountMicros',
  'totalMicros',
  'energyMicroWhEstimate',
]);

/** `tell`: a request whose answer comes line by line. */
export function priceClient(
  ask: <T>(call: Call) => Promise<T>,
  tell: (call: Pick<Call, 'path' | 'body'>, onProgress: (progress: IssueProgress) => void) => Promise<IssueAnswer>,
): PriceControl {
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
    issue: async ({ month, tenant }, onProgress) =>
      await tell({ path: 'invoices', body: tenant === undefined ? { month } : { month, tenant } }, onProgress),
    issued: async (month) =>
      (await ask<{ invoices: readonly IssuedView[] }>({ method: 'GET', path: withQuery('invoices', { month }) })).invoices,
  };
}
