/** The edge as the control plane moves it: routes from the store, certificates for their hosts, and the workers that serve them. */
import type { Clock } from '#clock';
import * as z from 'zod';
import { EcluseError, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { publishedOf } from '#caas/ports/port-routes.ts';
import { routesOf } from '#caas/routes.ts';
import type { EdgeChange, EdgeConfig } from '#proxy/protocol.ts';
import { NOTHING_FROZEN } from '#proxy/protocol.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import type { Activator, EndpointUse, FreezeSpan, Frozen, Waker } from '#routing/activator.ts';
import { deltaBetween } from '#routing/delta.ts';
import { mergeRoutes } from '#routing/merge.ts';
import { routeOf, serviceIdOf, serviceOf } from '#routing/operator/compile-settings.ts';
import { routeSchema } from '#routing/operator/schema.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';
import { inverseOf, isEmptyPatch, NO_SETTINGS, settingsWith } from '#routing/operator/settings.ts';
import type { EdgePatch, EdgeSettings } from '#routing/operator/settings.ts';
import { tableWith } from '#routing/compile.ts';
import { normaliseRequestHost } from '#routing/host-name.ts';
import { certificateHostOf } from '#routing/match.ts';
import type { Route, RouteConfig, RouteDelta, RouteTable, Service } from '#routing/route-table.ts';
import { listContainers } from '#state/containers.ts';
import { CONFIG_VERSION_KEY, readEdgeSettings, readOperatorVersion } from '#state/edge-settings.ts';
import type { StoredSettings } from '#state/edge-settings.ts';
import { listAllPorts } from '#state/published-ports.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { HostCertificates } from '#tls/host-certificates.ts';
import { DEFAULT_CERTIFICATE } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import type { IssuedCertificate } from '#tls/issued-certificates.ts';

export interface EdgeDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  /** Of the internal CA. */
  readonly certificates: HostCertificates;
  /** As it is now. */
  readonly domain: () => string;
  /** What people added, as the store has it. */
  readonly added: () => Promise<readonly EdgeCertificate[]>;
  /** Who wakes containers; undefined: nobody does. */
  readonly wake: Waker['wake'] | undefined;
}

/** Where nobody wakes containers, that does not change soon. */
const NO_WAKER_RETRY_MS = 60_000;
/** What containers want of the edge. */
interface FromContainers {
  readonly config: RouteConfig;
  readonly byHost: ReadonlyMap<string, readonly Route[]>;
}

interface Sources {
  readonly containers: FromContainers;
  readonly settings: EdgeSettings;
}

export interface SettingsChanged {
  readonly before: EdgeSettings;
  readonly patch: EdgePatch;
}

/** Which certificate a handshake gets. */
export type CertificateChoice =
  | { readonly kind: 'added'; readonly certificate: EdgeCertificate }
  /** One of the internal CA for this host of a route. */
  | { readonly kind: 'issued'; readonly host: string }
  /** The default, or an alert, as the configuration says. */
  | { readonly kind: 'unknown' };

/** What goes to the workers, before it is a delta: which services and hosts differ from what they have. */
interface Difference {
  readonly services: readonly Service[];
  readonly removedServices: readonly string[];
  readonly hosts: readonly string[];
}

const NOTHING: FromContainers = { config: { version: 0, services: [], routes: [], ports: [] }, byHost: new Map() };

export class Edge implements Activator {
  readonly #deps: EdgeDeps;
  /** Publications and operators' changes, one after the other. */
  readonly #turns = new KeyedLock();
  /** What the workers have. */
  #certificates = CertificateIndex.empty<EdgeCertificate>();
  #version = 0;
  #containers = NOTHING;
  #settings = NO_SETTINGS;
  #pool: WorkerPool | undefined;
  /** In which version operators changed something last; 0: they never did. */
  #settingsVersion = 0;
  /** Whether the next publication looks whether the default certificate is due. */
  #renews = false;
  #changed: () => void = () => undefined;
  #called: (names: readonly string[]) => void = () => undefined;
  #running: Promise<void> | undefined;
  #again: Promise<void> | undefined;
  /** Endpoints whose requests go on with the next publication. */
  readonly #toThaw = new Set<string>();

