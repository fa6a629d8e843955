/** Flags that many commands have, and how their values are read. */
import { EcluseError } from '#errors';
import { nearestWord } from '#suggest';
import { parseDurationMs } from '#units';
import type { DaemonAddress, Moment } from './cli-command.ts';
import { usageError } from './cli-spec.ts';
import type { FlagSpec, Given } from './cli-spec.ts';

export const JSON_FLAG: FlagSpec = { name: 'json', about: 'print JSON for programs' };
export const DATA_FLAG: FlagSpec = {
  name: 'data',
  value: 'DIR',
  about: "the node's data directory (default: $ECLUSE_DATA, or /var/lib/ecluse)",
};
export const REMOTE_FLAGS: readonly FlagSpec[] = [
  JSON_FLAG,
  DATA_FLAG,
  { name: 'admin', value: 'PATH', about: "the daemon's admin socket, where it is not that of the data directory" },
];
export const TENANT_FLAG: FlagSpec = { name: 'tenant', value: 'T', about: 'only what belongs to this tenant' };
export const DRY_RUN_FLAG: FlagSpec = { name: 'dry-run', about: 'print the plan with its reasons, and change nothing' };

export function remote({ has, text }: Given): { readonly daemon: DaemonAddress; readonly json: boolean } {
  return { daemon: { dataDir: text('data'), adminSocket: text('admin') }, json: has('json') };
}

export function countOf(flag: string, text: string, least: number): number {
  const value = /^\d{1,7}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least) return value;
  throw usageError(`--${flag} cannot be "${text}"`, `use a whole number of at least ${String(least)}`);
}

/** Errors: ECLUSE_USAGE, with the flag. */
export function withUnit(flag: string, text: string, parse: (text: string) => number): number {
  try {
    return parse(text);
  } catch (error) {
    throw error instanceof EcluseError ? usageError(`--${flag}: ${error.message}`, error.mend) : error;
  }
}

export function oneOf<T extends string>(flag: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found !== undefined) return found;
  const meant = nearestWord(text, allowed);
  throw usageError(
    `--${flag} cannot be "${text}"`,
    meant === undefined ? `use one of ${allowed.join(', ')}` : `did you mean ${meant}?`,
  );
}

/** `2h` is two hours ago; anything else is an ISO 8601 time, by the clock of this machine where it names no zone. */
export function momentOf(flag: string, text: string): Moment {
  if (/^\d+(?:\.\d+)?(?:ms|s|m|h|d)$/i.test(text)) return { kind: 'ago', ms: withUnit(flag, text, parseDurationMs) };
  const atMs = /^\d{4}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(atMs))
    throw usageError(`--${flag} cannot be "${text}"`, 'write how long ago, like 2h or 30d, or a time like 2026-01-31T12:00:00Z');
  return { kind: 'at', atMs };
}

export function instantOf(moment: Moment, nowMs: number): number {
  return moment.kind === 'at' ? moment.atMs : Math.max(0, nowMs - moment.ms);
}
