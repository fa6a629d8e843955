/** All metrics of the data plane: what a worker counted, and what is read when it is asked. Labels are bounded, never a host or a path. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { AggregatorRegistry, Gauge, Registry } from 'prom-client';
import type { Refusals } from './budget.ts';
import type { Counters } from './counters.ts';

export interface MetricsReads {
  readonly counters: Counters;
  readonly refusals: () => Iterable<Refusals>;
  readonly heldRequests: () => number;
  readonly downstreamConnections: () => number;
  readonly idleUpstreamConnections: () => number;
  readonly configVersion: () => number;
  readonly accessLogDropped: () => number;
  readonly publishedStreams: () => number;
  readonly publishedPorts: () => number;
  readonly unboundPorts: () => number;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #reads: MetricsReads;

  constructor(reads: MetricsReads) {
    this.#reads = reads;
    readOnly(this.#registry, reads);
  }

  async asJson(): Promise<object[]> {
    const { counters, refusals } = this.#reads;
    const read: object[] = await this.#registry.getMetricsAsJSON();
    return [...counters.asMetricsJson(refusals()), ...read];
  }
}

/** The metrics of all workers as one Prometheus text. */
export async function aggregateMetrics(ofWorkers: readonly (readonly object[])[]): Promise<string> {
  return await AggregatorRegistry.aggregate(ofWorkers.map((metrics) => [...metrics])).metrics();
}

interface GaugeSpec {
  readonly name: string;
  readonly help: string;
  readonly aggregator: 'sum' | 'max' | 'min';
  readonly read: () => number;
}

function readOnly(registry: Registry, reads: MetricsReads): void {
  const registers = [registry];
  const lag = monitorEventLoopDelay({ resolution: 20 });
  lag.enable();
  const gauges: readonly GaugeSpec[] = [
    {
      name: 'ecluse_held_requests',
      help: 'Requests that wait for an endpoint that is frozen, asleep or full.',
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
      name: 'ecluse_upstream_idle_connections',
      help: 'Connections to endpoints that wait for their next request.',
      aggregator: 'sum',
      read: reads.idleUpstreamConnections,
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
    ...portGauges(reads),
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

function portGauges(reads: MetricsReads): readonly GaugeSpec[] {
  return [
    {
      name: 'ecluse_published_streams',
      help: 'Open connections and UDP sessions at published ports.',
      aggregator: 'sum',
      read: reads.publishedStreams,
    },
    {
      name: 'ecluse_published_ports',
      help: 'Published ports that every worker listens on at least.',
      aggregator: 'min',
      read: reads.publishedPorts,
    },
    {
      name: 'ecluse_published_ports_unbound',
      help: 'Published ports that a worker could not listen on, of the worst worker.',
      aggregator: 'max',
      read: reads.unboundPorts,
    },
  ];
}
