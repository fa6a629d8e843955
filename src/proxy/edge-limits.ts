/**
 * Everything that an operator may set about the data plane, with its default and the reason. Plain data: it goes to the workers as it is.
 *
 * The keys of `ecluse.yaml` that set these are in `config.ts`.
 */
import type { BudgetLimits } from './budget.ts';
import type { ChunkLimits } from './http1/limits.ts';

export interface EdgeLimits {
  /** Longest start line or field line, its CRLF included. Both sides. */
  readonly lineBytesMax: number;
  /** Longest head, both empty lines included. Both sides. */
  readonly headBytesMax: number;
  readonly fieldCountMax: number;
  /** Longest extensions of one chunk. */
  readonly chunkExtensionBytesMax: number;
  /** All chunk extensions of a message together. */
  readonly chunkExtensionBytesTotalMax: number;
  readonly trailerBytesMax: number;
  readonly trailerCountMax: number;
  /** Longest body of a request, without its chunk framing. */
  readonly requestBodyBytesMax: number;
  /** Client connections of one worker. */
  readonly connectionsMax: number;
  /** TLS handshakes under way in one worker. */
  readonly tlsHandshakesMax: number;
  /** Requests that one endpoint gets at once from one worker. */
  readonly upstreamConnectionsMax: number;
  /** Idle connections kept to one endpoint by one worker. */
  readonly upstreamIdleSocketsMax: number;

  /** From the first byte of a head (of a connection, for the first one) to its last. */
  readonly headTimeoutMs: number;
  /** How long a client's connection is kept without a request. */
  readonly idleTimeoutMs: number;
  readonly tlsHandshakeTimeoutMs: number;
  readonly connectTimeoutMs: number;
  /** From the last byte of the request to the first of the response. */
  readonly firstByteTimeoutMs: number;
  /** A body or an upgraded stream in which nothing moved in either direction for that long is cut. */
  readonly streamIdleTimeoutMs: number;
  /** A whole exchange that is no upgrade. 0: none. */
  readonly totalTimeoutMs: number;
  /** A side that moved fewer than `progressBytesMin` bytes of a body in this window, although the other was ready, is cut. */
  readonly progressWindowMs: number;
  /** 0: off. */
  readonly progressBytesMin: number;
  /** How long an idle connection to an endpoint is kept. */
  readonly upstreamIdleMs: number;

  /** Of one tenant, in the whole node; a worker gets its share (`shareOf`). */
  readonly tenant: BudgetLimits;
}

export const EDGE_LIMITS: EdgeLimits = {
  /** As nginx's and HAProxy's lines: browsers and SSO cookies stay below. */
  lineBytesMax: 16 * 1024,
  /** As nginx's default. */
  headBytesMax: 32 * 1024,
  /** More than any real client sends; bounds what a head costs to check. */
  fieldCountMax: 128,
  /** Nobody is known to use chunk extensions. */
  chunkExtensionBytesMax: 256,
  /** One octet of payload could carry hundreds of extensions; Node takes 16 KiB in a message as well. */
  chunkExtensionBytesTotalMax: 16 * 1024,
  /** gRPC-Web and checksums need few and short trailers. */
  trailerBytesMax: 8 * 1024,
  trailerCountMax: 32,
  /** Bodies are streamed and cost no memory: longer than any upload, short enough to be a number that adds up. */
  requestBodyBytesMax: 1024 ** 4,
  /** Bounds memory and file descriptors of one worker (two for each exchange). */
  connectionsMax: 20_000,
  /** A handshake is a millisecond of processor time: half a second of queue, after which it is kinder to refuse. */
  tlsHandshakesMax: 512,
  /** More would queue in the endpoint, where nobody sees them. */
  upstreamConnectionsMax: 1024,
  /** Enough for bursts, few enough for small containers. */
  upstreamIdleSocketsMax: 64,

  /** A head that takes longer comes from a stalled or hostile client (slowloris). */
  headTimeoutMs: 30_000,
  /** Longer than browsers pause between clicks. */
  idleTimeoutMs: 60_000,
  /** Some round trips, over the slowest of mobile networks. */
  tlsHandshakeTimeoutMs: 10_000,
  /** Containers are one hop away: a connection that takes longer will not come. */
  connectTimeoutMs: 2_000,
  /** What most clients wait for an answer, and nginx for an upstream. */
  firstByteTimeoutMs: 60_000,
  /** Streams of events and WebSockets send something every minute or so; two were lost. */
  streamIdleTimeoutMs: 300_000,
  /** Downloads and streams of events have no end that could be known here. */
  totalTimeoutMs: 0,
  /** 17 bytes a second: slower than any modem, faster than a slow-body attack that keeps a connection with a byte now and then. */
  progressWindowMs: 30_000,
  progressBytesMin: 512,
  /** Most servers keep them longer: it is us who close, not they while a request is on its way. */
  upstreamIdleMs: 30_000,

  tenant: {
    /** Two pages of a browser in every exchange that is allowed: HTTP/1.1 clients open several and use one. */
    connections: 16_384,
    /** What 1 GiB of memory carries at 128 KiB for both sides' sockets and buffers. */
    exchanges: 8_192,
    /** A migration and a wake hold for a second or two: some thousand requests are what a busy app gets in that time, on a worker that gets most. */
    heldRequests: 4_096,
    /** Heads of 1 KiB are usual, and of a body a read of 64 KiB is kept at most: room for a thousand uploads, or for all the others. */
    heldBytes: 64 * 1024 ** 2,
    /** A slow reader holds 64 KiB at most: a thousand of them at once, and still little beside a worker's memory. */
    bufferedBytes: 64 * 1024 ** 2,
    /** They live for hours and cost a socket on each side: no more than exchanges, of which they are a part. */
    upgradedStreams: 8_192,
  },
};

/** Those of chunked bodies. */
export function chunkLimitsOf(limits: EdgeLimits): ChunkLimits {
  return {
    extensionBytesMax: limits.chunkExtensionBytesMax,
    extensionBytesTotalMax: limits.chunkExtensionBytesTotalMax,
    trailerBytesMax: limits.trailerBytesMax,
    trailerCountMax: limits.trailerCountMax,
  };
}

/** Whether heads are bounded alike. */
export function hasSameHeads(one: EdgeLimits, other: EdgeLimits): boolean {
  return (
    one.lineBytesMax === other.lineBytesMax &&
    one.headBytesMax === other.headBytesMax &&
    one.fieldCountMax === other.fieldCountMax
  );
}
