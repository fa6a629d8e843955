/** Invoices of a node: what a month costs as of now, what was issued, and what an earlier month's invoice lacks. */
import type { IssueAnswer, IssueRequest } from '#admin/metering-control.ts';
import type { LedgerKeeper } from '#caas/ledger-keeper.ts';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { correctionsOf } from '#metering/invoice-corrections.ts';
import { invoiceOf, monthSpan, sumOf } from '#metering/invoice.ts';
import type { CorrectionLine, Invoice } from '#metering/invoice.ts';
import { issuedText, parseIssued } from '#metering/issued-invoice.ts';
import { microsText } from '#metering/money.ts';
import type { BookVersion } from '#metering/price-book.ts';
import { insertIssued, lastInvoiceNumber, listIssued } from '#state/invoices.ts';
import { listChains } from '#state/ledger-heads.ts';
import type { Sql } from '#state/sql.ts';
import { findTenant, listTenants } from '#state/tenants.ts';

export interface InvoiceDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly keeper: Pick<LedgerKeeper, 'hours'>;
  /** What is being counted goes into the ledger first, so that an invoice is of this moment. */
  readonly flush: () => Promise<void>;
  readonly books: () => Promise<readonly BookVersion[]>;
}

/** The last intervals of a month are written within ten seconds, what the edge tells late within a minute and a half. */
const SETTLED_MS = 5 * 60_000;
/** A month is looked through again in the invoices of so many months after it: each costs as much as an invoice. */
const CORRECTED_MONTHS = 3;

