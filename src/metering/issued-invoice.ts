/** An invoice as it is kept once it is issued: JSON, with integers of any size as texts of digits. */
import * as z from 'zod';
import type { Invoice } from './invoice.ts';
import { SKUS } from './skus.ts';

const exact = z
  .string()
  .regex(/^-?\d+$/)
  .transform(BigInt);
const sku = z.enum(SKUS.map(({ price }) => price));
const line = { fromMs: z.int(), toMs: z.int(), amountMicros: exact };

const schema = z.strictObject({
  tenant: z.string(),
  fromMs: z.int(),
  toMs: z.int(),
  currency: z.string(),
  issuer: z.string(),
  lines: z.array(
    z.discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('usage'),
        container: z.string(),
        name: z.string(),
        sku,
        tariff: z.enum(['standard', 'off-peak']),
        version: z.int(),
        quantity: exact,
        unitPriceMicros: exact,
        listPriceMicros: exact,
        ...line,
      }),
      z.strictObject({ kind: z.enum(['allowance', 'minimum', 'credit']), sku: sku.nullable(), about: z.string(), ...line }),
      z.strictObject({
        kind: z.literal('correction'),
        month: z.string(),
        of: z.enum(['usage', 'allowance', 'minimum', 'credit']),
        container: z.string(),
        name: z.string(),
        sku: sku.nullable(),
        about: z.string(),
        quantity: exact,
        ...line,
      }),
    ]),
  ),
  totalMicros: exact,
  energyMicroWhEstimate: exact.nullable(),
  notes: z.array(z.string()),
});

export function issuedText({ issued: _issued, ...invoice }: Invoice): string {
  return JSON.stringify(invoice, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
}

/** Errors: a ZodError or SyntaxError where it is not what was kept. */
export function parseIssued(text: string, issued: NonNullable<Invoice['issued']>): Invoice {
  return { ...schema.parse(JSON.parse(text)), issued };
}
