/**
 * How many copies of a service there should be, from the requests that it has. Pure: time enters as an argument, and the state between two steps is
 * a value.
 *
 * What counts are requests in flight and those that wait, smoothed: quickly upwards, because who waits is served late, and slowly downwards, because
 * a copy that goes is missed at the next rise. Between the two thresholds nothing happens.
 */
import type { ScaleWish } from './scale-labels.ts';

export interface ScalePolicy {
  readonly upTauMs: number;
  readonly downTauMs: number;
  /** Since the last change of any kind, before more copies are made. */
  readonly upAfterMs: number;
  /** Since the last change of any kind, before a copy goes. */
  readonly downAfterMs: number;
  /** Of what one copy fewer would carry, in thousandths: only a load below it lets one go. */
  readonly downFillMilli: number;
}

export const SCALE_POLICY: ScalePolicy = {
  // Two messages of the workers: a single full second is no load yet.
  upTauMs: 2_000,
  // Longer than the gap between two bursts of one page's visitors.
  downTauMs: 20_000,
  // A copy that was just made takes some seconds until it has its share.
  upAfterMs: 8_000,
  // Ups and downs of a minute are borne, not followed.
  downAfterMs: 30_000,
  // What is left is full to seven tenths: a small rise does not call the copy back.
  downFillMilli: 700,
};

export interface ScaleSample {
  readonly nowMs: number;
  /** That serve, the original counted. */
  readonly copies: number;
  readonly inFlight: number;
  readonly held: number;
}

export interface ScaleState {
  readonly smoothed: number;
  readonly sampledMs: number;
  /** When the number of copies changed last, or the service was seen first. */
  readonly changedMs: number;
}

export interface ScaleStep {
  readonly state: ScaleState;
  /** How many there should be; as many as there are: nothing is to be done. */
  readonly wanted: number;
  readonly why: string;
}

export function firstScaleState(nowMs: number): ScaleState {
  return { smoothed: 0, sampledMs: nowMs, changedMs: nowMs };
}

/** One sample further. Whoever acts on `wanted` keeps the state with `changedMs` of the end of the action (`scaled`). */
export function scaleStep(
  before: ScaleState,
  sample: ScaleSample,
  wish: ScaleWish,
  policy: ScalePolicy = SCALE_POLICY,
): ScaleStep {
  const { nowMs, copies } = sample;
  const asked = sample.inFlight + sample.held;
  const tauMs = asked > before.smoothed ? policy.upTauMs : policy.downTauMs;
  const share = 1 - Math.exp(-Math.max(0, nowMs - before.sampledMs) / tauMs);
  const smoothed = before.smoothed + (asked - before.smoothed) * share;
  const state: ScaleState = { ...before, smoothed, sampledMs: Math.max(nowMs, before.sampledMs) };
  const stay = (why: string): ScaleStep => ({ state, wanted: copies, why });
  const load = `${smoothed.toFixed(1)} requests at a time at ${String(copies)}, each for ${String(wish.requests)}`;
  const sinceMs = nowMs - before.changedMs;
  if (copies > wish.max)
    return sinceMs < policy.upAfterMs
      ? stay('it was just changed')
      : { state, wanted: copies - 1, why: `more than ${String(wish.max)}` };
  const needed = Math.max(wish.min, Math.ceil(smoothed / wish.requests));
  if (needed > copies) {
    if (copies >= wish.max) return stay(`${load}; it has as many as it may`);
    if (sinceMs < policy.upAfterMs) return stay(`${load}; it was just changed`);
    // At most twice as many: what a burst asks for is not what is there when they are ready.
    const wanted = Math.min(wish.max, needed, Math.max(1, copies) * 2);
    return {
      state,
      wanted,
      why: needed === wish.min && smoothed <= copies * wish.requests ? `at least ${String(wish.min)} are asked for` : load,
    };
  }
  const fitsFewer = smoothed <= ((copies - 1) * wish.requests * policy.downFillMilli) / 1000;
  // The last copy has no fewer: a single one stays, however little it has.
  if (copies <= wish.min || copies <= 1 || !(fitsFewer || isIdle(smoothed))) return stay(load);
  if (sinceMs < policy.downAfterMs) return stay(`${load}; it was just changed`);
  return { state, wanted: copies - 1, why: load };
}

/** Nearly nothing: the smoothed load comes close to zero, and never there. */
function isIdle(smoothed: number): boolean {
  return smoothed < 0.05;
}

/** The state after the number of copies was changed, or a change failed. */
export function scaled(state: ScaleState, nowMs: number): ScaleState {
  return { ...state, changedMs: nowMs };
}
