/** The keys of `ecluse.yaml` that are about the data plane: their meaning, ranges and defaults. `EDGE_LIMITS` has the values and the reasons. */
import * as z from 'zod';
import { parseDurationMs, parseSizeBytes } from '#units';
import { EDGE_LIMITS } from './edge-limits.ts';
import type { EdgeLimits } from './edge-limits.ts';
import { parseTrustedProxies } from './trusted-proxies.ts';

export type { EdgeLimits } from './edge-limits.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const SIZE_PATTERN = /^\d+(?:\.\d+)?\s*(?:[kmg](?:i?b)?|b)?$/i;
const DURATION_PATTERN = /^\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)$/i;
/** As above, or "off". */
const SIZE_OR_OFF_PATTERN = /^(?:off|\d+(?:\.\d+)?\s*(?:[kmg](?:i?b)?|b)?)$/i;
const DURATION_OR_OFF_PATTERN = /^(?:off|\d+(?:\.\d+)?\s*(?:ms|s|m|h|d))$/i;

/** More than the largest of content delivery networks have. */
const TRUSTED_PROXIES_MAX = 1024;

interface Range {
  readonly min: number;
  readonly max: number;
  readonly default: number;
}

interface Quantity {
  readonly pattern: RegExp;
  readonly parse: (text: string) => number;
  readonly format: (value: number) => string;
  /** What is said of what is none. */
  readonly fault: string;
}

const SIZE: Quantity = {
  pattern: SIZE_PATTERN,
  parse: parseSizeBytes,
  format: sizeText,
  fault: 'is not a size; write it like "512B", "16KiB" or "1GiB"',
};
const DURATION: Quantity = {
  pattern: DURATION_PATTERN,
  parse: parseDurationMs,
  format: durationText,
  fault: 'is not a duration; write it like "500ms", "30s" or "10m"',
};
/** 0 is written "off". */
const SIZE_OR_OFF: Quantity = {
  pattern: SIZE_OR_OFF_PATTERN,
  parse: orOff(parseSizeBytes),
  format: (bytes) => (bytes === 0 ? 'off' : sizeText(bytes)),
  fault: 'is not a size; write it like "512B", "16KiB" or "off"',
};
const DURATION_OR_OFF: Quantity = {
  pattern: DURATION_OR_OFF_PATTERN,
  parse: orOff(parseDurationMs),
  format: (ms) => (ms === 0 ? 'off' : durationText(ms)),
  fault: 'is not a duration; write it like "30s", "10m" or "off"',
};

function orOff(parse: (text: string) => number): (text: string) => number {
  return (text) => (text.toLowerCase() === 'off' ? 0 : parse(text));
}

/** In the largest unit that it is a whole number of, as a file would have it. */
function sizeText(bytes: number): string {
  if (bytes > 0 && bytes % GIB === 0) return `${String(bytes / GIB)}GiB`;
  if (bytes > 0 && bytes % MIB === 0) return `${String(bytes / MIB)}MiB`;
  return bytes > 0 && bytes % KIB === 0 ? `${String(bytes / KIB)}KiB` : `${String(bytes)}B`;
}

function durationText(ms: number): string {
  if (ms % HOUR === 0) return `${String(ms / HOUR)}h`;
  return ms % SECOND === 0 ? `${String(ms / SECOND)}s` : `${String(ms)}ms`;
}

function quoted(input: unknown): string {
  return JSON.stringify(input).slice(0, 80);
}

/** A text with a unit, decoded to bytes or milliseconds within a range; "off", where it may be, is 0. */
function quantity(kind: Quantity, range: Range) {
  const error = ({ input }: { readonly input?: unknown }): string => `${quoted(input)} ${kind.fault}`;
  return z
    .string({ error })
    .regex(kind.pattern, { error })
    .transform((text, context): number => {
      const value = kind.parse(text);
      if ((value < range.min && text.toLowerCase() !== 'off') || value > range.max)
        context.addIssue({
          code: 'custom',
          message: `"${text}" is not from ${kind.format(range.min)} to ${kind.format(range.max)}`,
        });
      return value;
    })
    .prefault(kind.format(range.default));
}

function count(range: Range) {
  const error = ({ input }: { readonly input?: unknown }): string =>
    `${quoted(input)} is not a number from ${String(range.min)} to ${String(range.max)}`;
  return z.int({ error }).min(range.min, { error }).max(range.max, { error }).prefault(range.default);
}

function among(min: number, max: number, fallback: number): Range {
  return { min, max, default: fallback };
}

