/** Whether the bodies of an exchange move fast enough, looked at once in a window of time. */
import type { EdgeLimits } from '#proxy/edge-limits.ts';

export class Progress {
  readonly #limits: EdgeLimits;
  /** Bytes that had moved when it was looked at last. */
  #movedBytes = 0;
  /** Whether it was the client that everything waited for then: who was held back until a moment ago had no time to move anything. */
  #waited = true;

  constructor(limits: EdgeLimits) {
    this.#limits = limits;
  }

  begin(movedBytes: number): void {
    this.#movedBytes = movedBytes;
    this.#waited = true;
  }

  /** The next look: in a window, or when all of the time is over. */
  untilNextMs(startMs: number, nowMs: number): number {
    const { totalTimeoutMs, progressWindowMs } = this.#limits;
    if (totalTimeoutMs === 0) return progressWindowMs;
    return Math.min(progressWindowMs, startMs + totalTimeoutMs - nowMs);
  }

  /** Looks at it. `waits`: it is the client that everything waits for now. It is blamed where that was so a window ago as well. */
  stalls(movedBytes: number, waits: boolean): boolean {
    const stalls = movedBytes - this.#movedBytes < this.#limits.progressBytesMin && waits && this.#waited;
    this.#movedBytes = movedBytes;
    this.#waited = waits;
    return stalls;
  }
}
