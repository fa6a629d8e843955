/** The node's metrics page: what the workers count, and what the control plane knows. */
import { createServer } from 'node:http';
import type { Server, ServerResponse } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import type { Host } from '#caas/host.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import { writtenOf } from '#routing/operator/compile-settings.ts';
import type { AcmeCounts } from '#tls/acme/engine.ts';
import { totalCertificates } from '#state/certificates.ts';
import type { CertificateTotal } from '#state/certificates.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';

export interface NodeMetricsDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly pool: WorkerPool;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: () => Promise<readonly ContainerRow[]>;
  /** Undefined: no CA is asked. */
  readonly acme?: () => AcmeCounts | undefined;
}

const SCRAPES_MAX = 64;
/** Services with labels of their own; all others are counted together. */
const SERVICES_MAX = 1000;
/** No name of a service is this one. */
const OTHER_SERVICES = '*';

export class NodeMetrics implements AsyncDisposable {
  readonly #server: Server;
  readonly #registry = new Registry();
  readonly #migrations: Counter<'outcome'>;

  private constructor(deps: NodeMetricsDeps) {
    const registers = [this.#registry];
    this.#migrations = new Counter({
      name: 'ecluse_migrations_total',
      help: 'Migrations by outcome.',
      labelNames: ['outcome'],
      registers,
    });
    const containers = new Gauge({
      name: 'ecluse_containers',
      help: 'Containers by tenant, host and state.',
      labelNames: ['tenant', 'host', 'state'],
      registers,
      async collect() {
        containers.reset();
        for (const row of await deps.containers()) containers.inc({ tenant: row.tenant, host: row.host, state: row.state });
      },
    });
    const up = new Gauge({
      name: 'ecluse_host_up',
      help: '1 while the engine of a host answers.',
      labelNames: ['host'],
      registers,
      async collect() {
        for (const host of deps.hosts.values()) up.set({ host: host.name }, (await host.client.isAlive()) ? 1 : 0);
      },
    });
    gaugeHealth(deps.pool, registers);
    countCertificates(registers, deps.sql);
    countAcme(registers, () => deps.acme?.());
    this.#server = createServer((request, response) => {
      if (request.method !== 'GET' || (request.url ?? '').split('?')[0] !== '/metrics') {
        response.writeHead(404, { 'content-type': 'text/plain' }).end('the metrics are at /metrics\n');
        return;
      }
      void this.#answer(deps, response);
    });
    this.#server.maxConnections = SCRAPES_MAX;
  }

  static async open(deps: NodeMetricsDeps, address: { readonly host: string; readonly port: number }): Promise<NodeMetrics> {
    const metrics = new NodeMetrics(deps);
    await new Promise<void>((resolve, reject) => {
      metrics.#server.once('error', (error) => {
        reject(
          new EcluseError({
            code: 'ECLUSE_LISTEN_FAILED',
            source: 'config',
            message: `the metrics page cannot listen on ${address.host}:${String(address.port)}: ${reasonOf(error)}`,
            mend: 'choose another address with --metrics ADDRESS:PORT or listen.metrics',
            cause: error,
          }),
        );
      });
      metrics.#server.listen(address.port, address.host, resolve);
    });
    return metrics;
  }

  countMigration(outcome: 'done' | 'failed' | 'refused'): void {
    this.#migrations.inc({ outcome });
  }

  async #answer(deps: NodeMetricsDeps, response: ServerResponse): Promise<void> {
    try {
      const page = await this.#page(deps);
      response.writeHead(200, { 'content-type': this.#registry.contentType }).end(page);
    } catch (error) {
      deps.log.warn({ reason: reasonOf(error) }, 'metrics could not be collected');
      response.writeHead(503, { 'content-type': 'text/plain' }).end(`${reasonOf(error)}\n`);
    }
  }

  async #page(deps: NodeMetricsDeps): Promise<string> {
    return `${(await deps.pool.metrics()).trimEnd()}\n${await this.#registry.metrics()}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
      this.#server.closeAllConnections();
    });
  }
}

function gaugeHealth(pool: WorkerPool, registers: Registry[]): void {
  const gauge = new Gauge({
    name: 'ecluse_checked_endpoints',
    help: 'Endpoints with health checks by service, and whether they are healthy.',
    labelNames: ['service', 'healthy'],
    registers,
    collect() {
      gauge.reset();
      const services = new Set<string>();
      for (const { serviceId, endpointId, isHealthy } of pool.health()) {
        const { service } = writtenOf(serviceId, endpointId);
        const label = services.has(service) || services.size < SERVICES_MAX ? service : OTHER_SERVICES;
        services.add(label);
        gauge.inc({ service: label, healthy: isHealthy ? '1' : '0' });
        gauge.inc({ service: label, healthy: isHealthy ? '0' : '1' }, 0); // An alert asks for a series that is there.
      }
    },
  });
}

/** Of certificates that people added. By source: a label for each name would be a hundred thousand series. */
function countCertificates(registers: Registry[], sql: Sql): void {
  const gaugeOf = (name: string, help: string, valueOf: (total: CertificateTotal) => number): void => {
    const gauge = new Gauge({
      name,
      help,
      labelNames: ['source'],
      registers,
      async collect() {
        gauge.reset();
        for (const total of await totalCertificates(sql)) gauge.set({ source: total.source }, valueOf(total));
      },
    });
  };
  gaugeOf('ecluse_certificates', 'Certificates that were added, by source.', ({ count }) => count);
  gaugeOf(
    'ecluse_certificate_expires_timestamp_seconds',
    'When the first certificate that was added ends, by source (Unix time).',
    ({ notAfterMs }) => notAfterMs / 1000,
  );
}

/** What CAs were asked for. By CA, and never by host. */
function countAcme(registers: Registry[], counts: () => AcmeCounts | undefined): void {
  const issued = new Counter({
    name: 'ecluse_acme_certificates_total',
    help: 'Certificates that came from a CA.',
    labelNames: ['ca'],
    registers,
    collect: () => {
      issued.reset();
      for (const [ca, count] of counts()?.issued ?? []) issued.inc({ ca }, count);
    },
  });
  const failed = new Counter({
    name: 'ecluse_acme_failures_total',
    help: 'Orders that came to nothing, by CA and kind: ca, rate-limit, validation, refused, internal.',
    labelNames: ['ca', 'kind'],
    registers,
    collect: () => {
      failed.reset();
      for (const { ca, kind, count } of counts()?.failed ?? []) failed.inc({ ca, kind }, count);
    },
  });
  const waiting = new Gauge({
    name: 'ecluse_acme_waiting',
    help: 'Hosts whose order is due and waits for a rate limit of a CA, by limit.',
    labelNames: ['limit'],
    registers,
    collect: () => {
      waiting.reset();
      for (const [limit, count] of counts()?.waiting ?? []) waiting.set({ limit }, count);
    },
  });
}
