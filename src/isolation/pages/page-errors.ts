/** Errors of the page exchange, as they are made here and as they cross the wire. */
import { EcluseError, codeOf, reasonOf } from '#errors';

export function pageError(code: string, message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code, source: 'runtime', status: 502, message, mend, cause });
}

const AGAIN = 'migrate again; the container runs on where it was';

/** The other end does not keep to the protocol. */
export function brokenPeer(message: string): EcluseError {
  return pageError('ECLUSE_PAGES_PROTOCOL', `the page exchange was broken off: ${message}`, 'run the same version on both nodes');
}

export function cancelled(cause?: unknown): EcluseError {
  return pageError('ECLUSE_PAGES_CANCELLED', 'the page exchange was cancelled', AGAIN, cause);
}

export function stalled(what: string, limitMs: number): EcluseError {
  return pageError(
    'ECLUSE_PAGES_STALLED',
    `the page exchange stands still: ${what} for ${String(limitMs)} ms`,
    'check the network between the two nodes',
  );
}

export function connectionLost(cause: unknown): EcluseError {
  return pageError('ECLUSE_PAGES_CONNECTION', `the connection between the nodes was lost: ${reasonOf(cause)}`, AGAIN, cause);
}

/** A failure as text for the other end, and back. The text of others is bounded, and has no control characters. */
export const FAILURE_BYTES_MAX = 600;
const CODE = /^ECLUSE_[A-Z_]{1,60}$/;

export function failureText(error: unknown): string {
  const code = codeOf(error) ?? '';
  return `${CODE.test(code) ? code : 'ECLUSE_PAGES_FAILED'} ${reasonOf(error)}`.slice(0, FAILURE_BYTES_MAX / 4);
}

export function failureOfPeer(text: string): EcluseError {
  const space = text.indexOf(' ');
  const code = text.slice(0, Math.max(0, space));
  const reason = text.slice(space + 1).replaceAll(/[^ -~]/g, '?');
  return pageError(CODE.test(code) ? code : 'ECLUSE_PAGES_FAILED', `the other node says: ${reason}`, AGAIN);
}

/** Errors between threads: an error class does not survive structured cloning. */
export interface PlainFailure {
  readonly code: string;
  readonly message: string;
  readonly mend: string;
}

export function plainFailure(error: unknown): PlainFailure {
  const mend = error instanceof EcluseError ? (error.mend ?? AGAIN) : AGAIN;
  return { code: codeOf(error) ?? 'ECLUSE_PAGES_FAILED', message: reasonOf(error), mend };
}

export function fromPlainFailure({ code, message, mend }: PlainFailure): EcluseError {
  return pageError(code.startsWith('ECLUSE_') ? code : 'ECLUSE_PAGES_FAILED', message, mend);
}
