/** `prices …` and `invoice`: what is used costs what. */
import type { AdminClient } from '#admin/client.ts';
import { problemsOf } from '#admin/config-requests.ts';
import type { IssueAnswer, IssuedView, PriceBookView, PriceControl } from '#admin/metering-control.ts';
import { EcluseError } from '#errors';
import { FOCUS_COLUMNS, describe, focusRows, invoiceEvents, invoiceId, lineTexts } from '#metering/invoice-formats.ts';
import { skuOf } from '#metering/invoice.ts';
import type { Invoice, InvoiceLine } from '#metering/invoice.ts';
import { MICROS, decimalText, microsText } from '#metering/money.ts';
import { PRICE_BOOK_KEYS, priceBookSchema } from '#metering/price-book.ts';
import type { PriceBook } from '#metering/price-book.ts';
import type { InvoiceFormat, PriceCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { csvField, plainText, tableText } from './cli-text.ts';
import { configInvalid, placedProblem, readYamlFile } from './yaml-file.ts';

/** As much as the daemon takes. */
const FILE_BYTES_MAX = 1024 * 1024;

export async function runPriceCommand(
  command: PriceCommand,
  { prices }: Pick<AdminClient, 'prices'>,
  output: Output,
): Promise<void> {
  switch (command.kind) {
    case 'prices-check':
    case 'prices-apply': {
      const request = { book: await readPriceBook(command.file), note: command.note, dryRun: command.kind === 'prices-check' };
      const view = await prices.apply(request);
      const what = request.dryRun ? 'would be' : 'is';
      if (command.json) writeJson(output, view);
      else output.write(`price book ${String(view.version)} ${what} in force from ${new Date(view.fromMs).toISOString()} on\n`);
      return;
    }
    case 'prices-show': {
      const view = await prices.show(command.version);
      if (command.json) writeJson(output, view);
      else output.write(`${JSON.stringify(view.book, undefined, 2)}\n`);
      return;
    }
    case 'prices-history': {
      const books = await prices.history();
      if (command.json) writeJson(output, books);
      else output.write(historyTable(books));
      return;
    }
    case 'invoice':
      await printInvoice(command.tenant, command.month, { prices, output, format: command.json ? 'json' : command.format });
      return;
    case 'invoice-ls': {
      const issued = await prices.issued(command.month);
      if (command.json) writeJson(output, issued);
      else output.write(issuedTable(issued));
      return;
    }
    case 'invoice-issue':
      await issueInvoices(command, prices, output);
      return;
  }
}

/** Errors: ECLUSE_CONFIG_INVALID, one line a problem. */
async function readPriceBook(path: string): Promise<PriceBook> {
  const file = await readYamlFile(path === '-' ? '/dev/stdin' : path, {
    bytesMax: FILE_BYTES_MAX,
    mend: 'check the name of the file',
  });
  const parsed = priceBookSchema.safeParse(file.value);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error.issues, PRICE_BOOK_KEYS).map((problem) =>
    placedProblem(file, problem.path, problem.message),
  );
  throw configInvalid(problems.toSorted((one, other) => one.line - other.line).map(({ text }) => text));
}

function historyTable(books: readonly PriceBookView[]): string {
  const rows = books.map(({ version, fromMs, atMs, note, book }) =>
    [String(version), new Date(fromMs).toISOString(), book.currency, new Date(atMs).toISOString(), note].map(plainText),
  );
  return tableText(['VERSION', 'IN FORCE FROM', 'CURRENCY', 'APPLIED', 'NOTE'], rows);
}

interface InvoicePrinting {
  readonly prices: PriceControl;
  readonly output: Output;
  readonly format: InvoiceFormat;
}

async function printInvoice(tenant: string, month: string, { prices, output, format }: InvoicePrinting): Promise<void> {
  const invoice = await prices.invoice({ tenant, month });
  for (const note of format === 'text' ? [] : invoice.notes) output.note(`ecluse: ${note}`);
  switch (format) {
    case 'text':
      output.write(invoiceText(invoice));
      return;
    case 'json':
      writeJson(output, { invoice: invoiceId(invoice), ...invoice });
      return;
    case 'csv':
      output.write(invoiceCsv(invoice));
      return;
    case 'focus':
      output.write(focusCsv([invoice]));
      return;
    case 'cloudevents':
      for (const event of invoiceEvents(invoice, 'ecluse')) output.write(`${JSON.stringify(event)}\n`);
      return;
  }
}

