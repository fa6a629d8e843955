/** Invoices of a node: what a month costs as of now, what was issued, and what an earlier month's invoice lacks. */
import type { IssueAnswer, IssueProgress, IssueRequest, IssuedView } from '#admin/metering-control.ts';
import type { LedgerKeeper } from '#caas/ledger-keeper.ts';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import { correctionsOf } from '#metering/invoice-corrections.ts';
import { madeOut, monthSpan, startPricing, sumOf } from '#metering/invoice.ts';
import type { CorrectionLine, Invoice } from '#metering/invoice.ts';
import { issuedText, parseIssued } from '#metering/issued-invoice.ts';
import { microsText } from '#metering/money.ts';
import type { BookVersion } from '#metering/price-book.ts';
import { hasSharedLines } from '#metering/usage-lines.ts';
import type { BriefUse } from '#metering/usage-lines.ts';
import { insertIssued, lastInvoiceNumber, listIssued, listIssuedHeads } from '#state/invoices.ts';
import type { IssuedHead, IssuedRow } from '#state/invoices.ts';
import { listChains } from '#state/ledger-heads.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { everyTenant, findTenant, wasTenant } from '#state/tenants.ts';

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
/** A setting for each month whose invoices were issued, of whomever. */
const ISSUED_KEY = 'invoices.';
/** Numbers follow each other without gaps: one invoice is issued at a time. */
const ISSUING = 'issuing';

interface Month {
  readonly month: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** What was issued, by month. */
type IssuedMonths = ReadonlyMap<string, Invoice>;

export class Invoices {
  readonly #deps: InvoiceDeps;
  readonly #locks = new KeyedLock();

  constructor(deps: InvoiceDeps) {
    this.#deps = deps;
  }

