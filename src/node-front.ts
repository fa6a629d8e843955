/** What tenants and operators of a node meet, but for the admin API: the Docker endpoint, metrics, the fleet, and tenants. */
import { release } from 'node:os';
import { join } from 'node:path';
import { Gateway } from '#caas/docker-api/gateway.ts';
import type { TenantSockets } from '#caas/docker-api/tenant-socket.ts';
import type { Host } from '#caas/host.ts';
import { systemClock } from '#clock';
import type { Clock } from '#clock';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import type { NodeConfig } from '#config';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { Authority } from '#tls/authority.ts';
import type { NodeParts } from './node-control.ts';
import type { ContainerPlane } from './node-containers.ts';
import { openFleet } from './node-fleet.ts';
import type { NodeAcme } from './node-acme.ts';
import type { Edge } from './node-edge.ts';
import { NodeMetrics } from './node-metrics.ts';
import type { LiveConfig } from './node-reload.ts';
import { Tenants } from './node-tenants.ts';
import { packageVersion } from './version.ts';

const SERVER_CERTIFICATE_DAYS = 90;
/** Twice a day: certificates live for 90 days and are renewed 30 days before their end. */
const RENEWAL_PERIOD_MS = 12 * 3_600_000;

/** What the Docker endpoint shows: a certificate of this node's own CA, for the names that clients reach it by. */
async function dockerCertificate(
  { config }: LiveConfig,
  authority: Authority,
  addresses: readonly string[] = [],
): Promise<{ readonly certPem: string; readonly keyPem: string; readonly caPem: string }> {
  const own = [
    'localhost',
    '127.0.0.1',
    '::1',
    config.domain,
    `docker.${config.domain}`,
    config.listen.docker?.host ?? 'localhost',
    ...addresses,
  ];
  const names = [...new Set(own)].filter((name) => name !== '0.0.0.0' && name !== '::');
  return { ...(await authority.issueServer({ names, days: SERVER_CERTIFICATE_DAYS })), caPem: authority.caPem };
}

async function openDocker(
  live: LiveConfig,
  authority: Authority,
  deps: Omit<Parameters<typeof Gateway.open>[0], 'facts'>,
  runsc: RunscCapabilities,
): Promise<Gateway | undefined> {
  const address = live.config.listen.docker;
  if (address === undefined) return undefined;
  const facts = {
    version: packageVersion(),
    kernel: release(),
    cpus: navigator.hardwareConcurrency,
    runtimeVersion: runsc.version,
  };
  return await Gateway.open({ ...deps, facts }, { ...address, ...(await dockerCertificate(live, authority)) });
}

interface EndpointDeps {
  readonly sql: Sql;
  readonly gateway: Gateway | undefined;
  readonly authority: Authority;
}

/** Opens the Docker endpoint on the addresses of its tenants too, with a new certificate that names them. */
async function followAddresses(live: LiveConfig, { sql, gateway, authority }: EndpointDeps): Promise<void> {
  if (gateway === undefined) return;
  const addresses = (await listTenants(sql)).map((tenant) => tenant.address).filter((address) => address !== '');
  gateway.renew(await dockerCertificate(live, authority, addresses));
  await gateway.listenOn(addresses);
}

/** Connections through sockets that containers have mounted. */
function serveContainers(sockets: TenantSockets, gateway: Gateway | undefined): void {
  sockets.attach((tenant, socket) => {
    if (gateway === undefined) socket.destroy();
    else gateway.accept(tenant, socket);
  });
}

function openTenants(
  live: LiveConfig,
  endpoint: EndpointDeps,
  deps: Omit<ConstructorParameters<typeof Tenants>[0], 'folder' | 'docker' | 'onAddresses'>,
): Tenants {
  return new Tenants({
    ...deps,
    folder: join(live.config.dataDir, 'tenants'),
    docker: live.config.listen.docker,
    onAddresses: async () => {
      await followAddresses(live, endpoint);
    },
  });
}

/** Renews certificates while the node runs: those of routes in their last third, the Docker endpoint's with every round. */
function startRenewal(deps: EndpointDeps & { readonly log: Log; readonly edge: Edge }, live: LiveConfig): AsyncDisposable {
  return startLoop(
    { log: deps.log, clock: systemClock },
    {
      name: 'certificates',
      periodMs: RENEWAL_PERIOD_MS,
      round: async () => {
        await deps.edge.renew();
        await followAddresses(live, deps);
      },
    },
  );
}

export interface FrontDeps extends ContainerPlane {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly edge: Edge;
  readonly pool: WorkerPool;
  /** Undefined: no CA is asked. */
  readonly acme: NodeAcme | undefined;
  readonly authority: Authority;
  readonly runsc: RunscCapabilities;
}

export interface Front extends Pick<NodeParts, 'fleet' | 'metrics' | 'tenants'> {
  readonly gateway: Gateway | undefined;
  readonly onDomain: () => Promise<void>;
}

/** What tenants and operators meet, but for the admin API: it comes last. */
export async function openFront(live: LiveConfig, deps: FrontDeps, stack: AsyncDisposableStack): Promise<Front> {
  const { log, clock, sql, hosts, edge, pool, authority, containers, volumes, events } = deps;
  const gateway = await openDocker(live, authority, deps, deps.runsc);
  if (gateway !== undefined) stack.use(gateway);
  serveContainers(deps.sockets, gateway);
  const endpoint: EndpointDeps = { sql, gateway, authority };
  const onDomain = async (): Promise<void> => {
    await followAddresses(live, endpoint);
  };
  await onDomain();
  stack.use(startRenewal({ ...endpoint, log, edge }, live));
  const metrics = await openMetrics(live.config, {
    log,
    sql,
    pool,
    hosts,
    containers: async () => await containers.list(),
    acme: () => deps.acme?.counts(),
  });
  if (metrics !== undefined) stack.use(metrics);
  const fleet = openFleet({ ...deps, activator: edge, metrics }, live.config.rebalance, stack);
  const tenants = openTenants(live, endpoint, { clock, sql, authority, volumes, hosts, events });
  return { gateway, fleet, metrics, tenants, onDomain };
}

async function openMetrics(config: NodeConfig, deps: Parameters<typeof NodeMetrics.open>[0]): Promise<NodeMetrics | undefined> {
  return config.listen.metrics === undefined ? undefined : await NodeMetrics.open(deps, config.listen.metrics);
}
