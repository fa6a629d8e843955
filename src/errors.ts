/**
 * The one error class. An error that reaches a person says what failed, why, and what to do.
 *
 * `code` is stable and is what programs compare (never `instanceof`: errors cross processes). `status` is the HTTP status where
 * the error answers a request. The wire gets `message`; `cause` stays in the log.
 */
export type ErrorSource = 'usage' | 'config' | 'downstream' | 'upstream' | 'runtime' | 'internal';

export interface ErrorFields {
  readonly code: string;
  readonly source: ErrorSource;
  /** What failed and why: one line, no trailing stop. */
  readonly message: string;
  /** What to do about it: an imperative clause. */
  readonly mend?: string;
  readonly status?: number;
  readonly cause?: unknown;
}

export class EcluseError extends Error {
  readonly code: string;
  readonly source: ErrorSource;
  readonly mend: string | undefined;
  readonly status: number;

  constructor(fields: ErrorFields) {
    super(fields.message, { cause: fields.cause });
    this.name = 'EcluseError';
    this.code = fields.code;
    this.source = fields.source;
    this.mend = fields.mend;
    this.status = fields.status ?? 500;
  }
}

/** The message of anything that was thrown, on one line. */
export function reasonOf(thrown: unknown): string {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  // Not by an expression for the space around a line's end: on a long run of blanks, which a tenant can put here, that takes quadratic time.
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join(' ');
}

/** The errno or error code of anything that was thrown (`ENOENT`, `ECLUSE_…`), or undefined. */
export function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown === 'object' && thrown !== null && 'code' in thrown && typeof thrown.code === 'string') {
    return thrown.code;
  }
  return undefined;
}

/** One line for stderr: what, why, what to do. */
export function errorLine(thrown: unknown): string {
  const mend = thrown instanceof EcluseError ? thrown.mend : undefined;
  return mend === undefined ? reasonOf(thrown) : `${reasonOf(thrown)}; ${mend}`;
}
