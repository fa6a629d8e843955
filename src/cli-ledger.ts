/** `ledger verify`, `ledger export`, `ledger key`, `ledger correct`: the ledger's proof. */
import { createHash } from 'node:crypto';
import type { AdminClient } from '#admin/client.ts';
import type { LedgerControl } from '#admin/metering-control.ts';
import type { ChainVerdict, ExportPage, ExportRange, VerifyProgress } from '#caas/ledger-proof.ts';
import { EcluseError } from '#errors';
import { startLine } from '#metering/ledger-export.ts';
import type { ExportLine } from '#metering/ledger-export.ts';
import type { LedgerCommand } from './cli-command.ts';
import { instantOf } from './cli-flags.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

export async function runLedgerCommand(
  command: LedgerCommand,
  { ledger }: Pick<AdminClient, 'ledger'>,
  output: Output,
): Promise<void> {
  switch (command.kind) {
    case 'ledger-verify':
      await verify(command, ledger, output);
      return;
    case 'ledger-export':
      await writeExport(command, ledger, output);
      return;
    case 'ledger-key': {
      const keys = await ledger.keys();
      if (command.json) writeJson(output, keys);
      else output.write(keys.map(({ id, sinceMs }) => `${id}   since ${new Date(sinceMs).toISOString()}\n`).join(''));
      return;
    }
    case 'ledger-correct': {
      const { container, reason, at, quantities } = command;
      const atMs = instantOf(at, Date.now());
      const corrected = await ledger.correct({ ...quantities, container, reason, fromMs: atMs, toMs: atMs });
      if (command.json) writeJson(output, corrected);
      else output.write(`the ledger of ${plainText(corrected.tenant)} has a correction of ${corrected.container.slice(0, 12)}\n`);
      return;
    }
  }
}

type VerifyCommand = Extract<LedgerCommand, { readonly kind: 'ledger-verify' }>;

async function verify(command: VerifyCommand, ledger: LedgerControl, output: Output): Promise<void> {
  const { tenant, fromDay, toDay, json } = command;
  const onProgress = ({ tenant: of, what, rows, of: all }: VerifyProgress): void => {
    if (!json) output.note(plainText(`${of}: ${String(rows)} of ${String(all)} ${what}`));
  };
  const verdicts = await ledger.verify({ tenant, fromDay, toDay }, onProgress);
  if (json) writeJson(output, verdicts);
  else output.write(verdictTable(verdicts));
  const misfits = verdicts.filter(({ fault }) => fault !== null);
  const [first] = misfits;
  if (first?.fault === undefined || first.fault === null) return;
  throw new EcluseError({
    code: 'ECLUSE_LEDGER_MISFIT',
    source: 'runtime',
    message: plainText(
      `the ledger of ${misfits.map((verdict) => verdict.tenant).join(', ')} does not fit: ${first.tenant}, ${first.fault.text}`,
    ),
    mend: plainText(first.fault.mend ?? 'compare the store with a backup; what the rows after it say is not proved'),
  });
}

function verdictTable(verdicts: readonly ChainVerdict[]): string {
  const rows = verdicts.map(({ tenant, fault, rows: count, number, heads, fromBefore, corrections, dropped }) =>
    [
      tenant,
      fault === null ? 'fits' : `does not fit: ${fault.text}`,
      ...[count, number, heads, fromBefore, corrections, dropped].map(String),
    ].map(plainText),
  );
  return tableText(['TENANT', 'CHAIN', 'ROWS', 'LAST ROW', 'HEADS', 'FROM BEFORE', 'CORRECTIONS', 'DROPPED'], rows);
}

const DROPPED = 'ECLUSE_LEDGER_DROPPED';
const BEGIN_ATTEMPTS_MAX = 2;

type ExportCommand = Extract<LedgerCommand, { readonly kind: 'ledger-export' }>;

/** What an export begins with, with the first of its rows. */
interface Begun {
  readonly range: ExportRange;
  readonly first: ExportPage;
}

/** Old rows are dropped while an export is made, too. Those that go before anything was written are left out by beginning again, once. */
async function beginExport(command: ExportCommand, ledger: LedgerControl): Promise<Begun> {
  const { tenant, fromDay, toDay } = command;
  for (let attempt = 1; ; attempt += 1) {
    const range = await ledger.exportRange(tenant, { fromDay, toDay });
    const after = range.start.after?.number ?? 0;
    const first = after < range.until ? await ledger.exportPage(tenant, after, range.until) : { rows: [], heads: [] };
    if (after >= range.until || first.rows[0]?.number === after + 1) return { range, first };
    const fault = await missing(command, ledger, after);
    if (fault.code !== DROPPED || attempt === BEGIN_ATTEMPTS_MAX) throw fault;
  }
}

/** Line by line, however many there are. */
async function writeExport(command: ExportCommand, ledger: LedgerControl, output: Output): Promise<void> {
  const { tenant } = command;
  const { range, first } = await beginExport(command, ledger);
  const { start, until, openHead } = range;
  const digest = createHash('sha256');
  const write = (line: ExportLine): void => {
    const text = `${JSON.stringify(line)}\n`;
    digest.update(text);
    output.write(text);
  };
  write(startLine(start));
  let [rows, heads, after, page] = [0, 0, start.after?.number ?? 0, first];
  while (after < until) {
    if (page.rows[0]?.number !== after + 1) throw await missing(command, ledger, after);
    for (const row of page.rows) {
      write({ row });
      rows += 1;
      after = row.number;
      for (const head of page.heads.filter(({ number }) => number === row.number)) {
        write({ head });
        heads += 1;
      }
    }
    if (after < until) page = await ledger.exportPage(tenant, after, until);
  }
  if (openHead !== null) {
    write({ head: openHead });
    heads += 1;
  }
  const end = await ledger.exportEnd({ tenant, rows, heads, sha256: digest.digest('hex') });
  output.write(`${JSON.stringify({ end })}\n`);
}

/** Why the row after a number is not there: an export would begin later by now, or it is gone without a word. */
async function missing({ tenant, fromDay, toDay }: ExportCommand, ledger: LedgerControl, after: number): Promise<EcluseError> {
  const { start } = await ledger.exportRange(tenant, { fromDay, toDay });
  if ((start.after?.number ?? 0) > after) {
    return new EcluseError({
      code: DROPPED,
      source: 'runtime',
      message: plainText(`old rows of the ledger of ${tenant} were dropped while it was exported: the export is not whole`),
      mend: 'throw away what was written, and run it again',
    });
  }
  return new EcluseError({
    code: 'ECLUSE_LEDGER_MISFIT',
    source: 'runtime',
    message: plainText(`rows of the ledger of ${tenant} after number ${String(after)} are missing`),
    mend: plainText(`see: ecluse ledger verify --tenant ${tenant}`),
  });
}
