/** What the connections of a worker share. */
import type { ChunkLimits } from '#proxy/http1/limits.ts';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { TimingWheel } from '#proxy/timing-wheel.ts';
import type { UnreachableLog } from '#proxy/unreachable-log.ts';
import type { HeadReading } from './head-reader.ts';

export interface ConnectionDeps {
  readonly limits: EdgeLimits;
  readonly chunkLimits: ChunkLimits;
  readonly wheel: TimingWheel;
  readonly requestHeads: HeadReading;
  readonly responseHeads: HeadReading;
  /** A connection to an endpoint was made. */
  upstreamConnected(): void;
  /** Told of connections to endpoints that could not be made. */
  readonly unreachable: UnreachableLog;
  /** A connection to an endpoint said something that was not asked for. */
  poisoned(): void;
}

/** A client's connection, as whoever looks after all of them sees it. */
export interface ClientConnection {
  /** Brings the account of the exchange at hand up to date. */
  settle(): void;
  /** Closes it if it has no request under way. */
  closeIdle(): void;
}
