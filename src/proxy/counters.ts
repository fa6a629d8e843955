/**
 * What a worker counts, as plain numbers; the primary sums the workers' (`aggregateMetrics`).
 *
 * Labels are bounded: tenants up to `TENANTS_MAX`, classes of statuses, kinds of our own; never a host or a path.
 * PERF: to count is to add to a field, without a look-up: who counts for a tenant keeps its `TenantCounters`. Names, labels and texts are put to
 * the numbers when they are asked for, in the form of prom-client's `getMetricsAsJSON`.
 */
import { OTHER_TENANTS } from './budget.ts';
import type { Refusals } from './budget.ts';
import type { TrafficDelta } from './protocol.ts';

/** What is counted for one tenant. */
export interface TenantCounters {
  readonly tenant: string;
  /** Exchanges that ended, by the class of their status. */
  c1xx: number;
  c2xx: number;
  c3xx: number;
  c4xx: number;
  c5xx: number;
  /** Nothing was answered, or a status above 599. */
  cOther: number;
  downstreamInBytes: number;
  downstreamOutBytes: number;
  upstreamInBytes: number;
  upstreamOutBytes: number;
  /** Connections and UDP sessions at published ports. */
  tcpStreams: number;
  udpStreams: number;
}

/** What was waited for in vain; those that end an exchange have the name of its error. */
export const TIMEOUT_KINDS = [
  'tls-handshake',
  'request-timeout',
  'client-too-slow',
  'hold-expired',
  'connect-timeout',
  'first-byte-timeout',
  'stream-idle',
  'total-timeout',
] as const;
export type TimeoutKind = (typeof TIMEOUT_KINDS)[number];

export function isTimeout(error: string): error is TimeoutKind {
  return TIMEOUT_KINDS.some((kind) => kind === error);
}

/** What became of copies of requests. */
const MIRROR_OUTCOMES = ['sent', 'failed', 'skipped'] as const;
export type MirrorOutcome = (typeof MIRROR_OUTCOMES)[number];

type Labels = Readonly<Record<string, string | number>>;

interface MetricValue {
  readonly value: number;
  readonly labels: Labels;
  readonly metricName?: string;
}

/** As prom-client's `getMetricsAsJSON` has it. */
interface MetricJson {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'histogram';
  readonly values: readonly MetricValue[];
  readonly aggregator: 'sum';
}

/** Tenants with labels of their own; all others are counted together. */
const TENANTS_MAX = 10_000;
const OTHER = 'other';
const STATUS_MAX = 599;
const DURATION_BOUNDS_MS = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];
const HOLD_BOUNDS_MS = [10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];