const limits = z
  .strictObject({
    lineSize: quantity(SIZE, among(KIB, 128 * KIB, EDGE_LIMITS.lineBytesMax)).describe(
      'Longest request line, status line or header line. At most headSize.',
    ),
    headSize: quantity(SIZE, among(KIB, 256 * KIB, EDGE_LIMITS.headBytesMax)).describe(
      'Longest head of a request or a response. Each connection may need as much memory.',
    ),
    fieldCount: count(among(16, 1024, EDGE_LIMITS.fieldCountMax)).describe('Most header fields of a head.'),
    chunkExtensionSize: quantity(SIZE, among(0, 4 * KIB, EDGE_LIMITS.chunkExtensionBytesMax)).describe(
      'Longest extensions of one chunk of a chunked body.',
    ),
    chunkExtensionsSize: quantity(SIZE, among(0, 64 * KIB, EDGE_LIMITS.chunkExtensionBytesTotalMax)).describe(
      'All chunk extensions of a message together.',
    ),
    trailersSize: quantity(SIZE, among(0, 64 * KIB, EDGE_LIMITS.trailerBytesMax)).describe('All trailers of a message together.'),
    trailerCount: count(among(0, 256, EDGE_LIMITS.trailerCountMax)).describe('Most trailers of a message.'),
    requestBodySize: quantity(SIZE, among(KIB, MIB * GIB, EDGE_LIMITS.requestBodyBytesMax)).describe(
      'Longest body of a request. Bodies are streamed and cost no memory.',
    ),
    connections: count(among(16, 1_000_000, EDGE_LIMITS.connectionsMax)).describe(
      'Most connections of clients, in each worker. Each needs two file descriptors.',
    ),
    tlsHandshakes: count(among(1, 100_000, EDGE_LIMITS.tlsHandshakesMax)).describe(
      'Most TLS handshakes under way, in each worker.',
    ),
    upstreamConnections: count(among(1, 60_000, EDGE_LIMITS.upstreamConnectionsMax)).describe(
      'Most requests that one endpoint gets at once, from each worker.',
    ),
    upstreamIdleConnections: count(among(0, 10_000, EDGE_LIMITS.upstreamIdleSocketsMax)).describe(
      'Most idle connections kept to one endpoint, by each worker.',
    ),
    progressSize: quantity(SIZE_OR_OFF, among(1, MIB, EDGE_LIMITS.progressBytesMin)).describe(
      'Who moves less of a body in the time-out "progress" is cut. "off": nobody is, and slow bodies are bounded by streamIdle only.',
    ),
  })
  .superRefine((written, context) => {
    if (written.lineSize > written.headSize)
      context.addIssue({ code: 'custom', path: ['lineSize'], message: 'a line cannot be longer than headSize' });
    if (written.chunkExtensionSize > written.chunkExtensionsSize)
      context.addIssue({
        code: 'custom',
        path: ['chunkExtensionSize'],
        message: 'the extensions of one chunk cannot be longer than chunkExtensionsSize',
      });
  });

const timeouts = z.strictObject({
  head: quantity(DURATION, among(SECOND, 10 * MINUTE, EDGE_LIMITS.headTimeoutMs)).describe(
    'From the first byte of a request head to its last.',
  ),
  idle: quantity(DURATION, among(SECOND, HOUR, EDGE_LIMITS.idleTimeoutMs)).describe(
    "How long a client's connection is kept without a request.",
  ),
  tlsHandshake: quantity(DURATION, among(SECOND, 2 * MINUTE, EDGE_LIMITS.tlsHandshakeTimeoutMs)).describe(
    'A whole TLS handshake.',
  ),
  connect: quantity(DURATION, among(100, MINUTE, EDGE_LIMITS.connectTimeoutMs)).describe('Connecting to an endpoint.'),
  firstByte: quantity(DURATION, among(SECOND, 24 * HOUR, EDGE_LIMITS.firstByteTimeoutMs)).describe(
    'From the last byte of a request to the first of its response.',
  ),
  streamIdle: quantity(DURATION, among(SECOND, 24 * HOUR, EDGE_LIMITS.streamIdleTimeoutMs)).describe(
    'A body, a WebSocket or the like in which nothing moved for that long is cut.',
  ),
  total: quantity(DURATION_OR_OFF, among(SECOND, 24 * HOUR, EDGE_LIMITS.totalTimeoutMs)).describe(
    'A whole request with its response; WebSockets and the like have none. "off": none. Cuts long downloads and streams of events.',
  ),
  progress: quantity(DURATION, among(SECOND, 10 * MINUTE, EDGE_LIMITS.progressWindowMs)).describe(
    'The window in which progressSize bytes of a body must move.',
  ),
  upstreamIdle: quantity(DURATION, among(SECOND, HOUR, EDGE_LIMITS.upstreamIdleMs)).describe(
    'How long an idle connection to an endpoint is kept. Below what apps keep them: else they close under requests.',
  ),
});

