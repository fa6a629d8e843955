/** What an ACME server answers where it refuses (RFC 8555 §6.7). */

export type ProblemType =
  | 'accountDoesNotExist'
  | 'alreadyReplaced'
  | 'alreadyRevoked'
  | 'badCSR'
  | 'badNonce'
  | 'badPublicKey'
  | 'badSignatureAlgorithm'
  | 'connection'
  | 'dns'
  | 'externalAccountRequired'
  | 'incorrectResponse'
  | 'invalidProfile'
  | 'malformed'
  | 'orderNotReady'
  | 'rateLimited'
  | 'rejectedIdentifier'
  | 'serverInternal'
  | 'tls'
  | 'unauthorized'
  | 'unsupportedIdentifier'
  | 'userActionRequired';

export interface ProblemDocument {
  readonly type: string;
  readonly detail: string;
  readonly status: number;
}

export class Problem extends Error {
  readonly type: ProblemType;
  readonly status: number;
  /** Seconds. */
  readonly retryAfter: number | undefined;

  constructor(type: ProblemType, status: number, detail: string, retryAfter?: number) {
    super(detail);
    this.type = type;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function malformed(detail: string): Problem {
  return new Problem('malformed', 400, detail);
}

export function problemDocument({ type, status, message }: Problem): ProblemDocument {
  return { type: `urn:ietf:params:acme:error:${type}`, detail: message, status };
}