export class Counters {
  readonly #tenants = new Map<string, TenantCounters>();
  readonly #duration = createHistogram(DURATION_BOUNDS_MS);
  readonly #hold = createHistogram(HOLD_BOUNDS_MS);
  /** By status; 0 for what is none. */
  readonly #refused = new Float64Array(STATUS_MAX + 1);
  readonly #timeouts: Record<TimeoutKind, number> = {
    'tls-handshake': 0,
    'request-timeout': 0,
    'client-too-slow': 0,
    'hold-expired': 0,
    'connect-timeout': 0,
    'first-byte-timeout': 0,
    'stream-idle': 0,
    'total-timeout': 0,
  };
  #upstreamConnections = 0;
  #retries = 0;
  #replays = 0;
  #closedWebSockets = 0;
  #endedEventStreams = 0;
  #poisoned = 0;
  readonly #mirrored: Record<MirrorOutcome, number> = { sent: 0, failed: 0, skipped: 0 };
  #refusedHandshakes = 0;

  /** The counters to keep for a tenant; those of `OTHER_TENANTS` where there are too many tenants. */
  tenant(name: string): TenantCounters {
    const known = this.#tenants.get(name);
    if (known !== undefined) return known;
    if (this.#tenants.size >= TENANTS_MAX && name !== OTHER_TENANTS) return this.tenant(OTHER_TENANTS);
    const counters = createTenantCounters(name);
    this.#tenants.set(name, counters);
    return counters;
  }

  exchangeEnded(tenant: TenantCounters, status: number, durationMs: number): void {
    countStatus(tenant, status);
    observe(this.#duration, durationMs);
  }

  held(ms: number): void {
    observe(this.#hold, ms);
  }

  upstreamConnected(): void {
    this.#upstreamConnections += 1;
  }

  /** A request was sent again, after an attempt that failed. */
  retried(): void {
    this.#retries += 1;
  }

  /** A request was taken back from a frozen endpoint, to be sent again. */
  replayed(): void {
    this.#replays += 1;
  }

  /** A freeze ended streams in order. */
  streamsEnded({
    closedWebSockets,
    endedEventStreams,
  }: {
    readonly closedWebSockets: number;
    readonly endedEventStreams: number;
  }): void {
    this.#closedWebSockets += closedWebSockets;
    this.#endedEventStreams += endedEventStreams;
  }

  /** A connection that could have been kept was closed, because what came over it cannot be trusted. */
  upstreamPoisoned(): void {
    this.#poisoned += 1;
  }

  /** A copy of a request was sent, was not taken whole, or was not made. */
  mirrored(outcome: MirrorOutcome): void {
    this.#mirrored[outcome] += 1;
  }

  /** A request was refused for its head. */
  headRefused(status: number): void {
    const index = status > 0 && status <= STATUS_MAX ? status : 0;
    this.#refused[index] = (this.#refused[index] ?? 0) + 1;
  }

  /** A connection was closed because too many were at their TLS handshakes. */
  handshakeRefused(): void {
    this.#refusedHandshakes += 1;
  }

  timedOut(kind: TimeoutKind): void {
    this.#timeouts[kind] += 1;
  }

  /** A connection or a UDP session of a published port began. */
  portUsed(tenant: string, protocol: 'tcp' | 'udp'): void {
    const counters = this.tenant(tenant);
    if (protocol === 'tcp') counters.tcpStreams += 1;
    else counters.udpStreams += 1;
  }

  trafficMoved(deltas: readonly TrafficDelta[]): void {
    for (const delta of deltas) {
      const counters = this.tenant(delta.tenant);
      counters.downstreamInBytes += delta.downstreamInBytes;
      counters.downstreamOutBytes += delta.downstreamOutBytes;
      counters.upstreamInBytes += delta.upstreamInBytes;
      counters.upstreamOutBytes += delta.upstreamOutBytes;
    }
  }

  /** All of it, with what budgets refused (`Budgets.refusals`). */
  asMetricsJson(refusals: Iterable<Refusals>): object[] {
    const tenants = [...this.#tenants.values()];
    return [
      counter(
        'ecluse_requests_total',
        'Exchanges that ended, by tenant and class of the status.',
        tenants.flatMap(requestValues),
      ),
      histogram('ecluse_request_duration_seconds', 'From the request head to the end of the response.', this.#duration),
      histogram('ecluse_hold_seconds', 'How long requests waited for an endpoint that was frozen, asleep or full.', this.#hold),
      counter('ecluse_upstream_connections_total', 'Connections that were made to endpoints.', single(this.#upstreamConnections)),
      counter(
        'ecluse_bytes_total',
        'Bytes of heads and bodies, by tenant, side (downstream, upstream) and direction (in, out).',
        tenants.flatMap(byteValues),
      ),
      counter(
        'ecluse_published_streams_total',
        'Connections and UDP sessions that began at published ports, by tenant and protocol.',
        tenants.flatMap(streamValues),
      ),
      counter(
        'ecluse_mirrored_requests_total',
        'Copies of requests that routes mirror: sent, failed on their way, or skipped because there were too many or no endpoint.',
        MIRROR_OUTCOMES.map((outcome) => ({ value: this.#mirrored[outcome], labels: { outcome } })),
      ),
      counter(
        'ecluse_upstream_retries_total',
        'Requests that were sent again, after an attempt that failed.',
        single(this.#retries),
      ),
      counter(
        'ecluse_replayed_requests_total',
        'Requests that were taken back from an endpoint that was frozen, to be sent again.',
        single(this.#replays),
      ),
      counter('ecluse_ended_streams_total', 'Streams that were ended in order because their endpoint was frozen, by kind.', [
        { value: this.#closedWebSockets, labels: { kind: 'websocket' } },
        { value: this.#endedEventStreams, labels: { kind: 'events' } },
      ]),
      counter(
        'ecluse_upstream_poisoned_total',
        'Connections to endpoints that were closed because what came over them cannot be trusted.',
        single(this.#poisoned),
      ),
      ...this.#refusalsAsJson(refusals),
    ];
  }

  #refusalsAsJson(refusals: Iterable<Refusals>): readonly MetricJson[] {
    const statuses = [...this.#refused].flatMap((value, status) =>
      value === 0 ? [] : [{ value, labels: { status: status === 0 ? OTHER : String(status) } }],
    );
    const budgets = Array.from(refusals, ({ tenant, kind, count }) => ({ value: count, labels: { tenant, kind } }));
    const timeouts = TIMEOUT_KINDS.map((kind) => ({ value: this.#timeouts[kind], labels: { kind } }));
    return [
      counter('ecluse_refused_requests_total', 'Requests that were refused for their heads, by status.', statuses),
      counter(
        'ecluse_refused_handshakes_total',
        'Connections that were closed because too many were at their TLS handshakes.',
        single(this.#refusedHandshakes),
      ),
      counter(
        'ecluse_budget_refusals_total',
        'What was refused because a budget of a tenant was used up, by tenant and kind.',
        budgets,
      ),
      counter('ecluse_timeouts_total', 'What was waited for in vain, by kind.', timeouts),
    ];
  }
}

/** The class of a status, counted. PERF: the usual ones first. */
function countStatus(tenant: TenantCounters, status: number): void {
  if (status >= 200 && status < 300) tenant.c2xx += 1;
  else if (status >= 300 && status < 400) tenant.c3xx += 1;
  else if (status >= 400 && status < 500) tenant.c4xx += 1;
  else if (status >= 500 && status < 600) tenant.c5xx += 1;
  else if (status >= 100 && status < 200) tenant.c1xx += 1;
  else tenant.cOther += 1;
}

function createTenantCounters(tenant: string): TenantCounters {
  return {
    tenant,
    c1xx: 0,
    c2xx: 0,
    c3xx: 0,
    c4xx: 0,
    c5xx: 0,
    cOther: 0,
    downstreamInBytes: 0,
    downstreamOutBytes: 0,
    upstreamInBytes: 0,
    upstreamOutBytes: 0,
    tcpStreams: 0,
    udpStreams: 0,
  };
}

interface DurationHistogram {
  readonly boundsMs: Float64Array;
  /** How many were in each bucket and no lower one; the last is for those above all bounds. */
  readonly counts: Float64Array;
  readonly sumMs: Float64Array;
}

function createHistogram(boundsMs: readonly number[]): DurationHistogram {
  return {
    boundsMs: Float64Array.from(boundsMs),
    counts: new Float64Array(boundsMs.length + 1),
    sumMs: new Float64Array(1),
  };
}

/** PERF: most are in one of the first buckets, so they are tried in turn. */
function observe({ boundsMs, counts, sumMs }: DurationHistogram, ms: number): void {
  // A clock that went astray must not spoil the sum for ever.
  const value = ms > 0 && ms < Infinity ? ms : 0;
  let index = 0;
  while (index < boundsMs.length && value > (boundsMs[index] ?? 0)) index += 1;
  counts[index] = (counts[index] ?? 0) + 1;
  sumMs[0] = (sumMs[0] ?? 0) + value;
}

function counter(name: string, help: string, values: readonly MetricValue[]): MetricJson {
  return { name, help, type: 'counter', values, aggregator: 'sum' };
}

function single(value: number): readonly MetricValue[] {
  return [{ value, labels: {} }];
}

function requestValues({ tenant, c1xx, c2xx, c3xx, c4xx, c5xx, cOther }: TenantCounters): readonly MetricValue[] {
  const classes = Object.entries({ '1xx': c1xx, '2xx': c2xx, '3xx': c3xx, '4xx': c4xx, '5xx': c5xx, [OTHER]: cOther });
  return classes.flatMap(([name, value]) => (value === 0 ? [] : [{ value, labels: { tenant, code_class: name } }]));
}

function byteValues({ tenant, ...bytes }: TenantCounters): readonly MetricValue[] {
  const { downstreamInBytes, downstreamOutBytes, upstreamInBytes, upstreamOutBytes } = bytes;
  if (downstreamInBytes + downstreamOutBytes + upstreamInBytes + upstreamOutBytes === 0) return [];
  return [
    { value: downstreamInBytes, labels: { tenant, side: 'downstream', direction: 'in' } },
    { value: downstreamOutBytes, labels: { tenant, side: 'downstream', direction: 'out' } },
    { value: upstreamInBytes, labels: { tenant, side: 'upstream', direction: 'in' } },
    { value: upstreamOutBytes, labels: { tenant, side: 'upstream', direction: 'out' } },
  ];
}

function streamValues({ tenant, tcpStreams, udpStreams }: TenantCounters): readonly MetricValue[] {
  return Object.entries({ tcp: tcpStreams, udp: udpStreams }).flatMap(([protocol, value]) =>
    value === 0 ? [] : [{ value, labels: { tenant, protocol } }],
  );
}

/** Prometheus' buckets hold all that is below their bounds, in seconds. */
function histogram(name: string, help: string, { boundsMs, counts, sumMs }: DurationHistogram): MetricJson {
  const values: MetricValue[] = [];
  let count = 0;
  for (const [index, inBucket] of counts.entries()) {
    count += inBucket;
    const boundMs = boundsMs[index];
    values.push({ value: count, labels: { le: boundMs === undefined ? '+Inf' : boundMs / 1000 }, metricName: `${name}_bucket` });
  }
  values.push({ value: (sumMs[0] ?? 0) / 1000, labels: {}, metricName: `${name}_sum` });
  values.push({ value: count, labels: {}, metricName: `${name}_count` });
  return { name, help, type: 'histogram', values, aggregator: 'sum' };
}
