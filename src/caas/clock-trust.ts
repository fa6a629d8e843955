/**
 * Whether the wall clock may be believed for what cannot be taken back. After a start it may not have been put right yet, and where somebody sets it wrongly he
 * mostly finds that within the hour: both are waited for.
 */
import type { Clock } from '#clock';
import type { Log } from '#log';

/** Clocks are put right by so much without anybody's doing. */
const SLACK_MS = 60_000;
const SET_WAIT_MS = 3_600_000;

export class ClockTrust {
  readonly #deps: { readonly log: Log; readonly clock: Clock };
  #looked: { readonly nowMs: number; readonly atMs: number };
  #fromAtMs: number;

  /** `startWaitMs`: for how long it is not believed at first. */
  constructor(deps: { readonly log: Log; readonly clock: Clock }, startWaitMs: number) {
    this.#deps = deps;
    this.#looked = { nowMs: deps.clock.nowMs(), atMs: deps.clock.monotonicMs() };
    this.#fromAtMs = this.#looked.atMs + startWaitMs;
  }

  /** To be asked again and again: it compares with the time before. */
  isTrusted(): boolean {
    const { clock, log } = this.#deps;
    const now = { nowMs: clock.nowMs(), atMs: clock.monotonicMs() };
    const byMs = Math.round(now.nowMs - this.#looked.nowMs - (now.atMs - this.#looked.atMs));
    this.#looked = now;
    if (Math.abs(byMs) > SLACK_MS) {
      this.#fromAtMs = Math.max(this.#fromAtMs, now.atMs + SET_WAIT_MS);
      log.warn(
        { byMs, nowMs: now.nowMs },
        'the clock was set: days are signed and old rows dropped when it was right for an hour',
      );
    }
    return now.atMs >= this.#fromAtMs;
  }
}
