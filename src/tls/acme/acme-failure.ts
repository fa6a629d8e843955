/** What went wrong with a CA: for people as any error, and for the plan of what is tried next as a kind, and the time that the CA asked for. */
import { EcluseError, reasonOf } from '#errors';
import type { FailureKind } from './back-off.ts';

export interface FailureFacts {
  readonly kind: FailureKind;
  /** What the CA said by Retry-After. */
  readonly retryAfterMs: number | undefined;
  /** The CA's type of problem, as `urn:ietf:params:acme:error:rateLimited` without what all have; undefined: it said none. */
  readonly problem: string | undefined;
}

const CODES: Readonly<Record<FailureKind, string>> = {
  ca: 'ECLUSE_ACME_CA_UNUSABLE',
  'rate-limit': 'ECLUSE_ACME_RATE_LIMITED',
  validation: 'ECLUSE_ACME_VALIDATION',
  refused: 'ECLUSE_ACME_REFUSED',
  internal: 'ECLUSE_ACME_FAILED',
};

export function acmeFailure(
  kind: FailureKind,
  message: string,
  more: { readonly mend?: string; readonly retryAfterMs?: number | undefined; readonly problem?: string | undefined } = {},
): EcluseError {
  const facts: FailureFacts = { kind, retryAfterMs: more.retryAfterMs, problem: more.problem };
  const mend = more.mend === undefined ? {} : { mend: more.mend };
  return new EcluseError({ code: CODES[kind], source: 'upstream', status: 502, message, cause: facts, ...mend });
}

/** Of anything that was thrown. */
export function failureFactsOf(thrown: unknown): FailureFacts {
  const facts = thrown instanceof EcluseError ? thrown.cause : undefined;
  return isFacts(facts) ? facts : { kind: 'internal', retryAfterMs: undefined, problem: undefined };
}

function isFacts(value: unknown): value is FailureFacts {
  return typeof value === 'object' && value !== null && 'kind' in value && Object.hasOwn(CODES, String(value.kind));
}

/** What a CA wrote, for a line of ours: short, and without what could move a terminal. */
export function quotedText(text: string): string {
  // oxlint-disable-next-line no-control-regex -- it is these that are taken away
  return reasonOf(text.replaceAll(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, ' ')).slice(0, 500);
}
