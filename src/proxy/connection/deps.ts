/** What the connections of a worker share. */
import type { ChunkLimits } from '#proxy/http1/limits.ts';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { Complaints } from '#proxy/complaints.ts';
import type { Counters } from '#proxy/counters.ts';
import { chunkLimitsOf } from '#proxy/edge-limits.ts';
import { EndpointSecurities } from '#proxy/endpoint-security.ts';
import type { TlsMaterial } from '#proxy/endpoint-security.ts';
import type { Endpoint } from '#routing/route-table.ts';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import { TimingWheel } from '#proxy/timing-wheel.ts';
import { createHeadReading } from './head-reader.ts';
import type { HeadReading } from './head-reader.ts';

export interface ConnectionDeps {
  readonly limits: EdgeLimits;
  readonly chunkLimits: ChunkLimits;
  readonly wheel: TimingWheel;
  readonly requestHeads: HeadReading;
  readonly responseHeads: HeadReading;
  readonly securities: EndpointSecurities;
  /** TLS with an endpoint came to nothing. */
  secureFailed(endpoint: Endpoint, reason: string): void;
  /** A connection to an endpoint was made. */
  upstreamConnected(): void;
  /** A connection to an endpoint could not be made, for what the system says. */
  unreachable(endpoint: Endpoint, reason: string): void;
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

interface WorkerParts {
  readonly limits: EdgeLimits;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

export function createConnectionDeps({ limits, clock, counters, log }: WorkerParts, material: TlsMaterial): ConnectionDeps {
  const complaints = new Complaints();
  return {
    limits,
    chunkLimits: chunkLimitsOf(limits),
    wheel: new TimingWheel(clock, {
      onError: (thrown) => {
        log.error({ reason: reasonOf(thrown) }, 'a time-out failed');
      },
    }),
    requestHeads: createHeadReading('request', limits),
    responseHeads: createHeadReading('response', limits),
    securities: new EndpointSecurities(material),
    secureFailed: ({ id }, reason) => {
      complaints.of(id, () => {
        log.warn({ endpoint: id, reason }, 'TLS with an endpoint failed');
      });
    },
    unreachable: ({ id, address, port }, reason) => {
      complaints.of(id, () => {
        log.info({ endpoint: id, address, port, reason }, 'an endpoint could not be connected to');
      });
    },
    upstreamConnected: () => {
      counters.upstreamConnected();
    },
    poisoned: () => {
      counters.upstreamPoisoned();
    },
  };
}
