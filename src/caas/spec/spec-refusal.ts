/** Why a specification is not taken. */

/** `isWhole`: the reason is the whole message, as where the words are Docker's. */
export interface SpecRefusal {
  readonly kind: 'refused';
  readonly status: 400 | 403 | 501;
  readonly reason: string;
  readonly isWhole?: true;
}

export const OUTSIDE = 'it would reach outside of the sandbox';
