/** The commands for what was used and what it costs. Pure. */
import type { Command } from './cli-command.ts';
import { countOf, momentOf, oneOf, remote, REMOTE_FLAGS, TENANT_FLAG, withUnit } from './cli-flags.ts';
import { usageError } from './cli-spec.ts';
import type { CommandSpec, FlagSpec, Given } from './cli-spec.ts';
import { parseSizeBytes } from '#units';

const DAY_FLAGS: readonly FlagSpec[] = [
  { name: 'from', value: 'DAY', about: 'the first day, by UTC, like 2026-11-01 (default: from the beginning)' },
  { name: 'to', value: 'DAY', about: 'the last day, by UTC (default: to now)' },
];

function usageOf(given: Given): Command {
  const format = oneOf('format', given.text('format') ?? (given.has('json') ? 'json' : 'table'), [
    'table',
    'csv',
    'json',
    'focus',
    'cloudevents',
  ]);
  const month = monthOf(given.text('month'));
  if (month !== undefined && (given.text('since') !== undefined || given.text('until') !== undefined))
    throw usageError('--month excludes --since and --until');
  if (format === 'focus' && month === undefined)
    throw usageError('FOCUS is about whole months', 'add --month, like --month 2026-11');
  return {
    kind: 'usage',
    ...remote(given),
    tenant: given.text('tenant'),
    since: momentOf('since', given.text('since') ?? '30d'),
    until: momentOf('until', given.text('until') ?? '0s'),
    by: oneOf('by', given.text('by') ?? 'container', ['container', 'tenant', 'host', 'hour']),
    format,
    month,
  };
}

function tenantOf(given: Given): string {
  const tenant = given.text('tenant');
  if (tenant === undefined || tenant === '') throw usageError('--tenant is missing', 'see the tenants with: ecluse tenant ls');
  return tenant;
}

function monthOf(text: string | undefined): string | undefined {
  if (text === undefined || /^\d{4}-(?:0[1-9]|1[0-2])$/.test(text)) return text;
  throw usageError(`--month cannot be "${text}"`, 'write a month like 2026-11');
}

/** By UTC. */
function lastMonth(): string {
  return Temporal.Now.zonedDateTimeISO('UTC').toPlainDate().toPlainYearMonth().subtract({ months: 1 }).toString();
}

/** Errors: ECLUSE_USAGE where it is no day of the calendar. */
function dayOf(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const atMs = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(atMs) && new Date(atMs).toISOString().startsWith(text)) return text;
  throw usageError(`--${flag} cannot be "${text}"`, 'write a day like 2026-11-30');
}

function daysOf(given: Given): { readonly fromDay: string | undefined; readonly toDay: string | undefined } {
  const [fromDay, toDay] = [dayOf('from', given.text('from')), dayOf('to', given.text('to'))];
  if (fromDay !== undefined && toDay !== undefined && fromDay > toDay) throw usageError('--from is later than --to');
  return { fromDay, toDay };
}

function correctionOf(given: Given): Command {
  const reason = given.text('reason');
  if (reason === undefined || reason === '') throw usageError('--reason is missing', 'say why the ledger is corrected');
  const at = given.text('at');
  const requests = given.text('requests') ?? '0';
  if (!/^-?\d{1,12}$/.test(requests)) throw usageError(`--requests cannot be "${requests}"`, 'use a whole number');
  const quantities = {
    cpuNs: Math.round(secondsOf('cpu-seconds', given.text('cpu-seconds')) * 1e9),
    memoryByteMs: gibHoursOf('memory-gib-hours', given.text('memory-gib-hours')),
    diskByteMs: gibHoursOf('disk-gib-hours', given.text('disk-gib-hours')),
    streamMs: Math.round(secondsOf('stream-seconds', given.text('stream-seconds')) * 1000),
    requests: Number(requests),
    egressBytes: signedSize('egress', given.text('egress')),
    ingressBytes: signedSize('ingress', given.text('ingress')),
  };
  if (Object.values(quantities).every((value) => value === 0 || value === 0n))
    throw usageError('there is nothing to correct', 'give at least one quantity; see: ecluse help ledger correct');
  return {
    kind: 'ledger-correct',
    ...remote(given),
    container: given.operand(0),
    reason,
    at: at === undefined ? { kind: 'ago', ms: 0 } : momentOf('at', at),
    quantities,
  };
}

function secondsOf(flag: string, text = '0'): number {
  if (!/^-?\d{1,9}(?:\.\d{1,9})?$/.test(text)) throw usageError(`--${flag} cannot be "${text}"`, 'use a number like -12.5');
  return Number(text);
}

/** Of `-1.5` GiB·hours, in byte·ms. */
function gibHoursOf(flag: string, text = '0'): bigint {
  const found = /^(-?)(\d{1,6})(?:\.(\d{1,6}))?$/.exec(text);
  if (found === null) throw usageError(`--${flag} cannot be "${text}"`, 'use a number like -1.5');
  const [, sign = '', whole = '0', part = ''] = found;
  const millionths = BigInt(whole) * 1_000_000n + BigInt(part.padEnd(6, '0'));
  const byteMs = (millionths * 1024n ** 3n * 3_600_000n) / 1_000_000n;
  return sign === '-' ? -byteMs : byteMs;
}

function signedSize(flag: string, text: string | undefined): number {
  if (text === undefined) return 0;
  return text.startsWith('-') ? -withUnit(flag, text.slice(1), parseSizeBytes) : withUnit(flag, text, parseSizeBytes);
}

