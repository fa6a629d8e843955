/** `usage`: sums of the ledger, for people, spreadsheets and programs. */
import { createHash } from 'node:crypto';
import type { AdminClient } from '#admin/client.ts';
import { QUANTITY_NAMES, shortId } from '#metering/ledger-chain.ts';
import { QUANTITY_COLUMNS } from '#state/ledger.ts';
import { monthSpan } from '#metering/invoice.ts';
import type { Invoice } from '#metering/invoice.ts';
import { decimalText } from '#metering/money.ts';
import type { UsageGrouping, UsageTotal } from '#caas/usage.ts';
import type { RemoteCommand } from './cli-command.ts';
import { instantOf } from './cli-flags.ts';
import { focusCsv } from './cli-prices.ts';
import { usageError } from './cli-spec.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { csvField, plainText, tableText } from './cli-text.ts';

type UsageCommand = Extract<RemoteCommand, { readonly kind: 'usage' }>;
type UsageClient = Pick<AdminClient, 'usage' | 'prices'>;

export async function printUsage(command: UsageCommand, client: UsageClient, output: Output): Promise<void> {
  const { sinceMs, untilMs } = spanOf(command);
  if (sinceMs > untilMs) throw usageError('--since is later than --until');
  if (command.format === 'focus') {
    output.write(focusCsv(await invoicesOf(command, client, { sinceMs, untilMs })));
    return;
  }
  const totals = await client.usage({ tenant: command.tenant, sinceMs, untilMs, by: command.by });
  switch (command.format) {
    case 'json':
      writeJson(output, totals);
      return;
    case 'csv':
      output.write(usageCsv(totals));
      return;
    case 'cloudevents':
      for (const total of totals) output.write(`${JSON.stringify(usageEvent(total, command.by, { sinceMs, untilMs }))}\n`);
      return;
    case 'table':
      output.write(usageTable(totals, command.by));
      return;
  }
}

interface Span {
  readonly sinceMs: number;
  readonly untilMs: number;
}

function spanOf({ month, since, until }: UsageCommand): Span {
  const span = month === undefined ? undefined : monthSpan(month);
  if (span !== undefined) return { sinceMs: span.fromMs, untilMs: span.toMs };
  const nowMs = Date.now();
  return { sinceMs: instantOf(since, nowMs), untilMs: instantOf(until, nowMs) };
}

/** The invoices of a month, of one tenant or of all that used something or got one. */
async function invoicesOf({ tenant, month = '' }: UsageCommand, client: UsageClient, span: Span): Promise<readonly Invoice[]> {
  const all = async (): Promise<readonly string[]> => {
    const used = (await client.usage({ tenant, ...span, by: 'tenant' })).map(({ key }) => key);
    const issued = (await client.prices.issued(month)).map((one) => one.tenant);
    return [...new Set([...used, ...issued])].toSorted((one, other) => one.localeCompare(other));
  };
  const tenants = tenant === undefined ? await all() : [tenant];
  const invoices: Invoice[] = [];
  for (const one of tenants) invoices.push(await client.prices.invoice({ tenant: one, month }));
  return invoices;
}

/** CloudEvents 1.0: a sum is one event, and the same sum has the same id. One that a late row or a correction changed has another. */
function usageEvent(total: UsageTotal, by: UsageGrouping, { sinceMs, untilMs }: Span): object {
  const quantities = QUANTITY_NAMES.map((name): readonly [string, string] => [name, String(total[name])]);
  return {
    specversion: '1.0',
    id: `${by} ${total.key} ${String(sinceMs)} ${String(untilMs)} ${String(total.toMs)} ${sumDigest(total)}`,
    source: 'ecluse',
    type: 'ecluse.usage',
    subject: total.tenant === '' ? total.key : total.tenant,
    time: new Date(total.toMs).toISOString(),
    datacontenttype: 'application/json',
    data: {
      by,
      key: total.key,
      name: total.name,
      from: new Date(total.fromMs).toISOString(),
      to: new Date(total.toMs).toISOString(),
      ...Object.fromEntries(quantities),
    },
  };
}

function sumDigest(total: UsageTotal): string {
  const said = [total.fromMs, total.toMs, ...QUANTITY_NAMES.map((name) => total[name])];
  return createHash('sha256').update(said.join(' ')).digest('hex').slice(0, 16);
}

/** Digits of the ledger as they are: sums of a program must be exact. */
function usageCsv(totals: readonly UsageTotal[]): string {
  const rows = totals.map((total) => [
    total.key,
    total.tenant,
    total.name,
    new Date(total.fromMs).toISOString(),
    new Date(total.toMs).toISOString(),
    ...QUANTITY_NAMES.map((name) => total[name]),
  ]);
  const head = ['key', 'tenant', 'name', 'from', 'to', ...QUANTITY_NAMES.map((name) => QUANTITY_COLUMNS[name])];
  return [head, ...rows].map((row) => `${row.map((field) => csvField(String(field))).join(',')}\r\n`).join('');
}

/** Of quantities that people read. A sum with corrections can be below zero. */
function decimal(value: bigint, unit: bigint): string {
  return decimalText(value, unit, 3);
}

const CPU_SECOND_NS = 1_000_000_000n;
const HOUR_MS = 3_600_000n;
const GIB_HOUR_BYTE_MS = 1024n ** 3n * HOUR_MS;
const MIB = 1024n ** 2n;

function keyCells(total: UsageTotal, by: UsageGrouping): readonly string[] {
  switch (by) {
    case 'container':
      return [total.tenant, total.name, shortId(total.key)];
    case 'tenant':
    case 'host':
    case 'hour':
      return [total.key];
  }
}

const KEY_HEADERS: Readonly<Record<UsageGrouping, readonly string[]>> = {
  container: ['TENANT', 'NAME', 'CONTAINER ID'],
  tenant: ['TENANT'],
  host: ['HOST'],
  hour: ['HOUR'],
};

function usageTable(totals: readonly UsageTotal[], by: UsageGrouping): string {
  return tableText(
    [...KEY_HEADERS[by], 'CPU S', 'MEMORY GIB·H', 'REQUESTS', 'IN MIB', 'OUT MIB', 'DISK GIB·H', 'STREAM H', 'FROM', 'TO'],
    totals.map((total) =>
      [
        ...keyCells(total, by),
        decimal(total.cpuNs, CPU_SECOND_NS),
        decimal(total.memoryByteMs, GIB_HOUR_BYTE_MS),
        String(total.requests),
        decimal(total.ingressBytes, MIB),
        decimal(total.egressBytes, MIB),
        decimal(total.diskByteMs, GIB_HOUR_BYTE_MS),
        decimal(total.streamMs, HOUR_MS),
        secondsText(total.fromMs),
        secondsText(total.toMs),
      ].map(plainText),
    ),
  );
}

function secondsText(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 19)}Z`;
}