  /** As it was issued; otherwise as of now, with what issued invoices of the months before lack. Errors: ECLUSE_INVOICE_REFUSED, ECLUSE_INVOICE_DAMAGED, ECLUSE_PRICES_UNKNOWN. */
  async show(tenant: string, month: string): Promise<Invoice> {
    const at = monthOf(month);
    await this.#mustKnow(tenant);
    await this.#deps.flush();
    const issued = await this.#issued(tenant, month);
    const own = issued.get(month);
    if (own !== undefined) return { ...own, notes: [...own.notes, ...(await this.#differenceNotes(at, own, issued))] };
    const invoice = await this.#made(tenant, at);
    const left = await this.#left(tenant, at);
    const notes = left.map((one) => `${one.month} was not issued and has ${one.total} ${one.currency} on it`);
    if (at.toMs > this.#deps.clock.nowMs()) notes.push('the month is not over: this is what there is so far');
    return { ...invoice, notes: [...invoice.notes, ...notes] };
  }

  /** Those that were issued, by number. */
  async issued(month: string | undefined): Promise<readonly IssuedView[]> {
    return (await listIssuedHeads(this.#deps.sql, month)).map(viewOf);
  }

  /** Makes the month's invoices out: they stand from now on. One tenant's fault keeps nobody else from theirs. Errors: as above. */
  async issue({ month, tenant }: IssueRequest, onProgress: (progress: IssueProgress) => void): Promise<IssueAnswer> {
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
    await writeSetting(this.#deps.sql, `${ISSUED_KEY}${month}`, 'issued');
    const tenants = tenant === undefined ? await this.#tenants() : [tenant];
    const answer = {
      issued: [] as IssuedView[],
      skipped: [] as IssueAnswer['skipped'][number][],
      left: [] as IssueAnswer['left'][number][],
    };
    for (const [index, one] of tenants.entries()) {
      try {
        const outcome = await this.#locks.run(ISSUING, async () => await this.#issueOne(one, at));
        if ('why' in outcome) answer.skipped.push({ tenant: one, ...outcome });
        else answer.issued.push(outcome);
        answer.left.push(...(await this.#left(one, at)));
      } catch (error) {
        answer.skipped.push({ tenant: one, why: reasonOf(error), isFault: true });
      }
      onProgress({ tenant: one, done: index + 1, of: tenants.length });
    }
    return answer;
  }

  async #issueOne(tenant: string, at: Month): Promise<IssuedView | { readonly why: string; readonly isFault: boolean }> {
    const { sql, clock } = this.#deps;
    const [before] = (await listIssued(sql, tenant, at.month)).filter(({ month }) => month === at.month);
    if (before !== undefined) {
      const when = new Date(before.issuedMs).toISOString();
      return { why: `it was issued as number ${String(before.number)} on ${when}`, isFault: false };
    }
    // Before it is made: what is issued meanwhile by somebody else takes the number.
    const number = (await lastInvoiceNumber(sql)) + 1;
    const invoice = await this.#made(tenant, at);
    if (invoice.lines.length === 0) return { why: 'there is nothing on it', isFault: false };
    const head = {
      tenant,
      month: at.month,
      number,
      issuedMs: clock.nowMs(),
      currency: invoice.currency,
      total: microsText(invoice.totalMicros),
    };
    const outcome = await insertIssued(sql, { ...head, body: issuedText(invoice) });
    if (outcome.kind === 'conflict') return { why: 'another invoice was issued at this moment; try again', isFault: true };
    return viewOf(head);
  }

  async #tenants(): Promise<readonly string[]> {
    const { sql } = this.#deps;
    const names = [...(await everyTenant(sql)), ...(await listChains(sql)).map(({ tenant }) => tenant)];
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
    return madeOut(invoice, corrections);
  }

  /** What a month costs by what the ledger and the prices say now. */
  async #computed(tenant: string, { month, fromMs, toMs }: Month, briefUse: BriefUse = 'by-number'): Promise<Invoice> {
    const { sql, keeper } = this.#deps;
    const pricing = startPricing({ tenant, fromMs, toMs, books: await this.#deps.books(), briefUse });
    if (pricing !== undefined) {
      let isOfMonth = await wasTenant(sql, tenant, fromMs, toMs);
      await keeper.hours({ tenant, fromMs, untilMs: toMs }, (hours) => {
        isOfMonth = true;
        pricing.add(hours);
      });
      // Who was not there owes no minimum, and gets no credit.
      return pricing.invoice(isOfMonth ? month : undefined);
    }
    throw new EcluseError({
      code: 'ECLUSE_PRICES_UNKNOWN',
      source: 'usage',
      status: 404,
      message: `there are no prices for ${month}`,
      mend: 'write a price book and apply it: ecluse prices apply',
    });
  }

  /** What an issued invoice lacks, and no later one had. */
  async #corrections(at: Month, own: Invoice, issued: IssuedMonths): Promise<readonly CorrectionLine[]> {
    // In the lines that were issued: otherwise each of many containers would be taken off, and come back in lines that they share.
    const now = await this.#computed(own.tenant, at, hasSharedLines(own.lines) ? 'shared' : 'apart');
    const corrected = [...issued.values()].flatMap(({ lines }) =>
      lines.filter((line): line is CorrectionLine => line.kind === 'correction' && line.month === at.month),
    );
    return correctionsOf({ month: at.month, now, issued: own.lines, corrected });
  }

  async #differenceNotes(at: Month, own: Invoice, issued: IssuedMonths): Promise<readonly string[]> {
    const corrections = await this.#corrections(at, own, issued);
    if (corrections.length === 0) return [];
    const lacks = sumOf(corrections);
    const amount = `${lacks < 0n ? '' : '+'}${microsText(lacks)} ${own.currency}`;
    const thisMonth = new Date(this.#deps.clock.nowMs()).toISOString().slice(0, 7);
    const isLooked = monthBefore(thisMonth, CORRECTED_MONTHS) <= at.month;
    const where = isLooked
      ? 'that is of the next invoice'
      : `no invoice will have it, because the month is longer ago than ${String(CORRECTED_MONTHS)} months`;
    return [`since it was issued the ledger says ${amount}: ${where}`];
  }

  /** Months before that were issued, but not to this tenant, and have something on them by now. A month that nobody's invoice was issued of is nobody's concern. */
  async #left(tenant: string, at: Month): Promise<IssueAnswer['left']> {
    const { sql } = this.#deps;
    const heads = await listIssued(sql, tenant, monthBefore(at.month, CORRECTED_MONTHS));
    const isIssued = new Set(heads.map(({ month }) => month));
    const left: IssueAnswer['left'][number][] = [];
    for (let count = CORRECTED_MONTHS; count > 0; count -= 1) {
      const month = monthBefore(at.month, count);
      if (isIssued.has(month) || (await readSetting(sql, `${ISSUED_KEY}${month}`)) === undefined) continue;
      const { lines, totalMicros, currency } = await this.#computed(tenant, monthOf(month)).catch(orNoPrices);
      if (lines.length > 0) left.push({ tenant, month, currency, total: microsText(totalMicros) });
    }
    return left;
  }

  /** From a month on. */
  async #issued(tenant: string, fromMonth: string): Promise<IssuedMonths> {
    const rows = await listIssued(this.#deps.sql, tenant, fromMonth);
    return new Map(rows.map((row) => [row.month, parsed(row)]));
  }
}

/** A month before there were prices costs nothing. */
function orNoPrices(error: unknown): Pick<Invoice, 'lines' | 'totalMicros' | 'currency'> {
  if (error instanceof EcluseError && error.code === 'ECLUSE_PRICES_UNKNOWN') return { lines: [], totalMicros: 0n, currency: '' };
  throw error;
}

function parsed({ tenant, month, number, issuedMs, body }: IssuedRow): Invoice {
  try {
    return parseIssued(body, { number, atMs: issuedMs });
  } catch (error) {
    throw new EcluseError({
      code: 'ECLUSE_INVOICE_DAMAGED',
      source: 'runtime',
      status: 500,
      cause: error,
      message: `the kept invoice ${String(number)} of ${tenant} for ${month} is damaged`,
      mend: 'restore the state file from a backup, or its row in the table invoice from what was sent',
    });
  }
}

function viewOf({ tenant, month, number, issuedMs, currency, total }: IssuedHead): IssuedView {
  return { tenant, month, number, atMs: issuedMs, currency, total };
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