type IssueCommand = Extract<PriceCommand, { readonly kind: 'invoice-issue' }>;

async function issueInvoices({ month, tenant, json }: IssueCommand, prices: PriceControl, output: Output): Promise<void> {
  const answer = await prices.issue({ month, tenant }, ({ tenant: name, done, of }) => {
    if (output.isNoteScreen) output.note(`ecluse: ${String(done)} of ${String(of)}: ${plainText(name)}`);
  });
  if (json) writeJson(output, answer);
  else printIssued(answer, output);
  const faults = answer.skipped.filter(({ isFault }) => isFault);
  if (faults.length === 0) return;
  throw new EcluseError({
    code: 'ECLUSE_INVOICE_REFUSED',
    source: 'runtime',
    message: `${String(faults.length)} of the invoices could not be issued; the others are`,
    mend: 'mend what is said of them, and issue the month again: those that were issued stay as they are',
  });
}

function issuedTable(issued: readonly IssuedView[]): string {
  const rows = issued.map(({ number, tenant, month, atMs, currency, total }) =>
    [String(number), tenant, month, new Date(atMs).toISOString(), currency, total].map(plainText),
  );
  return tableText(['NUMBER', 'TENANT', 'MONTH', 'ISSUED', 'CURRENCY', 'TOTAL'], rows);
}

function printIssued({ issued, skipped, left }: IssueAnswer, output: Output): void {
  if (issued.length > 0) output.write(issuedTable(issued));
  for (const { tenant, why } of skipped) output.note(`ecluse: ${plainText(tenant)}: not issued: ${plainText(why)}`);
  for (const { tenant, month, currency, total } of left)
    output.note(`ecluse: ${plainText(tenant)}: ${month} was not issued and has ${total} ${plainText(currency)} on it`);
}

function csvText(rows: readonly (readonly string[])[]): string {
  return rows.map((row) => `${row.map(csvField).join(',')}\r\n`).join('');
}

/** The dataset of FOCUS 1.2, of any number of invoices. */
export function focusCsv(invoices: readonly Invoice[]): string {
  const rows = invoices.flatMap(focusRows).map((row) => FOCUS_COLUMNS.map((column) => row[column]));
  return csvText([FOCUS_COLUMNS, ...rows]);
}

const CSV_COLUMNS = [
  'kind',
  'about',
  'container',
  'name',
  'sku',
  'tariff',
  'version',
  'from',
  'to',
  'quantity',
  'unit',
  'unitPrice',
  'amount',
];

function invoiceCsv(invoice: Invoice): string {
  const rows = invoice.lines.map((line) => {
    const texts: Readonly<Record<string, string | number | null>> = { about: describe(line), ...lineTexts(line) };
    return CSV_COLUMNS.map((column) => String(texts[column] ?? ''));
  });
  return csvText([[...CSV_COLUMNS, 'currency'], ...rows.map((row) => [...row, invoice.currency])]);
}

/** Digits of quantities that people read. */
const QUANTITY_DIGITS = 6;

function lineCells(line: InvoiceLine): readonly string[] {
  if (line.kind !== 'usage') return [line.about, '', '', '', microsText(line.amountMicros)];
  const sku = skuOf(line.sku);
  const quantity = decimalText(line.quantity, sku.unitSize, QUANTITY_DIGITS);
  return [describe(line), quantity, sku.unit, microsText(line.unitPriceMicros), microsText(line.amountMicros)];
}

function day(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}

function invoiceText(invoice: Invoice): string {
  const { issued } = invoice;
  const stands = issued === null ? '' : `, number ${String(issued.number)}, issued ${day(issued.atMs)}`;
  const head = `invoice ${invoiceId(invoice)} of ${invoice.issuer} to ${invoice.tenant}: ${day(invoice.fromMs)} to ${day(invoice.toMs - 1)}${stands}`;
  const rows = [...invoice.lines.map(lineCells), ['total', '', '', invoice.currency, microsText(invoice.totalMicros)]];
  const table = tableText(
    ['WHAT', 'QUANTITY', 'UNIT', 'PRICE', 'AMOUNT'],
    rows.map((row) => row.map(plainText)),
  );
  const { energyMicroWhEstimate: energy } = invoice;
  const energyText = energy === null ? '' : `energy, an estimate from processor time: ${decimalText(energy, MICROS, 3)} Wh\n`;
  return `${plainText(head)}\n${table}${energyText}${invoice.notes.map((note) => `note: ${plainText(note)}\n`).join('')}`;
}