  constructor(deps: EdgeDeps) {
    this.#deps = deps;
  }

  /** What operators wrote, as the workers have it. */
  get settings(): EdgeSettings {
    return this.#settings;
  }

  get settingsVersion(): number {
    return this.#settingsVersion;
  }

  /** The version that the workers serve. */
  get version(): number {
    return this.#version;
  }

  /** What workers boot with: what the store says now, under the next version number. */
  async initial(): Promise<EdgeConfig> {
    const { sql } = this.#deps;
    this.#settings = settingsOf(await readEdgeSettings(sql));
    this.#settingsVersion = await readOperatorVersion(sql);
    this.#containers = await this.#readContainers();
    this.#version = Number((await readSetting(sql, CONFIG_VERSION_KEY)) ?? '0') + 1;
    const hosts = new Set([...[...this.#settings.hosts.entries()].map(([host]) => host), ...this.#containers.byHost.keys()]);
    this.#certificates = this.#certificates.with([...(await this.#deps.added()), await this.#defaultCertificate()]);
    await writeSetting(sql, CONFIG_VERSION_KEY, String(this.#version));
    const { services, ports } = this.#containers.config;
    const config = {
      version: this.#version,
      services: [...services, ...[...this.#settings.services.entries()].map(([name, service]) => serviceOf(name, service))],
      routes: [...hosts].flatMap((host) => routesOfHost(host, this.#settings, this.#containers)),
      ports,
    };
    return { config, certificates: [...this.#certificates.values()] };
  }

  async #readContainers(): Promise<FromContainers> {
    const { sql, domain } = this.#deps;
    const tenants = new Map((await listTenants(sql)).map((tenant) => [tenant.name, tenant]));
    const containers = (await listContainers(sql)).map((row) => ({ row, spec: parseStoredSpec(row.spec) }));
    const rows = containers.map(({ row }) => row);
    const config = { ...routesOf(containers, tenants, domain(), 0), ports: publishedOf(await listAllPorts(sql), rows, tenants) };
    return { config, byHost: Map.groupBy(config.routes, ({ host }) => host) };
  }

  /** From now on `changed` hears where hosts of routes have changed, or a certificate is gone. */
  follow(changed: () => void): void {
    this.#changed = changed;
  }

  /** From now on `called` hears of names that clients call and no certificate is for. */
  listen(called: (names: readonly string[]) => void): void {
    this.#called = called;
  }

  called(names: readonly string[]): void {
    this.#called(names);
  }

  /** From now on changes go to these workers; undefined: to nobody, because they are being drained. */
  attach(pool: WorkerPool | undefined): void {
    this.#pool = pool;
  }

  /**
   * Brings the workers to what the store says of containers. Calls during a change wait for one further change together: a thousand containers that
   * start at once make two versions, not a thousand.
   */
  async publish(): Promise<void> {
    if (this.#running === undefined) {
      const publishing = this.#turns.run('change', async () => {
        await this.#publishNow();
      });
      this.#running = publishing.finally(() => {
        this.#running = undefined;
      });
      await this.#running;
      return;
    }
    this.#again ??= this.#publishAfter(this.#running);
    await this.#again;
  }

  /** Makes the default certificate anew where it ends soon. Those of hosts are asked for again by the workers. */
  async renew(): Promise<void> {
    this.#renews = true;
    await this.publish();
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
    const renews = this.#renews;
    this.#renews = false;
    try {
      await this.#publishTo(pool, thaw, renews);
    } catch (error) {
      // The next publication is for who asked for this one as well.
      for (const id of thaw) this.#toThaw.add(id);
      this.#renews ||= renews;
      throw error;
    }
  }

  async #publishTo(pool: WorkerPool, thaw: readonly string[], renews: boolean): Promise<void> {
    const before = this.#containers;
    const after = await this.#readContainers();
    const { services, removedServices, hosts } = deltaBetween(before.config, after.config);
    const difference = { services, removedServices, hosts: hosts.map(({ host }) => host) };
    const ports =
      JSON.stringify(before.config.ports) === JSON.stringify(after.config.ports) ? undefined : (after.config.ports ?? []);
    const routes = this.#routesTo(difference, { containers: after, settings: this.#settings });
    const change = { routes, certificates: renews ? await this.#dueCertificates() : [], removedCertificates: [] };
    if (isNothing(change) && ports === undefined) {
      if (thaw.length > 0) await pool.thaw(thaw);
      return;
    }
    const { version } = change.routes;
    await pool.change(
      { ...change, ports },
      {
        thaw,
        persist: async () => {
          // A store that is full keeps no container from its requests; its number is written with the next change.
          await writeSetting(this.#deps.sql, CONFIG_VERSION_KEY, String(version)).catch((error: unknown) => {
            this.#deps.log.error({ version, reason: reasonOf(error) }, 'the number of a config version was not written down');
          });
        },
      },
    );
    this.#containers = after;
    this.#taken(change);
    this.#deps.log.debug({ version, hosts: change.routes.hosts.length }, 'routes published');
  }

  /**
   * Changes what operators wrote, on all workers or on none. `make` sees what is there and says what changes; `persist` makes the version last, when
   * every worker is ready for it; without it nothing is changed, and what is wrong is said all the same. Returns the patch, which is empty where nothing
   * differs. Errors: those of both, ECLUSE_CONFIG_REFUSED, ECLUSE_EDGE_CLOSED.
   */
  async changeSettings(
    make: (settings: EdgeSettings) => Promise<EdgePatch>,
    persist: ((version: number, patch: EdgePatch, inverse: EdgePatch) => Promise<void>) | undefined,
  ): Promise<SettingsChanged> {
    return await this.#turns.run('change', async () => {
      const pool = this.#pool;
      if (pool === undefined) throw edgeClosed();
      const before = this.#settings;
      const patch = await make(before);
      if (isEmptyPatch(patch)) return { before, patch };
      const after = settingsWith(before, patch);
      const difference = differenceOf(patch);
      const next = { containers: this.#containers, settings: after };
      if (persist === undefined) {
        pool.check(this.#routesTo(difference, next));
        return { before, patch };
      }
      const change = { routes: this.#routesTo(difference, next), certificates: [], removedCertificates: [] };
      await pool.change(
        { ...change, ports: undefined },
        {
          persist: async () => {
            await persist(change.routes.version, patch, inverseOf(before, patch));
          },
        },
      );
      this.#settings = after;
      this.#settingsVersion = change.routes.version;
      this.#taken(change);
      return { before, patch };
    });
  }

  /** The routes of containers, by host. */
  get containerRoutes(): ReadonlyMap<string, readonly Route[]> {
    return this.#containers.byHost;
  }

  /** `table` as it would be with a patch of operators' settings. */
  tableAs(table: RouteTable, patch: EdgePatch, version: number): RouteTable {
    const settings = settingsWith(this.#settings, patch);
    const delta = this.#routesTo(differenceOf(patch), { containers: this.#containers, settings });
    const compiled = tableWith(table, { ...delta, base: table.version, version });
    if (compiled.kind === 'rejected') throw new Error(`version ${String(version)} does not hold together: ${compiled.reason}`);
    return compiled.table;
  }

  /**
   * Changes certificates that people added, on all workers or on none. `persist` makes it last under the new version's number, when every worker is ready
   * for it. Errors: those of `persist`, ECLUSE_CONFIG_REFUSED, ECLUSE_EDGE_CLOSED.
   */
  async changeCertificates(
    make: () => Promise<{ readonly certificates: readonly EdgeCertificate[]; readonly removed: readonly string[] }>,
    persist: (version: number) => Promise<void>,
  ): Promise<void> {
    await this.#turns.run('change', async () => {
      const pool = this.#pool;
      if (pool === undefined) throw edgeClosed();
      const { certificates, removed } = await make();
      const sources = { containers: this.#containers, settings: this.#settings };
      const routes = this.#routesTo({ services: [], removedServices: [], hosts: [] }, sources);
      const change = { routes, certificates, removedCertificates: removed };
      await pool.change(
        { ...change, ports: undefined },
        {
          persist: async () => {
            await persist(routes.version);
          },
        },
      );
      this.#taken(change);
    });
  }

  /** What certificates that people added there are, as the workers have them. */
  get certificates(): CertificateIndex<EdgeCertificate> {
    return this.#certificates;
  }

  /** The certificate of the internal CA for the host of a route; undefined: no route has it. Errors: those of `HostCertificates`. */
  async issue(host: string): Promise<IssuedCertificate | undefined> {
    // Workers ask for what they have routes for. One that was taken over by a client asks for anything.
    const isOfRoute =
      host !== DEFAULT_CERTIFICATE && (this.#settings.hosts.get(host) !== undefined || this.#containers.byHost.has(host));
    return isOfRoute ? await this.#deps.certificates.certificateFor(host) : undefined;
  }

  /** What a handshake for `serverName` gets (as `ServerNames` of the workers). */
  certificateFor(serverName: string, table: RouteTable): CertificateChoice {
    const name = normaliseRequestHost(serverName);
    const added = name === undefined ? undefined : this.#certificates.find(name);
    if (added !== undefined) return { kind: 'added', certificate: added };
    const host = name === undefined ? undefined : certificateHostOf(table, name);
    return host === undefined ? { kind: 'unknown' } : { kind: 'issued', host };
  }

  async #defaultCertificate(): Promise<EdgeCertificate> {
    return await this.#deps.certificates.certificateFor(DEFAULT_CERTIFICATE);
  }

  async #dueCertificates(): Promise<readonly EdgeCertificate[]> {
    const certificate = await this.#defaultCertificate();
    return this.#certificates.get(DEFAULT_CERTIFICATE) === certificate ? [] : [certificate];
  }

  #routesTo({ services, removedServices, hosts }: Difference, { settings, containers }: Sources): RouteDelta {
    const lists = hosts.map((host) => ({ host, routes: routesOfHost(host, settings, containers) }));
    return { base: this.#version, version: this.#version + 1, services, removedServices, hosts: lists };
  }

  /** The workers have it. */
  #taken({ routes, certificates, removedCertificates }: Omit<EdgeChange, 'ports'>): void {
    this.#version = routes.version;
    this.#certificates = this.#certificates.with(certificates, removedCertificates);
    if (routes.hosts.length > 0 || removedCertificates.length > 0) this.#changed();
  }

  async freeze(endpointIds: readonly string[], span: FreezeSpan): Promise<Frozen> {
    return this.#pool === undefined ? NOTHING_FROZEN : await this.#pool.freeze(endpointIds, span);
  }

  async thaw(endpointIds: readonly string[]): Promise<void> {
    for (const id of endpointIds) this.#toThaw.add(id);
    try {
      await this.publish();
    } catch (error) {
      // A table that workers refuse holds no request back. Nor may a later publication end a later freeze.
      for (const id of endpointIds) this.#toThaw.delete(id);
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

function differenceOf(patch: EdgePatch): Difference {
  const services = Object.entries(patch.services);
  return {
    services: services.flatMap(([name, service]) => (service === null ? [] : [serviceOf(name, service)])),
    removedServices: services.filter(([, service]) => service === null).map(([name]) => serviceIdOf(name)),
    hosts: Object.keys(patch.hosts),
  };
}

/** Operators come first: where both have the same host and path, the operator's route has it. */
function routesOfHost(host: string, settings: EdgeSettings, containers: FromContainers): readonly Route[] {
  return mergeRoutes((settings.hosts.get(host) ?? []).map(routeOf), containers.byHost.get(host) ?? []);
}

function isNothing({ routes, certificates, removedCertificates }: Omit<EdgeChange, 'ports'>): boolean {
  const parts = [routes.services, routes.removedServices, routes.hosts, certificates, removedCertificates];
  return parts.every((part) => part.length === 0);
}

function settingsOf({ services, hosts }: StoredSettings): EdgeSettings {
  return settingsWith(NO_SETTINGS, {
    services: Object.fromEntries(services.map(([name, body]) => [name, serviceSchema.parse(JSON.parse(body))])),
    hosts: Object.fromEntries(hosts.map(([host, routes]) => [host, z.array(routeSchema).parse(JSON.parse(routes))])),
  });
}

function edgeClosed(): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_EDGE_CLOSED',
    source: 'usage',
    status: 503,
    message: 'the node is starting or stopping, and takes no change of routes',
    mend: 'try again when it is ready',
  });
}
