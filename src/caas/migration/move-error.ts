/** How moves fail: before anything was touched, or with everything put back. */
import { EcluseError } from '#errors';

export function moveRefused(message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_MIGRATION_REFUSED', source: 'usage', status: 409, message, mend });
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
