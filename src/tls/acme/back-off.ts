/**
 * How long a failure keeps us from trying again: for a name at one CA, and for a CA as a whole. Exponential with a cap, and with a share that belongs to
 * who waits, so that a thousand names which failed together do not come back together. What the CA says by Retry-After is obeyed.
 */
import { steadyShare } from './steady-share.ts';

/** What went wrong, as far as it matters for what is tried next. */
export type FailureKind =
  /** The CA did not answer, or not as it should: nothing is known against the name. */
  | 'ca'
  /** The CA takes no more at the moment. */
  | 'rate-limit'
  /** The CA did not reach the host, or not what it looked for. */
  | 'validation'
  /** The CA gives none for this name: forbidden, CAA, a kind of challenge that it does not offer. */
  | 'refused'
  /** Something of ours. */
  | 'internal';

/** In a row, of one kind of subject. */
export interface Failures {
  readonly count: number;
  readonly lastMs: number;
  /** Not before then. */
  readonly untilMs: number;
}

interface Pace {
  readonly firstMs: number;
  readonly maxMs: number;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/**
 * Of a name. A CA that is down costs the name little: it is held back as a whole. What CAs count are failed validations, five an hour at Let's Encrypt;
 * at 5, 10, 20 and 40 minutes there are four in the first. A name that was refused will be refused again, until somebody does something.
 */
const NAME_PACE: Readonly<Record<FailureKind, Pace>> = {
  ca: { firstMs: MINUTE_MS, maxMs: HOUR_MS },
  'rate-limit': { firstMs: 10 * MINUTE_MS, maxMs: 3 * HOUR_MS },
  validation: { firstMs: 5 * MINUTE_MS, maxMs: 6 * HOUR_MS },
  refused: { firstMs: HOUR_MS, maxMs: 12 * HOUR_MS },
  internal: { firstMs: MINUTE_MS, maxMs: HOUR_MS },
};
/** Of a CA as a whole: an outage of two days costs some sixty attempts, and its end is seen within the hour. */
const CA_PACE: Pace = { firstMs: 30_000, maxMs: 45 * MINUTE_MS };
/** Up to so much longer. */
const SPREAD = 0.3;
/** A CA that says "in a year" is not obeyed for ever: a certificate of six days would end meanwhile. */
const RETRY_AFTER_MAX_MS = DAY_MS;
/** Doubling ends here in any case, so that the number stays one. */
const DOUBLINGS_MAX = 30;
/** Failures of a name at a CA after which the next CA is tried, and how long they count. */
const CHANGE_AFTER = 3;
const REMEMBERED_MS = 2 * DAY_MS;
/** A CA that is down for so long is down; those who can wait for it, should. */
const CHANGE_AFTER_OUTAGE = 5;

export interface Failed {
  readonly seed: string;
  readonly kind: FailureKind;
  readonly nowMs: number;
  /** What the CA said. */
  readonly retryAfterMs: number | undefined;
}

/** Of a name at one CA. */
export function nameFailed(before: Failures | undefined, failed: Failed): Failures {
  return failedAt(before, NAME_PACE[failed.kind], failed);
}

/** Of a CA: to be called for the kinds `ca` and `rate-limit`. What began before the last failure was seen says nothing new, and does not count again. */
export function caFailed(before: Failures | undefined, failed: Failed & { readonly beganMs: number }): Failures {
  if (before === undefined || failed.beganMs > before.lastMs) return failedAt(before, CA_PACE, failed);
  return { ...before, untilMs: Math.max(before.untilMs, failed.nowMs + askedMs(failed)) };
}

function failedAt(before: Failures | undefined, { firstMs, maxMs }: Pace, failed: Failed): Failures {
  const { seed, nowMs } = failed;
  const count = before !== undefined && nowMs - before.lastMs < REMEMBERED_MS ? before.count + 1 : 1;
  const pauseMs = Math.min(maxMs, firstMs * 2 ** Math.min(count - 1, DOUBLINGS_MAX));
  const spreadMs = pauseMs * (1 + SPREAD * steadyShare(`${seed} ${String(count)}`));
  return { count, lastMs: nowMs, untilMs: Math.ceil(nowMs + Math.max(spreadMs, askedMs(failed))) };
}

function askedMs({ retryAfterMs }: Failed): number {
  return Math.min(RETRY_AFTER_MAX_MS, Math.max(0, retryAfterMs ?? 0));
}

export interface CaStanding {
  /** The directory's URL. */
  readonly id: string;
  /** Of the CA as a whole. */
  readonly ofCa: Failures | undefined;
  /** Of the name at this CA. */
  readonly ofName: Failures | undefined;
}

export interface CaChoice {
  /** Those that may be asked now, the one that is to be asked first. */
  readonly open: readonly string[];
  /** When more may be asked; infinite: all may. */
  readonly untilMs: number;
}

/**
 * Which of the CAs, in the operator's order, are asked for a name now. The first is waited for while its failures are few; then the next one has its turn,
 * and so on; when all have failed often, those that may be asked. `isUrgent`: there is no time to wait for a better one.
 */
export function chooseCas(standings: readonly CaStanding[], nowMs: number, isUrgent: boolean): CaChoice {
  const open = standings.filter((standing) => untilMsOf(standing) <= nowMs);
  const untilMs = Math.min(...standings.map(untilMsOf).filter((ms) => ms > nowMs));
  const trusted = standings.findIndex((standing) => !isGivenUp(standing, nowMs));
  const first = standings[trusted];
  if (first === undefined || isUrgent) return { open: open.map(({ id }) => id), untilMs };
  if (!open.includes(first)) return { open: [], untilMs: untilMsOf(first) };
  // Those before it have failed often, and come last.
  const after = open.filter((standing) => standings.indexOf(standing) > trusted);
  return { open: [first, ...after].map(({ id }) => id), untilMs };
}

function untilMsOf({ ofCa, ofName }: CaStanding): number {
  return Math.max(ofCa?.untilMs ?? 0, ofName?.untilMs ?? 0);
}

function isGivenUp({ ofCa, ofName }: CaStanding, nowMs: number): boolean {
  const isOften = (failures: Failures | undefined, count: number): boolean =>
    failures !== undefined && failures.count >= count && nowMs - failures.lastMs < REMEMBERED_MS;
  return isOften(ofName, CHANGE_AFTER) || isOften(ofCa, CHANGE_AFTER_OUTAGE);
}