export const METERING_COMMAND_SPECS: readonly CommandSpec[] = [
  {
    words: 'usage',
    operands: [],
    about: 'show what was used, from the ledger',
    flags: [
      TENANT_FLAG,
      { name: 'since', value: 'WHEN', about: 'a time, or how long ago (default: 30d)' },
      { name: 'until', value: 'WHEN', about: 'a time, or how long ago (default: now)' },
      { name: 'by', value: 'WHAT', about: 'container, tenant, host or hour (default: container)' },
      { name: 'month', value: 'MONTH', about: 'a month by UTC, like 2026-11, instead of --since and --until' },
      { name: 'format', value: 'FORMAT', about: 'table, csv, json, focus (1.2, of --month) or cloudevents (default: table)' },
      ...REMOTE_FLAGS,
    ],
    command: usageOf,
  },
  {
    words: 'prices check',
    operands: ['FILE'],
    about: 'say whether a price book is in order, and can follow those that there are',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'prices-check', ...remote(given), file: given.operand(0), note: '' }),
  },
  {
    words: 'prices apply',
    operands: ['FILE'],
    about: 'let a price book be in force from the hour on that it names',
    flags: [{ name: 'note', value: 'TEXT', about: 'why, for the history' }, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'prices-apply', ...remote(given), file: given.operand(0), note: given.text('note') ?? '' }),
  },
  {
    words: 'prices show',
    operands: [],
    about: 'print the price book that was applied last',
    flags: [{ name: 'version', value: 'N', about: 'another one' }, ...REMOTE_FLAGS],
    command: (given) => {
      const version = given.text('version');
      return {
        kind: 'prices-show',
        ...remote(given),
        version: version === undefined ? undefined : countOf('version', version, 1),
      };
    },
  },
  {
    words: 'prices history',
    operands: [],
    about: 'list the price books',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'prices-history', ...remote(given) }),
  },
  {
    words: 'invoice ls',
    operands: [],
    about: 'list the invoices that were issued',
    flags: [{ name: 'month', value: 'MONTH', about: 'those of one, like 2026-11' }, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'invoice-ls', ...remote(given), month: monthOf(given.text('month')) }),
  },
  {
    words: 'invoice issue',
    operands: [],
    about: "make the invoices of a month out: they stand as they are, and what changes later is of the next month's",
    flags: [
      { name: 'month', value: 'MONTH', about: 'by UTC, like 2026-11 (default: last month)' },
      { name: 'tenant', value: 'T', about: 'whose (default: those of all tenants)' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({
      kind: 'invoice-issue',
      ...remote(given),
      tenant: given.text('tenant'),
      month: monthOf(given.text('month')) ?? lastMonth(),
    }),
  },
  {
    words: 'invoice',
    operands: [],
    about: "show what a tenant's month costs, line by line",
    flags: [
      { name: 'tenant', value: 'T', about: 'whose month' },
      { name: 'month', value: 'MONTH', about: 'by UTC, like 2026-11 (default: this month so far)' },
      { name: 'format', value: 'FORMAT', about: 'text, json, csv, focus (1.2) or cloudevents (default: text)' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({
      kind: 'invoice',
      ...remote(given),
      tenant: tenantOf(given),
      month: monthOf(given.text('month')) ?? new Date().toISOString().slice(0, 7),
      format: oneOf('format', given.text('format') ?? 'text', ['text', 'json', 'csv', 'focus', 'cloudevents']),
    }),
  },
  {
    words: 'ledger verify',
    operands: [],
    about: 'look through the chains of the ledger, and say the first row that does not fit',
    flags: [TENANT_FLAG, ...DAY_FLAGS, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'ledger-verify', ...remote(given), tenant: given.text('tenant'), ...daysOf(given) }),
  },
  {
    words: 'ledger export',
    operands: [],
    about: "print a tenant's rows with their signed heads, for scripts/verify-ledger.mjs",
    flags: [{ name: 'tenant', value: 'T', about: 'whose rows' }, ...DAY_FLAGS, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'ledger-export', ...remote(given), tenant: tenantOf(given), ...daysOf(given) }),
  },
  {
    words: 'ledger key',
    operands: [],
    about: 'show the key that the ledger is signed with, as tenants are to know it',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'ledger-key', ...remote(given) }),
  },
  {
    words: 'ledger correct',
    operands: ['CONTAINER'],
    about: 'add to what the ledger says of a container, or take from it; its rows stay as they are',
    flags: [
      { name: 'reason', value: 'TEXT', about: 'why; it is in the ledger for good' },
      { name: 'at', value: 'WHEN', about: 'when it was used: a time, or how long ago (default: now)' },
      { name: 'cpu-seconds', value: 'N', about: 'seconds of one processor, like -12.5' },
      { name: 'memory-gib-hours', value: 'N', about: 'like -1.5' },
      { name: 'requests', value: 'N', about: 'like -100' },
      { name: 'egress', value: 'SIZE', about: 'like -2GiB' },
      { name: 'ingress', value: 'SIZE', about: 'like -2GiB' },
      { name: 'disk-gib-hours', value: 'N', about: 'like -1.5; also of a volume, as volume/ID' },
      { name: 'stream-seconds', value: 'N', about: 'seconds of one open stream, like -3600' },
      ...REMOTE_FLAGS,
    ],
    command: correctionOf,
  },
];
