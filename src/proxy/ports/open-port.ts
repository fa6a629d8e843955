/** What the ports of a worker have in common, whatever their protocol. */
import type { Endpoint, PublishedPort } from '#routing/route-table.ts';
import type { Clock } from '#clock';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { Budgets } from '#proxy/budget.ts';
import type { Counters } from '#proxy/counters.ts';
import type { TimingWheel } from '#proxy/timing-wheel.ts';
import type { Traffic } from '#proxy/traffic.ts';
import type { ReadPath } from '#proxy/wire/wire.ts';

/** What becomes of somebody who comes to a port now. */
export interface PortAnswer {
  readonly verdict: 'connect' | 'wait' | 'refuse';
  /** As the current table has it, or the one that is being prepared. */
  readonly port: PublishedPort | undefined;
}

/** What a port needs of its worker. */
export interface PortDeps {
  readonly clock: Clock;
  /** As they are now. */
  readonly limits: () => EdgeLimits;
  readonly budgets: Budgets;
  readonly traffic: Traffic;
  readonly counters: Counters;
  readonly wheel: TimingWheel;
  /** How accepted sockets are read. */
  readonly path: ReadPath;
  readonly answerTo: (key: string) => PortAnswer;
  /** Somebody waits for an endpoint. */
  readonly wanted: (endpoint: Endpoint) => void;
  /** Streams of all ports. */
  readonly streamCount: () => number;
  /** A listener that stood has failed. */
  readonly onFault: (key: string, error: Error) => void;
}

/** A port that is listened on. */
export interface OpenPort {
  readonly key: string;
  /** TCP connections or UDP sessions. */
  readonly streamCount: number;
  /** Where they lead, one entry for each. */
  endpointsInUse(): Iterable<string>;
  /** The table or a freeze changed: who waits goes on, what leads to a container that is gone ends. */
  changed(): void;
  /** Stops listening; what is under way goes on. */
  stopListening(): void;
  /** Ends all of it. */
  close(): void;
}
