/** All metrics of the data plane. Labels are bounded: tenants, code classes; never a host or a path. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { TrafficDelta } from './protocol.ts';

export interface MetricsReads {
  readonly heldRequests: () => number;
  readonly downstreamConnections: () => number;
  readonly configVersion: () => number;
  readonly accessLogDropped: () => number;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'tenant' | 'code_class'>;
  readonly #duration: Histogram;
  readonly #hold: Histogram;
  readonly #upstreamConnections: Counter;
  readonly #bytes: Counter<'tenant' | 'side' | 'direction'>;

  constructor(reads: MetricsReads) {
    const registers = [this.#registry];
    this.#requests = new Counter({
      name: 'ecluse_requests_total',
      help: 'Exchanges that ended, by tenant and class of the status.',
      labelNames: ['tenant', 'code_class'],
      registers,
    });
    this.#duration = new Histogram({
      name: 'ecluse_request_duration_seconds',
      help: 'From the request head to the end of the response.',
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    });
    this.#hold = new Histogram({
      name: 'ecluse_hold_seconds',
      help: 'How long requests waited for a frozen endpoint.',
      buckets: [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    });
    this.#upstreamConnections = new Counter({
      name: 'ecluse_upstream_connections_total',
      help: 'Connections that were made to endpoints.',
      registers,
    });
    this.#bytes = new Counter({
      name: 'ecluse_bytes_total',
      help: 'Bytes of heads and bodies, by tenant, side (downstream, upstream) and direction (in, out).',
      labelNames: ['tenant', 'side', 'direction'],
      registers,
    });
    readOnly(this.#registry, reads);
  }

  exchangeEnded(tenant: string, status: number, durationSeconds: number): void {
    this.#requests.inc({ tenant, code_class: `${String(Math.floor(status / 100))}xx` });
    this.#duration.observe(durationSeconds);
  }

  held(seconds: number): void {
    this.#hold.observe(seconds);
  }

  upstreamConnected(): void {
    this.#upstreamConnections.inc();
  }

  trafficMoved(deltas: readonly TrafficDelta[]): void {
    for (const { tenant, ...delta } of deltas) {
      this.#bytes.inc({ tenant, side: 'downstream', direction: 'in' }, delta.downstreamInBytes);
      this.#bytes.inc({ tenant, side: 'downstream', direction: 'out' }, delta.downstreamOutBytes);
      this.#bytes.inc({ tenant, side: 'upstream', direction: 'in' }, delta.upstreamInBytes);
      this.#bytes.inc({ tenant, side: 'upstream', direction: 'out' }, delta.upstreamOutBytes);
    }
  }

  async asJson(): Promise<object[]> {
    return await this.#registry.getMetricsAsJSON();
  }
}

/** The metrics of all workers as one Prometheus text. */
export async function aggregateMetrics(ofWorkers: readonly (readonly object[])[]): Promise<string> {
  return await AggregatorRegistry.aggregate(ofWorkers.map((metrics) => [...metrics])).metrics();
}

function readOnly(registry: Registry, reads: MetricsReads): void {
  const registers = [registry];
  const lag = monitorEventLoopDelay({ resolution: 20 });
  lag.enable();
  const gauges: readonly { name: string; help: string; aggregator: 'sum' | 'max' | 'min'; read: () => number }[] = [
    {
      name: 'ecluse_held_requests',
      help: 'Requests that wait for a frozen endpoint.',
      aggregator: 'sum',
      read: reads.heldRequests,
    },
    {
      name: 'ecluse_downstream_connections',
      help: 'Open connections of clients.',
      aggregator: 'sum',
      read: reads.downstreamConnections,
    },
    {
      name: 'ecluse_config_version',
      help: 'The config version that every worker serves at least.',
      aggregator: 'min',
      read: reads.configVersion,
    },
    {
      name: 'ecluse_access_log_dropped_lines',
      help: 'Access log lines lost to a slow disk.',
      aggregator: 'sum',
      read: reads.accessLogDropped,
    },
    {
      name: 'ecluse_worker_event_loop_lag_seconds',
      help: 'The 99th percentile of the event loop lag since the last scrape, of the worst worker.',
      aggregator: 'max',
      read: () => {
        const seconds = lag.percentile(99) / 1e9;
        lag.reset();
        return seconds;
      },
    },
  ];
  for (const { name, help, aggregator, read } of gauges) {
    const gauge: Gauge = new Gauge({
      name,
      help,
      aggregator,
      registers,
      collect: () => {
        gauge.set(read());
      },
    });
  }
}
