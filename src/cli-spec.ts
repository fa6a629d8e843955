/** How one command is specified: its words, operands and flags, what help says of them, and what they mean. */
import { EcluseError } from '#errors';
import type { Command } from './cli-command.ts';

export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  /** What help calls its value; absent: it takes none. */
  readonly value?: string;
  readonly repeats?: true;
  readonly about: string;
}

/** What was given for one command: every flag and operand is one that its specification names. */
export interface Given {
  readonly has: (flag: string) => boolean;
  readonly text: (flag: string) => string | undefined;
  readonly texts: (flag: string) => readonly string[] | undefined;
  readonly operand: (index: number) => string;
  readonly operands: readonly string[];
}

export interface CommandSpec {
  /** `tenant add`. */
  readonly words: string;
  /** The last one may end with `…`: there may be more of it. One in brackets need not be there. */
  readonly operands: readonly string[];
  readonly about: string;
  readonly flags: readonly FlagSpec[];
  /** Not shown by help. */
  readonly hidden?: true;
  readonly command: (given: Given) => Command;
}

export function usageError(message: string, mend?: string): EcluseError {
  const base = { code: 'ECLUSE_USAGE', source: 'usage', message, status: 400 } as const;
  return new EcluseError(mend === undefined ? base : { ...base, mend });
}

/** Commands of the design that later versions bring. */
export const COMMANDS_TO_COME: ReadonlySet<string> = new Set(['logs', 'invoice', 'ledger', 'host add', 'host rm']);
