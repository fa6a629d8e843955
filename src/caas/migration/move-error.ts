/** How moves fail: before anything was touched, or with everything put back. */
import { EcluseError, reasonOf } from '#errors';

export function moveRefused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_MIGRATION_REFUSED', source: 'usage', status: 409, message, mend });
}

/** runsc's words where something in the sandbox holds a stream that only the source has. */
const FOREIGN_STREAM = 'no host FD available';
/** Go's traces are long, and for the log. */
const TRACE = /:? ?goroutine \d+ \[.*/s;
const REASON_CHARS_MAX = 400;

/** Why a move failed, for people. Pure. */
export function moveReason(error: unknown): string {
  const text = reasonOf(error).replace(TRACE, '');
  const short = text.length > REASON_CHARS_MAX ? `${text.slice(0, REASON_CHARS_MAX)}…` : text;
  if (!short.includes(FOREIGN_STREAM)) return short;
  return 'a process in it, started by an exec session, still holds the streams of that session, which cannot be carried; end it, or have it ended with --end-sessions';
}

export function moveFailed(message: string, cause: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_MIGRATION_FAILED',
    source: 'runtime',
    status: 502,
    message: `the migration failed; ${message}`,
    mend: 'nothing was lost; see the log of the daemon',
    cause,
  });
}
