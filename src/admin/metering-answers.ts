/** What the admin API answers about the ledger, prices and invoices: the schemas of the OpenAPI document, as those in `answers.ts`. */
import * as z from 'zod';
import { mapQuantities } from '#metering/ledger-chain.ts';
import { SKUS } from '#metering/skus.ts';

const instantMs = z.int().describe('Milliseconds since 1970.');
const count = z.int().min(0);
const digits = z.string().describe('An integer of any size, in digits.');
const sha256 = z.string().describe('SHA-256 in hexadecimal digits.');
const quantities = mapQuantities(() => digits);

const key = z.object({
  id: sha256.describe('Names the key: SHA-256 of its public half.'),
  publicKey: z.string().describe('PEM.'),
});

const format = z.int().min(1).describe('What of it is hashed or signed.');

const head = z.object({
  format,
  tenant: z.string(),
  day: z.string().describe('By UTC; "open": between the ends of two days.'),
  sequence: count.describe("Which of the chain's heads it is, from 1; 0: from before they were counted."),
  number: count.describe('The last row of the chain.'),
  hash: sha256,
  totals: z.object({ rows: digits, ...quantities }).describe('Of all rows up to it.'),
  signedMs: instantMs,
  key: sha256,
  signature: z.string().describe('Ed25519, Base64.'),
});

const row = z.object({
  format,
  tenant: z.string(),
  number: count,
  kind: z.string().describe('interval, snapshot, disk or correction.'),
  reason: z.string(),
  container: z.string(),
  incarnation: count,
  seq: z.int(),
  host: z.string(),
  fromMs: instantMs,
  toMs: instantMs,
  ...quantities,
  hash: sha256,
});

const verdict = z.object({
  tenant: z.string(),
  rows: count.describe('How many were looked at.'),
  number: count.describe('The last row that was.'),
  heads: count,
  fromBefore: count.describe('Rows from before the chain: it proves that they did not change since.'),
  corrections: count,
  dropped: count.describe('Rows that were dropped because they were old.'),
  fault: z
    .object({
      number: z.int(),
      text: z.string(),
      mend: z.string().optional().describe('What to do. Absent: compare the store with a backup.'),
    })
    .nullable()
    .describe('The first that does not fit; null: it fits.'),
});

const exact = z.bigint().describe('An integer of any size.');
const micros = z.bigint().describe('Millionths of the currency; of any size.');

const priceBook = z.object({
  version: z.int().min(1),
  fromMs: instantMs,
  atMs: instantMs.describe('When it was applied.'),
  note: z.string(),
  book: z.record(z.string(), z.unknown()).describe('As it was written, with defaults.'),
});

const priceKey = z.enum(SKUS.map(({ price }) => price));
const line = { fromMs: instantMs, toMs: instantMs, amountMicros: micros };
const invoiceLine = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('usage'),
    container: z.string(),
    name: z.string(),
    sku: priceKey,
    tariff: z.enum(['standard', 'off-peak']),
    version: z.int().describe('Of the price book.'),
    quantity: exact.describe('In the unit of the ledger.'),
    unitPriceMicros: micros,
    listPriceMicros: micros,
    ...line,
  }),
  z.object({ kind: z.enum(['allowance', 'minimum', 'credit']), sku: priceKey.nullable(), about: z.string(), ...line }),
  z.object({
    kind: z.literal('correction'),
    month: z.string().describe('The month that it is about, which was invoiced already.'),
    of: z.enum(['usage', 'allowance', 'minimum', 'credit']),
    container: z.string(),
    name: z.string(),
    sku: priceKey.nullable(),
    about: z.string(),
    quantity: exact.describe('Of use, in the unit of the ledger: so much more, or less.'),
    ...line,
  }),
]);

const invoice = z.object({
  tenant: z.string(),
  fromMs: instantMs,
  toMs: instantMs,
  currency: z.string(),
  issuer: z.string(),
  lines: z.array(invoiceLine),
  totalMicros: micros.describe('The sum of the lines.'),
  energyMicroWhEstimate: micros
    .nullable()
    .describe('An estimate: watt-hours of its processor time, in millionths. Null: the price books say nothing of energy.'),
  issued: z
    .object({ number: z.int().min(1).describe('Of all invoices of the node.'), atMs: instantMs })
    .nullable()
    .describe('Null: it was not issued, and is what the ledger and the prices say now.'),
  notes: z.array(z.string()),
});

const issued = z.object({
  tenant: z.string(),
  month: z.string(),
  number: z.int().min(1).describe('Of all invoices of the node.'),
  atMs: instantMs,
  currency: z.string(),
  total: z.string().describe('In the currency, with six decimals.'),
});

/** By the names that they have in the document. */
export const METERING_ANSWERS = {
  LedgerKeys: z.object({ keys: z.array(key.extend({ sinceMs: instantMs })).describe('The one of today last.') }),
  LedgerProgress: z.object({
    tenant: z.string(),
    what: z.enum(['rows', 'sums']).describe('What is looked at: rows of its chain, or containers whose sums are added up.'),
    rows: count.describe('How many of them were.'),
    of: z.int(),
  }),
  LedgerVerdict: z.object({ chains: z.array(verdict) }),
  LedgerExport: z.object({
    start: z.object({ tenant: z.string(), key, earlierKeys: z.array(key), after: head.nullable() }),
    until: count.describe('The number of the last row of it.'),
    openHead: head.nullable().describe('Over the last row, where it ends between two days.'),
  }),
  LedgerRows: z.object({ rows: z.array(row), heads: z.array(head).describe('Those over these rows.') }),
  LedgerEnd: z.object({ tenant: z.string(), rows: count, heads: count, sha256, key: sha256, signature: z.string() }),
  PriceBookList: z.object({ books: z.array(priceBook).describe('By version.') }),
  PriceBook: priceBook,
  Invoice: invoice,
  InvoiceList: z.object({ invoices: z.array(issued).describe('By number.') }),
  IssueProgress: z.object({ tenant: z.string(), done: count.describe('Tenants that were looked at.'), of: count }),
  InvoicesIssued: z.object({
    issued: z.array(issued),
    skipped: z.array(
      z.object({
        tenant: z.string(),
        why: z.string(),
        isFault: z.boolean().describe('It has to be mended, or tried again.'),
      }),
    ),
    left: z
      .array(z.object({ tenant: z.string(), month: z.string(), currency: z.string(), total: z.string() }))
      .describe('Months before it that were issued, but not to this tenant, and have something on them by now.'),
  }),
  LedgerCorrected: z.object({ tenant: z.string(), container: z.string() }),
} as const;
