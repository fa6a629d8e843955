/**
 * When a certificate is renewed: inside the window that its CA suggests (RFC 9773), else after a part of its life, and never later than a point that
 * leaves time for a long outage of the CA. The moment within the window belongs to the certificate, so that nodes and restarts come to the same one, and
 * that certificates which were made together are not renewed together.
 */
import { steadyShare } from './steady-share.ts';

export interface Lifetime {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface RenewalWindow {
  readonly startMs: number;
  readonly endMs: number;
}

export interface RenewalPlan {
  readonly atMs: number;
  /** Who says so: the CA's window, the certificate's life, or the safety point, because the others came after it. */
  readonly by: 'window' | 'life' | 'safety';
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** Certificates of six days are renewed at half of their life: a third of it would leave two days for everything that can go wrong. */
const SHORT_LIFE_MS = 10 * DAY_MS;
const PART_OF_LONG_LIFE = 2 / 3;
const PART_OF_SHORT_LIFE = 1 / 2;
/** Of the life, around that point. */
const SPREAD = 0.1;
/** Of the life, and no window of a CA moves it: 6.75 days are left of 45, and 22 hours of 6 days. */
const SAFETY_PART = 0.85;
/** RFC 9773 §4.3.3: six hours where the CA says nothing, and not less than a minute nor more than a day whatever it says. */
const CHECK_MS = 6 * HOUR_MS;
const CHECK_MIN_MS = MINUTE_MS;
const CHECK_MAX_MS = DAY_MS;

/** `seed` names the certificate: its fingerprint, or its name and serial number. A moment in the past means now. */
export function planRenewal(seed: string, life: Lifetime, window: RenewalWindow | undefined): RenewalPlan {
  const safetyMs = safetyPointMs(life);
  const share = steadyShare(seed);
  const { startMs, endMs } = window ?? windowOfLife(life);
  const chosenMs = Math.floor(startMs + share * Math.max(0, endMs - startMs));
  if (chosenMs > safetyMs) return { atMs: safetyMs, by: 'safety' };
  return { atMs: chosenMs, by: window === undefined ? 'life' : 'window' };
}

/** From then on the certificate is in danger, and comes before others. */
export function safetyPointMs({ notBeforeMs, notAfterMs }: Lifetime): number {
  return Math.floor(notBeforeMs + (notAfterMs - notBeforeMs) * SAFETY_PART);
}

/** When the CA is asked for the window again. `retryAfterMs`: what it said. */
export function planInfoCheck(seed: string, checkedMs: number, retryAfterMs: number | undefined): number {
  const pauseMs = Math.min(CHECK_MAX_MS, Math.max(CHECK_MIN_MS, retryAfterMs ?? CHECK_MS));
  // Up to a tenth later, so that a hundred thousand that were asked for together are not so for ever.
  return Math.floor(checkedMs + pauseMs * (1 + steadyShare(`${seed} ${String(checkedMs)}`) / 10));
}

function windowOfLife({ notBeforeMs, notAfterMs }: Lifetime): RenewalWindow {
  const lifeMs = notAfterMs - notBeforeMs;
  const part = lifeMs > SHORT_LIFE_MS ? PART_OF_LONG_LIFE : PART_OF_SHORT_LIFE;
  return {
    startMs: notBeforeMs + lifeMs * (part - SPREAD / 2),
    endMs: notBeforeMs + lifeMs * (part + SPREAD / 2),
  };
}
