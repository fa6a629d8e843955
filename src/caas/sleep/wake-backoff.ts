/** How long to wait before a container whose wake failed is tried again. Pure. */

export interface FailedWakes {
  readonly inARow: number;
  /** Not before this, monotonic. */
  readonly retryMs: number;
}

const FIRST_MS = 1_000;
/** Long enough that a broken container costs nothing, short enough that a mended one is back soon. */
const LONGEST_MS = 60_000;

export function afterFailedWake(before: FailedWakes | undefined, nowMs: number): FailedWakes & { readonly backOffMs: number } {
  const inARow = (before?.inARow ?? 0) + 1;
  const backOffMs = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(inARow - 1, 10));
  return { inARow, retryMs: nowMs + backOffMs, backOffMs };
}
