/** Containers' labels become routes and endpoints. Pure. */
import type { Endpoint, Route, RouteConfig, Service } from '#routing/route-table.ts';
import { parseRouteHost } from '#routing/host-name.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Tenant } from '#state/tenants.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';

export interface RoutedContainer {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
}

export interface WantedRoute {
  readonly host: string;
  readonly path: string;
  readonly port: number;
}

export type WantedRoutes =
  | { readonly kind: 'routes'; readonly routes: readonly WantedRoute[] }
  | { readonly kind: 'refused'; readonly reason: string };

/** Hosts a container may name at most: each costs a certificate. */
const HOSTS_MAX = 10;
const PATH_CHARS_MAX = 1024;

/** The host that a container gets without a label. Names may hold what a DNS label may not. */
export function defaultHost(name: string, tenant: string, domain: string): string {
  const label = `${name}-${tenant}`
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 63)
    .replaceAll(/-+$/g, '');
  return `${label}.${domain}`;
}

function portOf(spec: ContainerSpec): number | undefined | 'invalid' {
  const label = spec.config.Labels?.['ecluse.http.port'];
  if (label === undefined) return spec.tcpPorts.length === 1 ? spec.tcpPorts[0] : undefined;
  const port = Number(label);
  return /^\d{1,5}$/.test(label) && port >= 1 && port <= 65_535 ? port : 'invalid';
}

function isAllowed(host: string, tenant: Tenant, domain: string): boolean {
  const own = host.endsWith(`-${tenant.name}.${domain}`);
  return own || tenant.domains.some((allowed) => host === allowed || host.endsWith(`.${allowed}`));
}

/** Why a host may not be used, or undefined. */
function hostRefusal(host: string, tenant: Tenant, domain: string): string | undefined {
  if (parseRouteHost(host).kind !== 'exact') return `"${host.slice(0, 80)}" is no host name`;
  if (isAllowed(host, tenant, domain)) return undefined;
  const own = `NAME-${tenant.name}.${domain}`;
  return `${host} is outside of the domains of tenant ${tenant.name} (${[own, ...tenant.domains].join(', ')})`;
}

function refused(label: string, why: string): WantedRoutes {
  return { kind: 'refused', reason: `label ecluse.http.${label}: ${why}` };
}

function isPathPrefix(path: string): boolean {
  return path.startsWith('/') && path.length <= PATH_CHARS_MAX && !/[\s?#]/.test(path);
}

/** The routes that a container's labels ask for, checked against what its tenant may use. */
export function wantedRoutes(name: string, spec: ContainerSpec, tenant: Tenant, domain: string): WantedRoutes {
  const labels = spec.config.Labels ?? {};
  const hostLabel = labels['ecluse.http.host'];
  const port = portOf(spec);
  if (port === 'invalid') return refused('port', `"${labels['ecluse.http.port'] ?? ''}" is no port`);
  if (port === undefined) {
    if (hostLabel === undefined) return { kind: 'routes', routes: [] };
    const exposed = spec.tcpPorts.length === 0 ? 'exposes no port' : `exposes the ports ${spec.tcpPorts.join(', ')}`;
    return refused('host', `it needs ecluse.http.port beside it: the container ${exposed}`);
  }
  const wanted = labels['ecluse.http.path'] ?? '/';
  if (!isPathPrefix(wanted)) return refused('path', `"${wanted.slice(0, 60)}" is no path prefix`);
  const hosts = hostLabel?.split(',').map((host) => host.trim().toLowerCase()) ?? [defaultHost(name, tenant.name, domain)];
  if (hosts.length > HOSTS_MAX) return refused('host', `more than ${String(HOSTS_MAX)} hosts`);
  const refusal = hosts.map((host) => hostRefusal(host, tenant, domain)).find((reason) => reason !== undefined);
  if (refusal !== undefined) return refused('host', refusal);
  const path = wanted === '/' ? wanted : wanted.replace(/\/+$/, '');
  return { kind: 'routes', routes: hosts.map((host) => ({ host, path, port })) };
}

/** A host among `wanted` that a container of another tenant has already, by label or by default; undefined: none. */
export function clashingHost(
  wanted: readonly WantedRoute[],
  others: readonly RoutedContainer[],
  tenants: ReadonlyMap<string, Tenant>,
  domain: string,
): string | undefined {
  const hosts = new Set(wanted.map((route) => route.host));
  for (const { row, spec } of others) {
    const tenant = tenants.get(row.tenant);
    const theirs = tenant === undefined ? undefined : wantedRoutes(row.name, spec, tenant, domain);
    const clash = theirs?.kind === 'routes' ? theirs.routes.find((route) => hosts.has(route.host)) : undefined;
    if (clash !== undefined) return clash.host;
  }
  return undefined;
}

/** States in which a container keeps its place in the table; without a running one its routes answer 503, not 404. */
function endpointOf({ row }: RoutedContainer, port: number): Endpoint | undefined {
  const at = { id: row.id, address: row.address, port, hostName: row.host, generation: row.incarnation };
  if (row.snapshot !== '') return { ...at, state: 'asleep' };
  if (row.state !== 'running' || row.address === '') return undefined;
  return row.startedMs === undefined ? at : { ...at, startedMs: row.startedMs };
}

/**
 * The table of all containers. Containers of one tenant with the same host and path are endpoints of one service; where two tenants want the
 * same, the older container has it (creation refuses the second one, this is only the second line of defence).
 */
export function routesOf(
  containers: readonly RoutedContainer[],
  tenants: ReadonlyMap<string, Tenant>,
  domain: string,
  version: number,
): RouteConfig {
  const services = new Map<string, { tenant: string; endpoints: Endpoint[] }>();
  const routes = new Map<string, Route & { readonly tenant: string }>();
  const oldestFirst = [...containers].toSorted((one, other) => one.row.createdMs - other.row.createdMs);
  for (const container of oldestFirst) {
    const tenant = tenants.get(container.row.tenant);
    if (tenant === undefined || tenant.state !== 'active' || container.row.state === 'creating' || container.row.state === 'lost')
      continue;
    const wanted = wantedRoutes(container.row.name, container.spec, tenant, domain);
    if (wanted.kind === 'refused') continue;
    for (const { host, path, port } of wanted.routes) {
      const key = `${host} ${path}`;
      const known = routes.get(key);
      if (known !== undefined && known.tenant !== tenant.name) continue;
      const serviceId = `${tenant.name}/${host}${path}`;
      if (known === undefined) routes.set(key, { host, path, serviceId, tenant: tenant.name });
      const service = services.get(serviceId) ?? { tenant: tenant.name, endpoints: [] };
      const endpoint = endpointOf(container, port);
      if (endpoint !== undefined) service.endpoints.push(endpoint);
      services.set(serviceId, service);
    }
  }
  const serviceList: Service[] = [...services].map(([id, service]) => ({ id, ...service }));
  return {
    version,
    services: serviceList,
    routes: [...routes.values()].map(({ host, path, serviceId }) => ({ host, path, serviceId })),
  };
}
