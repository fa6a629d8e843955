/**
 * What a month's invoice would be today beside what was sent: the difference is of the next invoice. Pure.
 *
 * Rows that came late, corrections and whatever else changes the use of a month that was invoiced: each container's use of each kind, and each term of the
 * month (free units, minimum, credits), is compared with what was billed for it so far, corrections included.
 */
import { resourceName } from './ledger-chain.ts';
import type { CorrectionLine, Invoice, InvoiceLine } from './invoice.ts';
import { skuOf } from './invoice.ts';

interface Billed {
  readonly line: Omit<CorrectionLine, 'amountMicros' | 'quantity' | 'about'>;
  quantity: bigint;
  amountMicros: bigint;
}

export interface CorrectionRequest {
  /** `2026-10`. */
  readonly month: string;
  readonly now: Invoice;
  /** Its own lines, without corrections of other months. */
  readonly issued: readonly InvoiceLine[];
  /** What later invoices had for this month. */
  readonly corrected: readonly CorrectionLine[];
}

/** In the order of what is billed today, and then what is not any more. */
export function correctionsOf({ month, now, issued, corrected }: CorrectionRequest): readonly CorrectionLine[] {
  const span = { fromMs: now.fromMs, toMs: now.toMs };
  const sums = new Map<string, Billed>();
  const add = (line: InvoiceLine, sign: bigint): void => {
    const what = identityOf(line);
    const key = [what.of, what.container, what.sku].join(' ');
    const sum = sums.get(key) ?? { line: { kind: 'correction', month, ...what, ...span }, quantity: 0n, amountMicros: 0n };
    sum.quantity += sign * (line.kind === 'usage' || line.kind === 'correction' ? line.quantity : 0n);
    sum.amountMicros += sign * line.amountMicros;
    sums.set(key, sum);
  };
  for (const line of now.lines) if (line.kind !== 'correction') add(line, 1n);
  for (const line of issued) if (line.kind !== 'correction') add(line, -1n);
  for (const line of corrected) add(line, -1n);
  return [...sums.values()]
    .filter(({ amountMicros }) => amountMicros !== 0n)
    .map(({ line, quantity, amountMicros }) => ({ ...line, about: aboutOf(line), quantity, amountMicros }));
}

function identityOf(line: InvoiceLine): Pick<CorrectionLine, 'of' | 'container' | 'name' | 'sku'> {
  switch (line.kind) {
    case 'usage':
      return { of: 'usage', container: line.container, name: line.name, sku: line.sku };
    case 'correction':
      return { of: line.of, container: line.container, name: line.name, sku: line.sku };
    case 'allowance':
    case 'minimum':
    case 'credit':
      return { of: line.kind, container: '', name: '', sku: line.sku };
  }
}

const TERMS = { allowance: 'free units', minimum: 'up to the minimum of the month', credit: 'credits' } as const;

function aboutOf({ month, of, container, name, sku }: Omit<CorrectionLine, 'amountMicros' | 'quantity' | 'about'>): string {
  const what = of === 'usage' ? `of ${resourceName({ container, name })}` : TERMS[of];
  const kind = sku === null ? '' : ` ${skuOf(sku).about}`;
  return `correction of ${month}:${kind} ${what}`;
}
