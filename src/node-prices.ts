/** Prices and invoices of a node, as operators ask for them. */
import type {
  InvoiceQuery,
  IssueAnswer,
  IssuedView,
  IssueProgress,
  IssueRequest,
  PriceBookView,
  PriceControl,
  PriceRequest,
} from '#admin/metering-control.ts';
import { EcluseError } from '#errors';
import type { Invoice } from '#metering/invoice.ts';
import { bookFromMs, priceBookSchema, successionFault } from '#metering/price-book.ts';
import { insertPriceBook, listPriceBooks } from '#state/price-books.ts';
import type { Sql } from '#state/sql.ts';
import { Invoices } from './node-invoices.ts';
import type { InvoiceDeps } from './node-invoices.ts';

interface PriceDeps extends Omit<InvoiceDeps, 'books'> {
  /** Told when prices were applied. */
  readonly changed: () => void;
}

/** A node has one for each change of its prices. */
const BOOKS_MAX = 10_000;

export class PriceOperations implements PriceControl {
  readonly #deps: PriceDeps;
  readonly #invoices: Invoices;

  constructor(deps: PriceDeps) {
    this.#deps = deps;
    this.#invoices = new Invoices({ ...deps, books: async () => await this.history() });
  }

  async history(): Promise<readonly PriceBookView[]> {
    return await readPriceBooks(this.#deps.sql);
  }

  async show(version: number | undefined): Promise<PriceBookView> {
    const books = await this.history();
    const found = version === undefined ? books.at(-1) : books.find((one) => one.version === version);
    if (found !== undefined) return found;
    const what = version === undefined ? 'there are no prices yet' : `there is no price book ${String(version)}`;
    throw refusal('ECLUSE_PRICES_UNKNOWN', 404, what, 'see: ecluse prices history, ecluse prices apply');
  }

  async apply({ book, note, dryRun }: PriceRequest): Promise<PriceBookView> {
    const { sql, clock } = this.#deps;
    const books = await this.history();
    const atMs = clock.nowMs();
    const fault = successionFault(books, book, atMs);
    if (fault !== undefined) throw refusal('ECLUSE_PRICES_REFUSED', 409, fault, 'nothing was changed; mend that and try again');
    if (books.length >= BOOKS_MAX)
      throw refusal('ECLUSE_PRICES_REFUSED', 507, `there are ${String(BOOKS_MAX)} price books`, 'apply no more');
    const view: PriceBookView = { version: (books.at(-1)?.version ?? 0) + 1, fromMs: bookFromMs(book), atMs, note, book };
    if (dryRun) return view;
    const { version, fromMs } = view;
    const outcome = await insertPriceBook(sql, { version, fromMs, atMs, note, body: JSON.stringify(book) });
    if (outcome.kind === 'done') {
      this.#deps.changed();
      return view;
    }
    throw refusal('ECLUSE_PRICES_REFUSED', 409, 'other prices were applied at this moment', 'look at them, and try again');
  }

  async invoice({ tenant, month }: InvoiceQuery): Promise<Invoice> {
    return await this.#invoices.show(tenant, month);
  }

  async issue(request: IssueRequest, onProgress: (progress: IssueProgress) => void): Promise<IssueAnswer> {
    return await this.#invoices.issue(request, onProgress);
  }

  async issued(month: string | undefined): Promise<readonly IssuedView[]> {
    return await this.#invoices.issued(month);
  }
}

/** By version. */
export async function readPriceBooks(sql: Sql): Promise<readonly PriceBookView[]> {
  return (await listPriceBooks(sql)).map(({ body, ...row }) => ({ ...row, book: priceBookSchema.parse(JSON.parse(body)) }));
}

function refusal(code: string, status: number, message: string, mend: string): EcluseError {
  return new EcluseError({ code, source: 'usage', status, message, mend });
}