const tenant = z.strictObject({
  connections: count(among(1, 1_000_000, EDGE_LIMITS.tenant.connections)).describe(
    'Most connections with requests of one tenant.',
  ),
  exchanges: count(among(1, 1_000_000, EDGE_LIMITS.tenant.exchanges)).describe('Most requests of one tenant under way.'),
  heldRequests: count(among(0, 1_000_000, EDGE_LIMITS.tenant.heldRequests)).describe(
    'Most requests of one tenant that wait for containers on the move or asleep.',
  ),
  heldSize: quantity(SIZE, among(MIB, 64 * GIB, EDGE_LIMITS.tenant.heldBytes)).describe(
    'Most bytes of one tenant that are kept of requests that wait: their heads, and the beginnings of their bodies.',
  ),
  bufferedSize: quantity(SIZE, among(MIB, 64 * GIB, EDGE_LIMITS.tenant.bufferedBytes)).describe(
    'Most bytes of one tenant that were read and could not be written yet.',
  ),
  upgradedStreams: count(among(0, 1_000_000, EDGE_LIMITS.tenant.upgradedStreams)).describe(
    'Most WebSockets and the like of one tenant.',
  ),
});

const trustedProxies = z
  .array(z.string({ error: ({ input }) => `${quoted(input)} is not an address or a network` }))
  .max(TRUSTED_PROXIES_MAX, { error: `more than ${String(TRUSTED_PROXIES_MAX)} entries` })
  .superRefine((list, context) => {
    const parsed = parseTrustedProxies(list);
    if (parsed.kind === 'invalid') context.addIssue({ code: 'custom', path: [parsed.index], message: parsed.why });
  });

/** The keys, for the schema of the whole file. */
export const edgeKeys = {
  trustedProxies: trustedProxies
    .prefault([])
    .describe(
      'Addresses and networks (CIDR) of the proxies in front of the node, whose X-Forwarded-* and PROXY headers are believed. Whoever is in it can claim to be any client.',
    ),
  proxyProtocol: z
    .boolean({ error: ({ input }) => `${quoted(input)} is neither true nor false` })
    .prefault(false)
    .describe(
      'true: connections from trustedProxies to listen.http and listen.https begin with a PROXY header (version 1 or 2); those that do not are closed.',
    ),
  edge: z
    .strictObject({
      limits: limits.prefault({}).describe('Of messages, connections and endpoints.'),
      timeouts: timeouts.prefault({}).describe('Durations after which the edge gives up.'),
      tenant: tenant.prefault({}).describe('What one tenant may hold at once, in the whole node: each worker gets its share.'),
    })
    .prefault({})
    .describe('Limits and time-outs of the edge.'),
};

/** Says what is wrong between keys, or undefined. */
export function edgeFault(written: {
  readonly trustedProxies: readonly string[];
  readonly proxyProtocol: boolean;
}): string | undefined {
  if (!written.proxyProtocol || written.trustedProxies.length > 0) return undefined;
  return 'no header would be read: trustedProxies is empty; list the proxies there';
}

/** What a file says of the edge, as the data plane takes it. */
export function edgeLimitsOf(edge: z.infer<typeof edgeKeys.edge>): EdgeLimits {
  return {
    lineBytesMax: edge.limits.lineSize,
    headBytesMax: edge.limits.headSize,
    fieldCountMax: edge.limits.fieldCount,
    chunkExtensionBytesMax: edge.limits.chunkExtensionSize,
    chunkExtensionBytesTotalMax: edge.limits.chunkExtensionsSize,
    trailerBytesMax: edge.limits.trailersSize,
    trailerCountMax: edge.limits.trailerCount,
    requestBodyBytesMax: edge.limits.requestBodySize,
    connectionsMax: edge.limits.connections,
    tlsHandshakesMax: edge.limits.tlsHandshakes,
    upstreamConnectionsMax: edge.limits.upstreamConnections,
    upstreamIdleSocketsMax: edge.limits.upstreamIdleConnections,
    headTimeoutMs: edge.timeouts.head,
    idleTimeoutMs: edge.timeouts.idle,
    tlsHandshakeTimeoutMs: edge.timeouts.tlsHandshake,
    connectTimeoutMs: edge.timeouts.connect,
    firstByteTimeoutMs: edge.timeouts.firstByte,
    streamIdleTimeoutMs: edge.timeouts.streamIdle,
    totalTimeoutMs: edge.timeouts.total,
    progressWindowMs: edge.timeouts.progress,
    progressBytesMin: edge.limits.progressSize,
    upstreamIdleMs: edge.timeouts.upstreamIdle,
    tenant: {
      connections: edge.tenant.connections,
      exchanges: edge.tenant.exchanges,
      heldRequests: edge.tenant.heldRequests,
      heldBytes: edge.tenant.heldSize,
      bufferedBytes: edge.tenant.bufferedSize,
      upgradedStreams: edge.tenant.upgradedStreams,
    },
  };
}
