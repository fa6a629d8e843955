/** Whether the bodies of an exchange move fast enough, looked at once in a window of time. */
import type { EdgeLimits } from '#proxy/edge-limits.ts';

export class Progress {
  readonly #limits: EdgeLimits;
  /** Bytes that had moved when it was looked at last. */
  #movedBytes = 0;

  constructor(limits: EdgeLimits) {
    this.#limits = limits;
  }

  begin(movedBytes: number): void {
    this.#movedBytes = movedBytes;
  }

  /** The next look: in a window, or when all of the time is over. */
  untilNextMs(startMs: number, nowMs: number): number {
    const { totalTimeoutMs, progressWindowMs } = this.#limits;
    if (totalTimeoutMs === 0) return progressWindowMs;
    return Math.min(progressWindowMs, startMs + totalTimeoutMs - nowMs);
  }

  /** Looks at it. `waits`: it is the client that everything waits for. */
  stalls(movedBytes: number, waits: boolean): boolean {
    const stalls = movedBytes - this.#movedBytes < this.#limits.progressBytesMin && waits;
    this.#movedBytes = movedBytes;
    return stalls;
  }
}
