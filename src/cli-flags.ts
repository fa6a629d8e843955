/** Flags that many commands have, and how their values are read. */
import { EcluseError } from '#errors';
import type { DaemonAddress } from './cli-command.ts';
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
