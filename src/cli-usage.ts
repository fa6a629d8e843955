/** `usage`: sums of the ledger, for people, spreadsheets and programs. */
import type { AdminClient } from '#admin/client.ts';
import type { UsageGrouping, UsageTotal } from '#caas/usage.ts';
import type { RemoteCommand } from './cli-command.ts';
import { instantOf } from './cli-flags.ts';
import { usageError } from './cli-spec.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { csvField, plainText, tableText } from './cli-text.ts';

type UsageCommand = Extract<RemoteCommand, { readonly kind: 'usage' }>;

export async function printUsage(command: UsageCommand, client: AdminClient, output: Output): Promise<void> {
  const nowMs = Date.now();
  const sinceMs = instantOf(command.since, nowMs);
  const untilMs = instantOf(command.until, nowMs);
  if (sinceMs > untilMs) throw usageError('--since is later than --until');
  const totals = await client.usage({ tenant: command.tenant, sinceMs, untilMs, by: command.by });
  switch (command.format) {
    case 'json':
      writeJson(output, totals);
      return;
    case 'csv':
      output.write(usageCsv(totals));
      return;
    case 'table':
      output.write(usageTable(totals, command.by));
      return;
  }
}

/** Digits of the ledger as they are: sums of a program must be exact. */
function usageCsv(totals: readonly UsageTotal[]): string {
  const rows = totals.map((total) => [
    total.key,
    total.tenant,
    total.name,
    new Date(total.fromMs).toISOString(),
    new Date(total.toMs).toISOString(),
    total.cpuNs,
    total.memoryByteMs,
    total.requests,
    total.ingressBytes,
    total.egressBytes,
    total.heldMs,
  ]);
  const head = 'key,tenant,name,from,to,cpu_ns,memory_byte_ms,requests,ingress_bytes,egress_bytes,held_ms'.split(',');
  return [head, ...rows].map((row) => `${row.map((field) => csvField(String(field))).join(',')}\r\n`).join('');
}

/** A quotient with three decimals, rounded to nearest, of integers that may exceed a double. */
function decimal(value: bigint, unit: bigint): string {
  const thousandths = (value * 1000n + unit / 2n) / unit;
  return `${String(thousandths / 1000n)}.${String(thousandths % 1000n).padStart(3, '0')}`;
}

const CPU_SECOND_NS = 1_000_000_000n;
const MEMORY_GIB_HOUR_BYTE_MS = 1024n ** 3n * 3_600_000n;
const MIB = 1024n ** 2n;

function keyCells(total: UsageTotal, by: UsageGrouping): readonly string[] {
  switch (by) {
    case 'container':
      return [total.tenant, total.name, total.key.slice(0, 12)];
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
    [...KEY_HEADERS[by], 'CPU S', 'MEMORY GIB·H', 'REQUESTS', 'IN MIB', 'OUT MIB', 'FROM', 'TO'],
    totals.map((total) =>
      [
        ...keyCells(total, by),
        decimal(total.cpuNs, CPU_SECOND_NS),
        decimal(total.memoryByteMs, MEMORY_GIB_HOUR_BYTE_MS),
        String(total.requests),
        decimal(total.ingressBytes, MIB),
        decimal(total.egressBytes, MIB),
        secondsText(total.fromMs),
        secondsText(total.toMs),
      ].map(plainText),
    ),
  );
}

function secondsText(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 19)}Z`;
}
