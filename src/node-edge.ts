/** The edge as the control plane moves it: routes from the store, certificates for their hosts, and the workers that serve them. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { publishedOf } from '#caas/ports/port-routes.ts';
import { routesOf } from '#caas/routes.ts';
import type { EdgeConfig } from '#proxy/protocol.ts';
import { NOTHING_FROZEN } from '#proxy/protocol.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import type { Activator, EndpointUse, FreezeSpan, Frozen, Waker } from '#routing/activator.ts';
import { listContainers } from '#state/containers.ts';
import { listAllPorts } from '#state/published-ports.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { HostCertificates } from '#tls/host-certificates.ts';
import type { HostCertificate } from '#tls/certificate.ts';

export interface EdgeDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly certificates: HostCertificates;
  readonly domain: string;
  /** Who wakes containers; undefined: nobody does. */
  readonly wake: Waker['wake'] | undefined;
}

const VERSION_KEY = 'config_version';
/** Where nobody wakes containers, that does not change soon. */
const NO_WAKER_RETRY_MS = 60_000;

export class Edge implements Activator {
  readonly #deps: EdgeDeps;
  #pool: WorkerPool | undefined;
  #published = '';
  #running: Promise<void> | undefined;
  #again: Promise<void> | undefined;
  /** Endpoints whose requests go on with the next publication. */
  readonly #toThaw = new Set<string>();

  constructor(deps: EdgeDeps) {
    this.#deps = deps;
  }

  /** The configuration of this moment, under the next version number. */
  async compose(): Promise<EdgeConfig> {
    const { sql, certificates, domain } = this.#deps;
    const tenants = new Map((await listTenants(sql)).map((tenant) => [tenant.name, tenant]));
    const containers = (await listContainers(sql)).map((row) => ({ row, spec: parseStoredSpec(row.spec) }));
    const version = Number((await readSetting(sql, VERSION_KEY)) ?? '0') + 1;
    const ports = publishedOf(
      await listAllPorts(sql),
      containers.map(({ row }) => row),
      tenants,
    );
    const config = { ...routesOf(containers, tenants, domain, version), ports };
    const served: HostCertificate[] = [];
    // `*` is what clients get that name no host we know: they see a certificate of the internal CA and a 404.
    for (const host of new Set(['*', ...config.routes.map((route) => route.host)]))
      served.push(await certificates.certificateFor(host));
    return { config, certificates: served };
  }

  /** What workers boot with. */
  async initial(): Promise<EdgeConfig> {
    const edge = await this.compose();
    this.#published = contentOf(edge);
    await writeSetting(this.#deps.sql, VERSION_KEY, String(edge.config.version));
    return edge;
  }

  /** From now on changes go to these workers; undefined: to nobody, because they are being drained. */
  attach(pool: WorkerPool | undefined): void {
    this.#pool = pool;
  }

  /**
   * Brings the workers to what the store says. Calls during a change wait for one further change together: a thousand containers that start at
   * once make two versions, not a thousand.
   */
  async publish(): Promise<void> {
    if (this.#running === undefined) {
      this.#running = this.#publishNow().finally(() => {
        this.#running = undefined;
      });
      await this.#running;
      return;
    }
    this.#again ??= this.#publishAfter(this.#running);
    await this.#again;
  }

  async #publishAfter(running: Promise<void>): Promise<void> {
    await running.catch(() => undefined); // Its own caller hears of it.
    this.#again = undefined;
    await this.publish();
  }

  async #publishNow(): Promise<void> {
    const pool = this.#pool;
    if (pool === undefined) return; // Before the workers exist there is nobody to tell; they boot with what is true then.
    // Before the store is read: who comes later means what the store says later.
    const thaw = [...this.#toThaw];
    this.#toThaw.clear();
    const edge = await this.compose();
    const content = contentOf(edge);
    if (content === this.#published) {
      if (thaw.length > 0) await pool.thaw(thaw);
      return;
    }
    await pool.apply(edge.config, edge.certificates, thaw);
    this.#published = content;
    await writeSetting(this.#deps.sql, VERSION_KEY, String(edge.config.version));
    this.#deps.log.debug({ version: edge.config.version, routes: edge.config.routes.length }, 'routes published');
  }

  async freeze(endpointIds: readonly string[], span: FreezeSpan): Promise<Frozen> {
    return this.#pool === undefined ? NOTHING_FROZEN : await this.#pool.freeze(endpointIds, span);
  }

  async thaw(endpointIds: readonly string[]): Promise<void> {
    for (const id of endpointIds) this.#toThaw.add(id);
    try {
      await this.publish();
    } catch (error) {
      // A table that workers refuse holds no request back.
      await this.#pool?.thaw(endpointIds);
      throw error;
    }
  }

  useOf(endpointId: string): EndpointUse {
    return this.#pool === undefined ? { inFlight: 0, held: 0, quietMs: undefined } : this.#pool.useOf(endpointId);
  }

  async wakeFailed(endpointIds: readonly string[], retryAfterMs: number): Promise<void> {
    await this.#pool?.wakeFailed(endpointIds, retryAfterMs);
  }

  /** The workers have requests for sleeping endpoints. */
  wanted(endpointIds: readonly string[]): void {
    const { wake, log } = this.#deps;
    if (wake !== undefined) {
      wake(endpointIds);
      return;
    }
    log.warn({ containers: endpointIds }, 'requests wait for containers that sleep, and nobody wakes them');
    this.wakeFailed(endpointIds, NO_WAKER_RETRY_MS).catch((error: unknown) => {
      log.warn({ reason: reasonOf(error) }, 'workers did not hear that nobody wakes containers');
    });
  }
}

/** What a configuration says, apart from its number. */
function contentOf(edge: EdgeConfig): string {
  return JSON.stringify([
    edge.config.services,
    edge.config.routes,
    edge.config.ports,
    edge.certificates.map((certificate) => certificate.certPem),
  ]);
}