interface Month {
  readonly month: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export class Invoices {
  readonly #deps: InvoiceDeps;

  constructor(deps: InvoiceDeps) {
    this.#deps = deps;
  }

  /** As it was issued; otherwise as of now, with what issued invoices of the months before lack. Errors: ECLUSE_INVOICE_REFUSED, ECLUSE_PRICES_UNKNOWN. */
  async show(tenant: string, month: string): Promise<Invoice> {
    const at = monthOf(month);
    await this.#mustKnow(tenant);
    await this.#deps.flush();
    const issued = await this.#issued(tenant, month);
    const own = issued.get(month);
    if (own !== undefined) return { ...own, notes: [...own.notes, ...(await this.#differenceNotes(at, own, issued))] };
    const invoice = await this.#made(tenant, at);
    if (at.toMs <= this.#deps.clock.nowMs()) return invoice;
    return { ...invoice, notes: [...invoice.notes, 'the month is not over: this is what there is so far'] };
  }

  /** Makes the month's invoices out: they stand from now on. Errors: as above. */
  async issue({ month, tenant }: IssueRequest): Promise<IssueAnswer> {
    const at = monthOf(month);
    const sinceMs = this.#deps.clock.nowMs() - at.toMs;
    if (sinceMs < SETTLED_MS)
      throw refusal(
        409,
        `${month} is not over yet, or its last minutes are still being written`,
        'try again five minutes into the next month',
      );
    if (tenant !== undefined) await this.#mustKnow(tenant);
    await this.#deps.flush();
    const tenants = tenant === undefined ? await this.#tenants() : [tenant];
    const answer: { issued: Invoice[]; skipped: { tenant: string; why: string }[] } = { issued: [], skipped: [] };
    for (const one of tenants) {
      const outcome = await this.#issueOne(one, at);
      if (typeof outcome === 'string') answer.skipped.push({ tenant: one, why: outcome });
      else answer.issued.push(outcome);
    }
    return answer;
  }

  async #issueOne(tenant: string, at: Month): Promise<Invoice | string> {
    const { sql, clock } = this.#deps;
    const before = (await this.#issued(tenant, at.month)).get(at.month)?.issued;
    if (before !== undefined && before !== null)
      return `it was issued as number ${String(before.number)} on ${new Date(before.atMs).toISOString()}`;
    const invoice = await this.#made(tenant, at);
    if (invoice.lines.length === 0) return 'there is nothing on it';
    const number = (await lastInvoiceNumber(sql)) + 1;
    const issuedMs = clock.nowMs();
    const row = { tenant, month: at.month, number, issuedMs, body: issuedText(invoice) };
    const outcome = await insertIssued(sql, row, microsText(invoice.totalMicros));
    if (outcome.kind === 'conflict') return 'another invoice was issued at this moment; try again';
    return { ...invoice, issued: { number, atMs: issuedMs } };
  }

  async #tenants(): Promise<readonly string[]> {
    const { sql } = this.#deps;
    const names = [...(await listTenants(sql)).map(({ name }) => name), ...(await listChains(sql)).map(({ tenant }) => tenant)];
    return [...new Set(names)].toSorted((one, other) => one.localeCompare(other));
  }

  async #mustKnow(tenant: string): Promise<void> {
    const { sql } = this.#deps;
    if ((await findTenant(sql, tenant)) !== undefined) return;
    if ((await listChains(sql)).some((chain) => chain.tenant === tenant)) return;
    throw refusal(404, `tenant ${tenant} does not exist`, 'see: ecluse tenant ls');
  }

  async #made(tenant: string, at: Month): Promise<Invoice> {
    const invoice = await this.#computed(tenant, at);
    const issued = await this.#issued(tenant, monthBefore(at.month, CORRECTED_MONTHS));
    const corrections: CorrectionLine[] = [];
    for (const [month, earlier] of issued)
      if (month < at.month) corrections.push(...(await this.#corrections(monthOf(month), earlier, issued)));
    if (corrections.length === 0) return invoice;
    const lines = [...invoice.lines, ...corrections];
    return { ...invoice, lines, totalMicros: sumOf(lines) };
  }

  /** What a month costs by what the ledger and the prices say now. */
  async #computed(tenant: string, { month, fromMs, toMs }: Month): Promise<Invoice> {
    const [books, hours] = [await this.#deps.books(), await this.#deps.keeper.hours(tenant, fromMs, toMs)];
    const invoice = invoiceOf({ tenant, fromMs, toMs, month, books, hours });
    if (invoice !== undefined) return invoice;
    throw new EcluseError({
      code: 'ECLUSE_PRICES_UNKNOWN',
      source: 'usage',
      status: 404,
      message: `there are no prices for ${month}`,
      mend: 'write a price book and apply it: ecluse prices apply',
    });
  }

  /** What an issued invoice lacks, and no later one had. */
  async #corrections(at: Month, own: Invoice, issued: ReadonlyMap<string, Invoice>): Promise<readonly CorrectionLine[]> {
    const now = await this.#computed(own.tenant, at);
    const corrected = [...issued.values()].flatMap(({ lines }) =>
      lines.filter((line): line is CorrectionLine => line.kind === 'correction' && line.month === at.month),
    );
    return correctionsOf({ month: at.month, now, issued: own.lines, corrected });
  }

  async #differenceNotes(at: Month, own: Invoice, issued: ReadonlyMap<string, Invoice>): Promise<readonly string[]> {
    const lacks = sumOf(await this.#corrections(at, own, issued));
    if (lacks === 0n) return [];
    return [
      `since it was issued the ledger says ${lacks > 0n ? '+' : ''}${microsText(lacks)} ${own.currency}: that is of the next invoice`,
    ];
  }

  /** By month, from one on. */
  async #issued(tenant: string, fromMonth: string): Promise<ReadonlyMap<string, Invoice>> {
    const rows = await listIssued(this.#deps.sql, tenant, fromMonth);
    return new Map(rows.map(({ month, number, issuedMs, body }) => [month, parseIssued(body, { number, atMs: issuedMs })]));
  }
}

function monthOf(month: string): Month {
  const span = monthSpan(month);
  if (span === undefined) throw refusal(400, `${month} is no month`, 'write one like 2026-11');
  return { month, ...span };
}

function monthBefore(month: string, count: number): string {
  return Temporal.PlainYearMonth.from(month).subtract({ months: count }).toString();
}

function refusal(status: number, message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_INVOICE_REFUSED', source: 'usage', status, message, mend });
}
