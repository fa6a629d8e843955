/** The routes of the admin API for the ledger, prices and invoices. */
import * as z from 'zod';
import { PRICE_BOOK_KEYS, priceBookSchema } from '#metering/price-book.ts';
import { jsonRoute, linesRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { badRequest } from './api-error.ts';
import { changeQuerySchema, parseConfig } from './config-requests.ts';
import { METERING_ANSWERS } from './metering-answers.ts';

const DAY_FAULT = 'a day is written like 2026-11-30';
const day = z.iso.date({ error: DAY_FAULT });
const days = {
  from: day.optional().describe('The first day, by UTC. Absent: from the beginning.'),
  to: day.optional().describe('The last day, by UTC. Absent: to now.'),
};
const tenant = z.string().min(1).max(64).describe('Whose ledger.');
const number = z
  .string()
  .regex(/^\d{1,15}$/, { error: 'a number of a row is an integer of at least 0' })
  .transform(Number);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, { error: 'a digest has 64 hexadecimal digits' });

/** Terms that a sentence of a reason needs, without what would spoil a line of a list. */
const REASON_PATTERN = /^[^\p{Cc}\p{Cs}]{1,200}$/u;
/** What a double holds exactly. */
const counted = z.int().prefault(0);
const byteMs = z
  .string()
  .regex(/^-?\d{1,18}$/, { error: 'it is no integer of up to 18 digits' })
  .prefault('0')
  .transform(BigInt);

export const correctionSchema = z.strictObject({
  container: z.string().min(1).max(256),
  reason: z.string().regex(REASON_PATTERN, { error: 'a reason has 1 to 200 characters on one line' }),
  fromMs: z.int().min(0),
  toMs: z.int().min(0),
  cpuNs: counted,
  memoryByteMs: byteMs,
  requests: counted,
  ingressBytes: counted,
  egressBytes: counted,
  diskByteMs: byteMs,
  streamMs: counted,
});

const MONTH_PATTERN = /^\d{4}-(?:0[1-9]|1[0-2])$/;
const MONTH_FAULT = 'a month is written like 2026-11';
const month = z.string().regex(MONTH_PATTERN, { error: MONTH_FAULT }).describe('Like 2026-11, by UTC.');

export const METERING_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'ledger/keys',
    summary: 'Public halves of the keys that the ledger is signed with',
    answer: METERING_ANSWERS.LedgerKeys,
    handle: async ({ control }) => ({ keys: await control.ledger.keys() }),
  }),
  linesRoute({
    path: 'ledger/verify',
    summary: 'Look through the chains of the ledger',
    query: z.strictObject({ tenant: tenant.optional().describe('Whose. Absent: those of all tenants.'), ...days }),
    refusals: [404],
    progress: METERING_ANSWERS.LedgerProgress,
    report: METERING_ANSWERS.LedgerVerdict,
    handle: async ({ control, query }, say) => ({
      chains: await control.ledger.verify({ tenant: query.tenant, fromDay: query.from, toDay: query.to }, say),
    }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'ledger/export',
    summary: "What an export of a tenant's ledger begins and ends with",
    query: z.strictObject({ tenant, ...days }),
    refusals: [404],
    answer: METERING_ANSWERS.LedgerExport,
    handle: async ({ control, query }) =>
      await control.ledger.exportRange(query.tenant, { fromDay: query.from, toDay: query.to }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'ledger/rows',
    summary: 'Rows of an export, some at a time',
    query: z.strictObject({
      tenant,
      after: number.describe('The number of the row before them.'),
      until: number.describe('The number of the last row of the export.'),
    }),
    answer: METERING_ANSWERS.LedgerRows,
    handle: async ({ control, query }) => await control.ledger.exportPage(query.tenant, query.after, query.until),
  }),
  jsonRoute({
    method: 'POST',
    path: 'ledger/end',
    summary: 'Sign what an export is made of',
    body: z.strictObject({ tenant, rows: z.int().min(0), heads: z.int().min(0), sha256: sha256.describe('Of all its lines.') }),
    answer: METERING_ANSWERS.LedgerEnd,
    handle: async ({ control, body }) => await control.ledger.exportEnd(body),
  }),
  jsonRoute({
    method: 'POST',
    path: 'ledger/corrections',
    summary: 'Add to what the ledger says of a container, or take from it',
    body: correctionSchema,
    status: 201,
    refusals: [404, 409],
    answer: METERING_ANSWERS.LedgerCorrected,
    handle: async ({ control, body }) => await control.ledger.correct(body),
  }),
  jsonRoute({
    method: 'GET',
    path: 'prices',
    summary: 'All price books',
    answer: METERING_ANSWERS.PriceBookList,
    handle: async ({ control }) => ({ books: await control.prices.history() }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'prices/{version}',
    summary: 'A price book',
    answer: METERING_ANSWERS.PriceBook,
    handle: async ({ control, captured }) => await control.prices.show(versionOf(captured('version'))),
  }),
  jsonRoute({
    method: 'POST',
    path: 'prices',
    summary: 'Apply a price book, from the hour on that it names',
    query: changeQuerySchema,
    body: priceBookSchema,
    parseBody: (schema, value) => parseConfig(schema, value, PRICE_BOOK_KEYS),
    status: 201,
    refusals: [409],
    answer: METERING_ANSWERS.PriceBook,
    handle: async ({ control, body, query }) => await control.prices.apply({ ...query, book: body }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'invoices/{tenant}',
    summary: "What a tenant's month costs, line by line",
    query: z.strictObject({ month }),
    answer: METERING_ANSWERS.Invoice,
    handle: async ({ control, captured, query }) =>
      await control.prices.invoice({ tenant: captured('tenant'), month: query.month }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'invoices',
    summary: 'Invoices that were issued',
    query: z.strictObject({ month: month.optional() }),
    answer: METERING_ANSWERS.InvoiceList,
    handle: async ({ control, query }) => ({ invoices: await control.prices.issued(query.month) }),
  }),
  linesRoute({
    path: 'invoices',
    summary: 'Issue the invoices of a month that is over',
    body: z.strictObject({ month, tenant: tenant.exactOptional().describe('Whose. Absent: those of all tenants.') }),
    refusals: [404, 409],
    progress: METERING_ANSWERS.IssueProgress,
    report: METERING_ANSWERS.InvoicesIssued,
    handle: async ({ control, body }, say) => await control.prices.issue({ month: body.month, tenant: body.tenant }, say),
  }),
];

/** Errors: ECLUSE_REQUEST_INVALID. */
function versionOf(text: string): number | undefined {
  if (text === 'last') return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw badRequest(`${text.slice(0, 80)} is no version of a price book`, 'write a whole number, or last');
}
