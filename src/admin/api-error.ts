/** How an error crosses the admin socket: `{ "error": { code, message, mend } }` with the status of the error. */
import { EcluseError, reasonOf } from '#errors';

export interface ApiError {
  readonly code: string;
  readonly message: string;
  /** Absent where there is nothing to be done. */
  readonly mend?: string;
}

export function apiErrorOf(thrown: unknown): ApiError {
  if (!(thrown instanceof EcluseError)) {
    return { code: 'ECLUSE_INTERNAL', message: `unexpected error: ${reasonOf(thrown)}`, mend: 'see the log of the daemon' };
  }
  return { code: thrown.code, message: reasonOf(thrown), ...(thrown.mend === undefined ? {} : { mend: thrown.mend }) };
}

export function statusOf(thrown: unknown): number {
  return thrown instanceof EcluseError ? thrown.status : 500;
}

/** The error as the client throws it again. */
export function errorFromApi(answer: unknown, status: number): EcluseError {
  const fields: Record<string, unknown> = typeof answer === 'object' && answer !== null ? { ...answer } : {};
  const { code, message, mend } = { code: fields['code'], message: fields['message'], mend: fields['mend'] };
  return new EcluseError({
    code: typeof code === 'string' ? code : 'ECLUSE_ADMIN_ANSWER',
    source: 'runtime',
    message: typeof message === 'string' ? message : `the daemon answered with status ${String(status)} and no reason`,
    status,
    ...(typeof mend === 'string' ? { mend } : {}),
  });
}

export function badRequest(message: string, mend?: string): EcluseError {
  const base = { code: 'ECLUSE_REQUEST_INVALID', source: 'usage', message, status: 400 } as const;
  return new EcluseError(mend === undefined ? base : { ...base, mend });
}
