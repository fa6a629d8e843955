/** Where a command writes, and what it knows of the terminal. */
import { exactJson } from '#admin/exact-json.ts';

export interface Output {
  /** To standard output, as it is. */
  readonly write: (text: string) => void;
  /** One line to standard error. */
  readonly note: (line: string) => void;
  /** Standard output is a person's screen. */
  readonly isScreen: boolean;
  /** Standard error is one. */
  readonly isNoteScreen: boolean;
}

export const processOutput: Output = {
  write: (text) => {
    process.stdout.write(text);
  },
  note: (line) => {
    process.stderr.write(`${line}\n`);
  },
  isScreen: process.stdout.isTTY,
  isNoteScreen: process.stderr.isTTY,
};

export function writeJson(output: Output, value: unknown): void {
  output.write(`${exactJson(value, 2)}\n`);
}
