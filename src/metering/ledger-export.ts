/**
 * An export of a tenant's ledger: lines of JSON that a tenant can verify without Écluse (`scripts/verify-ledger.mjs`). Quantities are texts of digits,
 * because they can exceed what JSON readers keep exactly. Pure.
 *
 *   {"export":{…}}   the format, the tenant, the public key, and the head that the rows go on from (null: from the first row of the chain)
 *   {"row":{…}}      in the order of their numbers
 *   {"head":{…}}     after the row that it is about
 *   {"end":{…}}      how many there were, and a signature over the digest of all lines before
 */
import { mapQuantities } from './ledger-chain.ts';
import type { ChainTotals, Quantities } from './ledger-chain.ts';
import type { HashedRow } from './chain-check.ts';
import type { ExportEnd, LedgerHead } from './ledger-head.ts';

const EXPORT_FORMAT = 'ecluse-ledger-export-2';

type Texts<K extends string> = Readonly<Record<K, string>>;

/** Quantities as text: some are beyond what numbers of JSON hold. */
export type RowLine = Omit<HashedRow, keyof Quantities> & Texts<keyof Quantities>;

export interface HeadLine {
  readonly format: number;
  readonly tenant: string;
  readonly day: string;
  readonly sequence: number;
  readonly number: number;
  readonly hash: string;
  readonly totals: Texts<keyof ChainTotals>;
  readonly signedMs: number;
  readonly key: string;
  readonly signature: string;
}

export interface ExportStart {
  readonly tenant: string;
  readonly key: { readonly id: string; readonly publicKey: string };
  /** Keys that the node signed with earlier. */
  readonly earlierKeys: readonly { readonly id: string; readonly publicKey: string }[];
  readonly after: HeadLine | null;
}

export type ExportLine =
  | { readonly export: ExportStart & { readonly format: typeof EXPORT_FORMAT } }
  | { readonly row: RowLine }
  | { readonly head: HeadLine }
  | { readonly end: ExportEnd };

export function startLine(start: ExportStart): ExportLine {
  return { export: { format: EXPORT_FORMAT, ...start } };
}

export function rowLine(row: HashedRow): RowLine {
  const { format, tenant, number, kind, reason, container, incarnation, seq, host, fromMs, toMs, hash } = row;
  return { format, tenant, number, kind, reason, container, incarnation, seq, host, fromMs, toMs, ...quantityTexts(row), hash };
}

export function headLine({ totals, ...head }: LedgerHead): HeadLine {
  const { format, tenant, day, sequence, number, hash, signedMs, key, signature } = head;
  return { format, tenant, day, sequence, number, hash, totals: totalTexts(totals), signedMs, key, signature };
}

function quantityTexts(quantities: Quantities): Texts<keyof Quantities> {
  return mapQuantities((name) => String(quantities[name]));
}

const NO_LATER = { diskByteMs: '0', streamMs: '0' } satisfies Partial<Texts<keyof Quantities>>;

/** As they are kept and exported. */
export function totalTexts(totals: ChainTotals): Texts<keyof ChainTotals> {
  return { rows: String(totals.rows), ...quantityTexts(totals) };
}

/** What was not counted yet when they were written is none. Throws a TypeError where one of them is no integer. */
export function totalsOf(texts: Readonly<Record<string, unknown>>): ChainTotals {
  const known: Readonly<Record<string, unknown>> = { ...NO_LATER, ...texts };
  const sums = mapQuantities((name) => integerOf(name, known[name]));
  return { rows: integerOf('rows', texts['rows']), ...sums };
}

function integerOf(name: string, text: unknown): bigint {
  if (typeof text !== 'string' || !/^-?\d+$/.test(text)) throw new TypeError(`the sum ${name} of a ledger is no integer`);
  return BigInt(text);
}
