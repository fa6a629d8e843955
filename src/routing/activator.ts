/**
 * The two ports between the edge and the control plane's container side: `Activator` moves the edge, `Waker` is what the edge asks for.
 *
 * Declared here, implemented where both are wired together.
 */

export interface FreezeSpan {
  /** How long requests may be held, from the freeze on. */
  readonly deadlineMs: number;
  /** How long to wait for requests in flight before they are cut. */
  readonly drainMs: number;
  /**
   * WebSockets and server-sent events have no end that could be waited for. `close`, the default: they are ended in order at once, and their clients
   * come again. `carry`: they stay as they are, for a runtime that can move a TCP connection.
   */
  readonly streams?: 'close' | 'carry' | undefined;
}

/** What became of what was in flight at a freeze. */
export interface Frozen {
  /** Requests and other streams that did not end in time. */
  readonly cut: number;
  readonly waitedMs: number;
  readonly closedWebSockets: number;
  readonly endedEventStreams: number;
  /** Requests that wait with all others, to be sent again. */
  readonly replayed: number;
}

/** What an endpoint has to do, as of about a second ago. */
export interface EndpointUse {
  /** Requests, connections and other streams under way there. */
  readonly inFlight: number;
  /** Requests that wait for its service. The same for all endpoints of one service: not to be added up. */
  readonly held: number;
  /** How long it had nothing to do; undefined: it never had since the node began. */
  readonly quietMs: number | undefined;
}

export interface Activator {
  /** Parks requests for these endpoints on every worker, and resolves when none is in flight there any more. A thaw before that ends the wait. */
  freeze(endpointIds: readonly string[], span: FreezeSpan): Promise<Frozen>;
  /** Computes the table from the store and, in the same turn in which workers begin to serve it, releases what is parked to where it says. */
  thaw(endpointIds: readonly string[]): Promise<void>;
  /** Computes the table from the store and brings every worker to it. */
  publish(): Promise<void>;
  /** To be looked at again after a freeze, which ends what began in between, before an endpoint is put to sleep. */
  useOf(endpointId: string): EndpointUse;
  /** These endpoints, which sleep, could not be woken: who waits is refused, and so is who comes within `retryAfterMs`. */
  wakeFailed(endpointIds: readonly string[], retryAfterMs: number): Promise<void>;
}

export interface Waker {
  /**
   * Requests wait for one of these endpoints, all of which sleep: any one will do. Said once, and again after some seconds as long as requests
   * wait. The answer is a published table in which one is awake, or `Activator.wakeFailed`; without one requests wait for a minute at most.
   */
  wake(endpointIds: readonly string[]): void;
}
