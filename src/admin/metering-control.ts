/** What an operator can see and do about the ledger and prices. */
import type { ChainVerdict, DayRange, ExportPage, ExportRange, VerifyProgress, VerifyRequest } from '#caas/ledger-proof.ts';
import type { ExportEnd } from '#metering/ledger-head.ts';
import type { Invoice } from '#metering/invoice.ts';
import type { BookVersion, PriceBook } from '#metering/price-book.ts';
import type { KnownKey } from '#state/ledger-heads.ts';

/** Adds to what the ledger says of a container, or takes from it. */
export interface CorrectionRequest {
  /** As for `migrate`; also one that is gone, by its id, and a volume, as `volume/ID`. */
  readonly container: string;
  readonly reason: string;
  /** When it was used: within one hour. */
  readonly fromMs: number;
  readonly toMs: number;
  readonly cpuNs: number;
  readonly memoryByteMs: bigint;
  readonly requests: number;
  readonly ingressBytes: number;
  readonly egressBytes: number;
  readonly diskByteMs: bigint;
  readonly streamMs: number;
}

export interface LedgerControl {
  /** Public halves of the keys that it was signed with; the one of today last. */
  keys(): Promise<readonly KnownKey[]>;
  verify(request: VerifyRequest, onProgress: (progress: VerifyProgress) => void): Promise<readonly ChainVerdict[]>;
  /** Errors: ECLUSE_LEDGER_EMPTY. */
  exportRange(tenant: string, days: DayRange): Promise<ExportRange>;
  exportPage(tenant: string, after: number, until: number): Promise<ExportPage>;
  exportEnd(made: Pick<ExportEnd, 'tenant' | 'rows' | 'heads' | 'sha256'>): Promise<ExportEnd>;
  /** Errors: ECLUSE_LEDGER_NO_INCARNATION. */
  correct(request: CorrectionRequest): Promise<{ readonly tenant: string; readonly container: string }>;
}

/** A price book with what is known about it. */
export interface PriceBookView extends BookVersion {
  /** When it was applied. */
  readonly atMs: number;
  readonly note: string;
}

export interface PriceRequest {
  readonly book: PriceBook;
  /** Why, for the history. */
  readonly note: string;
  /** Says whether it can follow; nothing is changed. */
  readonly dryRun: boolean;
}

export interface InvoiceQuery {
  readonly tenant: string;
  /** `2026-11`, by UTC. */
  readonly month: string;
}

export interface IssueRequest {
  /** `2026-11`, by UTC. */
  readonly month: string;
  /** Undefined: of all tenants. */
  readonly tenant: string | undefined;
}

/** An invoice that was issued, without its lines. */
export interface IssuedView {
  readonly tenant: string;
  readonly month: string;
  /** Of all invoices of the node, from 1. */
  readonly number: number;
  readonly atMs: number;
  readonly currency: string;
  /** With six decimals. */
  readonly total: string;
}

export interface IssueProgress {
  readonly tenant: string;
  /** Tenants that were looked at, and all of them. */
  readonly done: number;
  readonly of: number;
}

export interface IssueAnswer {
  readonly issued: readonly IssuedView[];
  /** Whose was not, and why. A fault: it has to be mended, or tried again. */
  readonly skipped: readonly { readonly tenant: string; readonly why: string; readonly isFault: boolean }[];
  /** Months before it that were issued, but not to this tenant, and have something on them by now. */
  readonly left: readonly Omit<IssuedView, 'number' | 'atMs'>[];
}

export interface PriceControl {
  /** By version. */
  history(): Promise<readonly PriceBookView[]>;
  /** Undefined: the last one. Errors: ECLUSE_PRICES_UNKNOWN. */
  show(version: number | undefined): Promise<PriceBookView>;
  /** Errors: ECLUSE_PRICES_REFUSED; nothing was changed. */
  apply(request: PriceRequest): Promise<PriceBookView>;
  /** Errors: ECLUSE_INVOICE_REFUSED, ECLUSE_INVOICE_DAMAGED, ECLUSE_PRICES_UNKNOWN. */
  invoice(query: InvoiceQuery): Promise<Invoice>;
  /** Makes invoices of a month that is over out; they stand from then on. Errors: as above. */
  issue(request: IssueRequest, onProgress: (progress: IssueProgress) => void): Promise<IssueAnswer>;
  /** Those that were issued, by number. Undefined: of all months. */
  issued(month: string | undefined): Promise<readonly IssuedView[]>;
}
