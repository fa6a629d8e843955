/** The longest time without a sign of life, within a window. */

export interface GapMeter {
  /** Something came. */
  note(): void;
  /** Begins a window; what was before it does not count. */
  begin(): void;
  /** The longest gap of the window so far; one that has not ended counts as it is. */
  longestMs(): number;
}

export function gapMeter(): GapMeter {
  let lastMs = performance.now();
  let longestMs = 0;
  return {
    note: () => {
      const nowMs = performance.now();
      longestMs = Math.max(longestMs, nowMs - lastMs);
      lastMs = nowMs;
    },
    begin: () => {
      longestMs = 0;
      lastMs = performance.now();
    },
    longestMs: () => Math.max(longestMs, performance.now() - lastMs),
  };
}
