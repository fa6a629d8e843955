import * as fc from 'fast-check';
import { AggregatorRegistry, Counter, Histogram, Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { Counters, TIMEOUT_KINDS } from '#proxy/counters.ts';
import { aggregateMetrics } from '#proxy/metrics.ts';
import type { TrafficDelta } from '#proxy/protocol.ts';

type Event =
  | { readonly kind: 'ended'; readonly tenant: string; readonly status: number; readonly ms: number }
  | { readonly kind: 'held'; readonly ms: number }
  | { readonly kind: 'connected' | 'retried' | 'poisoned' | 'handshake' }
  | { readonly kind: 'mirrored'; readonly outcome: 'sent' | 'failed' | 'skipped' }
  | { readonly kind: 'refused'; readonly status: number }
  | { readonly kind: 'timeout'; readonly which: (typeof TIMEOUT_KINDS)[number] }
  | { readonly kind: 'used'; readonly tenant: string; readonly protocol: 'tcp' | 'udp' }
  | { readonly kind: 'moved'; readonly delta: TrafficDelta };

const REFUSALS = [
  { tenant: 'acme', kind: 'connections', count: 4 },
  { tenant: '*', kind: 'heldRequests', count: 2 },
] as const;

function count(counters: Counters, event: Event): void {
  switch (event.kind) {
    case 'ended':
      counters.exchangeEnded(counters.tenant(event.tenant), event.status, event.ms);
      break;
    case 'held':
      counters.held(event.ms);
      break;
    case 'connected':
      counters.upstreamConnected();
      break;
    case 'retried':
      counters.retried();
      break;
    case 'poisoned':
      counters.upstreamPoisoned();
      break;
    case 'mirrored':
      counters.mirrored(event.outcome);
      break;
    case 'refused':
      counters.headRefused(event.status);
      break;
    case 'handshake':
      counters.handshakeRefused();
      break;
    case 'timeout':
      counters.timedOut(event.which);
      break;
    case 'used':
      counters.portUsed(event.tenant, event.protocol);
      break;
    case 'moved':
      counters.trafficMoved([event.delta]);
      break;
  }
}

/** The same by prom-client itself. */
async function byPromClient(events: readonly Event[]): Promise<object[]> {
  const registry = new Registry();
  const registers = [registry];
  const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
    new Counter({ name, help, labelNames, registers });
  const histogram = (name: string, help: string, buckets: number[]): Histogram =>
    new Histogram({ name, help, buckets, registers });
  const requests = counter('ecluse_requests_total', 'Exchanges that ended, by tenant and class of the status.', [
    'tenant',
    'code_class',
  ]);
  const duration = histogram(
    'ecluse_request_duration_seconds',
    'From the request head to the end of the response.',
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  );
  const hold = histogram(
    'ecluse_hold_seconds',
    'How long requests waited for an endpoint that was frozen, asleep or full.',
    [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  );
  const connections = counter('ecluse_upstream_connections_total', 'Connections that were made to endpoints.');
  const bytes = counter(
    'ecluse_bytes_total',
    'Bytes of heads and bodies, by tenant, side (downstream, upstream) and direction (in, out).',
    ['tenant', 'side', 'direction'],
  );
  const streams = counter(
    'ecluse_published_streams_total',
    'Connections and UDP sessions that began at published ports, by tenant and protocol.',
    ['tenant', 'protocol'],
  );
  const mirrored = counter(
    'ecluse_mirrored_requests_total',
    'Copies of requests that routes mirror: sent, failed on their way, or skipped because there were too many or no endpoint.',
    ['outcome'],
  );
  for (const outcome of ['sent', 'failed', 'skipped']) mirrored.inc({ outcome }, 0);
  const retries = counter('ecluse_upstream_retries_total', 'Requests that were sent again, after an attempt that failed.');
  counter(
    'ecluse_replayed_requests_total',
    'Requests that were taken back from an endpoint that was frozen, to be sent again.',
  ).inc(0);
  const ended = counter(
    'ecluse_ended_streams_total',
    'Streams that were ended in order because their endpoint was frozen, by kind.',
    ['kind'],
  );
  for (const kind of ['events', 'websocket']) ended.inc({ kind }, 0);
  const poisoned = counter(
    'ecluse_upstream_poisoned_total',
    'Connections to endpoints that were closed because what came over them cannot be trusted.',
  );
  const refused = counter('ecluse_refused_requests_total', 'Requests that were refused for their heads, by status.', ['status']);
  const handshakes = counter(
    'ecluse_refused_handshakes_total',
    'Connections that were closed because too many were at their TLS handshakes.',
  );
  const budgets = counter(
    'ecluse_budget_refusals_total',
    'What was refused because a budget of a tenant was used up, by tenant and kind.',
    ['tenant', 'kind'],
  );
  const timeouts = counter('ecluse_timeouts_total', 'What was waited for in vain, by kind.', ['kind']);
  for (const { tenant, kind, count: refusals } of REFUSALS) budgets.inc({ tenant, kind }, refusals);
  for (const kind of TIMEOUT_KINDS) timeouts.inc({ kind }, 0);
  for (const event of events) {
    switch (event.kind) {
      case 'ended': {
        const first = Math.floor(event.status / 100);
        const codeClass = first >= 1 && first <= 5 ? `${String(first)}xx` : 'other';
        requests.inc({ tenant: event.tenant, code_class: codeClass });
        duration.observe(event.ms / 1000);
        break;
      }
      case 'held':
        hold.observe(event.ms / 1000);
        break;
      case 'connected':
        connections.inc();
        break;
      case 'retried':
        retries.inc();
        break;
      case 'mirrored':
        mirrored.inc({ outcome: event.outcome });
        break;
      case 'poisoned':
        poisoned.inc();
        break;
      case 'refused':
        refused.inc({ status: event.status > 599 ? 'other' : String(event.status) });
        break;
      case 'handshake':
        handshakes.inc();
        break;
      case 'timeout':
        timeouts.inc({ kind: event.which });
        break;
      case 'used':
        streams.inc({ tenant: event.tenant, protocol: event.protocol });
        break;
      case 'moved': {
        const { tenant, ...delta } = event.delta;
        bytes.inc({ tenant, side: 'downstream', direction: 'in' }, delta.downstreamInBytes);
        bytes.inc({ tenant, side: 'downstream', direction: 'out' }, delta.downstreamOutBytes);
        bytes.inc({ tenant, side: 'upstream', direction: 'in' }, delta.upstreamInBytes);
        bytes.inc({ tenant, side: 'upstream', direction: 'out' }, delta.upstreamOutBytes);
        break;
      }
    }
  }
  return await registry.getMetricsAsJSON();
}

/** A text whose values stand in the order of their labels: that is the only one that neither promises. */
function ordered(text: string): readonly string[] {
  return text.split('\n\n').map((metric) => {
    const lines = metric.trimEnd().split('\n');
    return lines[1]?.endsWith(' histogram') === true ? lines.join('\n') : lines.toSorted().join('\n');
  });
}

const tenants = fc.constantFrom('', 'acme', '*', 'a"b\\c\nd', 'other', '__proto__');
/** Their sums are exact in milliseconds and in seconds. */
const eighths = fc.nat({ max: 8 * 120 }).map((eighth) => eighth * 125);
const events: fc.Arbitrary<Event> = fc.oneof(
  fc.record({
    kind: fc.constant('ended' as const),
    tenant: tenants,
    status: fc.constantFrom(0, 101, 199, 200, 299, 304, 404, 499, 500, 599, 600),
    ms: eighths,
  }),
  fc.record({ kind: fc.constant('held' as const), ms: eighths }),
  fc.record({ kind: fc.constantFrom('connected' as const, 'retried' as const, 'poisoned' as const, 'handshake' as const) }),
  fc.record({
    kind: fc.constant('mirrored' as const),
    outcome: fc.constantFrom('sent' as const, 'failed' as const, 'skipped' as const),
  }),
  fc.record({ kind: fc.constant('refused' as const), status: fc.constantFrom(400, 431, 505, 1000) }),
  fc.record({ kind: fc.constant('timeout' as const), which: fc.constantFrom(...TIMEOUT_KINDS) }),
  fc.record({ kind: fc.constant('used' as const), tenant: tenants, protocol: fc.constantFrom('tcp' as const, 'udp' as const) }),
  fc.record({
    kind: fc.constant('moved' as const),
    delta: fc.record({
      tenant: tenants,
      endpointId: fc.constant(undefined),
      requests: fc.constant(1),
      heldMs: fc.constant(0),
      downstreamInBytes: fc.integer({ min: 1, max: 1e12 }),
      downstreamOutBytes: fc.nat(),
      upstreamInBytes: fc.nat(),
      upstreamOutBytes: fc.nat(),
    }),
  }),
);

describe('Counters', () => {
  test('of two workers give the text that prom-client gives', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(events, { maxLength: 40 }), fc.array(events, { maxLength: 40 }), async (one, other) => {
        const workers = [one, other].map((ofWorker) => {
          const counters = new Counters();
          for (const event of ofWorker) count(counters, event);
          return counters.asMetricsJson(REFUSALS);
        });
        const expected = await AggregatorRegistry.aggregate([await byPromClient(one), await byPromClient(other)]).metrics();
        expect(ordered(await aggregateMetrics(workers))).toEqual(ordered(expected));
      }),
      { numRuns: 60 },
    );
  });

  test('puts a duration into the bucket that Prometheus means, at each bound and beside it', () => {
    const bounds = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];
    for (const [index, bound] of bounds.entries()) {
      for (const [ms, bucket] of [
        [bound, index],
        [bound + 0.001, index + 1],
        [bound - 0.001, index],
      ] as const) {
        const counters = new Counters();
        counters.exchangeEnded(counters.tenant('t'), 200, ms);
        const counts = bucketsOf(counters, 'ecluse_request_duration_seconds');
        expect(counts).toEqual(Array.from({ length: bounds.length + 1 }, (_, at) => (at >= bucket ? 1 : 0)));
      }
    }
  });

  test('a time that is none does not spoil the sum', async () => {
    const counters = new Counters();
    for (const ms of [Number.NaN, -5, Infinity, 2_000]) counters.held(ms);
    const text = await aggregateMetrics([counters.asMetricsJson([])]);
    expect(text).toContain('ecluse_hold_seconds_sum 2\n');
    expect(text).toContain('ecluse_hold_seconds_count 4\n');
  });

  test('has a slot for each tenant, and one for all that are too many', async () => {
    const counters = new Counters();
    const slot = counters.tenant('t0');
    expect(counters.tenant('t0')).toBe(slot);
    for (let index = 0; index < 12_000; index += 1) counters.exchangeEnded(counters.tenant(`t${String(index)}`), 200, 1);
    slot.c2xx += 1;
    const lines = (await aggregateMetrics([counters.asMetricsJson([])]))
      .split('\n')
      .filter((line) => line.startsWith('ecluse_requests_total'));
    expect(lines).toHaveLength(10_001);
    expect(lines).toContain('ecluse_requests_total{tenant="t0",code_class="2xx"} 2');
    expect(lines).toContain('ecluse_requests_total{tenant="*",code_class="2xx"} 2000');
    expect(counters.tenant('t11999')).toBe(counters.tenant('*'));
  });
});

function bucketsOf(counters: Counters, name: string): readonly number[] {
  const metric = counters.asMetricsJson([]).find((one) => 'name' in one && one.name === name);
  if (metric === undefined || !('values' in metric) || !Array.isArray(metric.values)) throw new Error(`no ${name}`);
  return metric.values.flatMap((value: { labels: object; value: number }) => ('le' in value.labels ? [value.value] : []));
}
