/** Whether a failed attempt may be made again. Pure. Source: RFC 9110 §9.2.2. */
import type { ExchangeError } from './error-response.ts';

export interface FailedAttempt {
  readonly error: ExchangeError;
  readonly method: string;
  /** False while the connection was still being made: then nothing was sent. */
  readonly connected: boolean;
  readonly reusedConnection: boolean;
  readonly responseBytes: boolean;
  readonly bodyBytesSent: number;
}

/** What a network does. A time-out or a cut is a decision, and not made twice. */
const BY_NETWORK: ReadonlySet<ExchangeError> = new Set<ExchangeError>([
  'connect-failed',
  'connect-timeout',
  'upstream-certificate',
  'upstream-tls',
  'upstream-tls-alert',
  'upstream-reset',
]);
const IDEMPOTENT: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'PUT',
  'DELETE',
  'PROPFIND',
  'REPORT',
  'SEARCH',
]);

/**
 * Again only where the endpoint cannot have acted twice: nothing was sent, or an idle connection died under an idempotent request
 * before a response byte and before a body byte was sent (the body is not kept, so it could not be sent again).
 */
export function mayRetry(attempt: FailedAttempt): boolean {
  if (!BY_NETWORK.has(attempt.error) || attempt.responseBytes || attempt.bodyBytesSent > 0) return false;
  if (!attempt.connected) return true;
  return attempt.reusedConnection && IDEMPOTENT.has(attempt.method);
}
