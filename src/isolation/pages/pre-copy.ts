/** When to stop copying ahead: rounds until what changes between two of them is small, or does not get smaller. Pure. */

/** What is known of a round that is over. */
export interface PreCopyRound {
  /** Pages that were new, in bytes. */
  readonly newBytes: number;
  readonly sentBytes: number;
  readonly tookMs: number;
}

export interface PreCopyLimits {
  /** A rest that is sent within some milliseconds of the pause. */
  readonly smallBytes: number;
  /** A round that leaves more than this share of the one before is no progress. */
  readonly shrinkTo: number;
  readonly roundsMax: number;
  /** Of all rounds together. */
  readonly timeMaxMs: number;
}

export const PRE_COPY_LIMITS: PreCopyLimits = {
  // At 1 Gbit/s it takes 17 ms.
  smallBytes: 2 * 1024 * 1024,
  shrinkTo: 0.7,
  // Each round that shrinks leaves at most 70 %: eight leave a twelfth of the second.
  roundsMax: 8,
  // A migration that nobody waits for may take its time; a host that is being drained has others in line.
  timeMaxMs: 60_000,
};

export type PreCopyDecision =
  | { readonly kind: 'again' }
  | { readonly kind: 'stop'; readonly why: 'small' | 'not-shrinking' | 'dirty-faster-than-sent' | 'rounds' | 'time' };

/** Asked after each round, with all rounds so far. */
export function decidePreCopy(rounds: readonly PreCopyRound[], limits: PreCopyLimits): PreCopyDecision {
  const last = rounds.at(-1);
  if (last === undefined) return limits.roundsMax > 0 ? { kind: 'again' } : { kind: 'stop', why: 'rounds' };
  const spentMs = rounds.reduce((sum, { tookMs }) => sum + tookMs, 0);
  // The first round is the whole memory: how much changes shows from the second on.
  if (rounds.length > 1 && last.newBytes <= limits.smallBytes) return { kind: 'stop', why: 'small' };
  if (rounds.length >= limits.roundsMax) return { kind: 'stop', why: 'rounds' };
  if (spentMs >= limits.timeMaxMs) return { kind: 'stop', why: 'time' };
  const before = rounds.at(-2);
  if (before === undefined) return { kind: 'again' };
  if (rounds.length > 2 && last.newBytes > before.newBytes * limits.shrinkTo) return { kind: 'stop', why: 'not-shrinking' };
  // What was new in the last round came to be while the one before it ran.
  const dirtyBytesPerMs = last.newBytes / Math.max(1, before.tookMs);
  if (dirtyBytesPerMs >= sendBytesPerMs(rounds)) return { kind: 'stop', why: 'dirty-faster-than-sent' };
  return { kind: 'again' };
}

/** How fast rounds get rid of new pages: the best of them, for small ones spend their time on reading. */
function sendBytesPerMs(rounds: readonly PreCopyRound[]): number {
  return Math.max(...rounds.map(({ newBytes, tookMs }) => newBytes / Math.max(1, tookMs)));
}
