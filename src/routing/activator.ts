/** The port through which the control plane's container side moves the edge. Declared here, implemented where both are wired together. */

export interface FreezeSpan {
  /** How long requests may be held, from the freeze on. */
  readonly deadlineMs: number;
  /** How long to wait for requests in flight before they are cut. */
  readonly drainMs: number;
}

export interface Activator {
  /** Parks requests for these endpoints on every worker, and resolves when none is in flight there any more. */
  freeze(endpointIds: readonly string[], span: FreezeSpan): Promise<{ readonly cut: number; readonly waitedMs: number }>;
  /** Releases what is parked, to wherever the current table says. */
  thaw(endpointIds: readonly string[]): Promise<void>;
  /** Computes the table from the store and brings every worker to it. */
  publish(): Promise<void>;
}
