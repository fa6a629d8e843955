/**
 * Turns a config of routes into the table that requests are matched against, and a change of it into the next table. All or nothing: a table is never
 * half right. The work of a change is that of the hosts and services that it names, not of the table.
 */
import { answersItself, helpersOf } from './actions.ts';
import { parseRouteHost } from './host-name.ts';
import { parsePathPattern } from './path-pattern.ts';
import type { PathPattern } from './path-pattern.ts';
import { compareConditions, conditionsKey, parseConditions } from './route-conditions.ts';
import { wishesHandshake } from './route-tls.ts';
import type { CaBundle } from './route-tls.ts';
import type { CompiledRoute, Endpoint, Route, RouteConfig, RouteDelta, RouteTable, Service, SplitShare } from './route-table.ts';
import { ShardedMap } from '#sharded-map';

export type CompileResult =
  | { readonly kind: 'compiled'; readonly table: RouteTable }
  | { readonly kind: 'rejected'; readonly reason: string };

export const EMPTY_TABLE: RouteTable = {
  version: 0,
  services: ShardedMap.empty(),
  hosts: ShardedMap.empty(),
  uses: ShardedMap.empty(),
  endpoints: ShardedMap.empty(),
  caBundles: new Map(),
  handshakeRoutes: 0,
};

const PORT_MAX = 65_535;

function rejected(reason: string): CompileResult {
  return { kind: 'rejected', reason };
}

/** Compiles `config`; the first fault rejects all of it. */
export function compileRoutes({ version, services, routes, caBundles }: RouteConfig): CompileResult {
  const hosts = [...Map.groupBy(routes, ({ host }) => host)].map(([host, ofHost]) => ({ host, routes: ofHost }));
  return tableWith(EMPTY_TABLE, { base: 0, version, services, removedServices: [], hosts, caBundles });
}

/** What a table was compiled from. Expressions of a host are in the order in which they were written, all else in that of the table. */
export function configOf({ version, services, hosts, caBundles }: RouteTable): RouteConfig {
  return {
    version,
    caBundles: [...caBundles.values()],
    services: [...services.values()],
    routes: [...hosts.values()].flatMap((compiled) => compiled.map(({ route }) => route)),
  };
}

/** The table after a change; the first fault rejects all of it. `table` stays as it is. */
export function tableWith(table: RouteTable, delta: RouteDelta): CompileResult {
  if (delta.base !== table.version)
    return rejected(`the change is to version ${String(delta.base)}, and this is version ${String(table.version)}`);
  const caBundles = caBundlesWith(table, delta);
  const services = servicesWith(table, delta, caBundles);
  if (typeof services === 'string') return rejected(services);
  let { handshakeRoutes } = table;
  const hosts = new Map<string, readonly CompiledRoute[] | undefined>();
  const used = new Map<string, number>();
  for (const { host, routes } of delta.hosts) {
    if (hosts.has(host)) return rejected(`host ${host} is in the change twice`);
    const compiled = compileHost(host, routes, { services, caBundles });
    if (typeof compiled === 'string') return rejected(compiled);
    handshakeRoutes += wishesIn(compiled) - wishesIn(table.hosts.get(host) ?? []);
    countServices(used, table.hosts.get(host) ?? [], -1);
    countServices(used, compiled, 1);
    hosts.set(host, compiled.length === 0 ? undefined : compiled);
  }
  const uses = new Map<string, number | undefined>();
  for (const [id, difference] of used) {
    const now = (table.uses.get(id) ?? 0) + difference;
    uses.set(id, now === 0 ? undefined : now);
  }
  const next = {
    version: delta.version,
    services,
    hosts: table.hosts.with(hosts),
    uses: table.uses.with(uses),
    endpoints: endpointsWith(table, delta),
    caBundles,
    handshakeRoutes,
  };
  const missing = delta.removedServices.find((id) => (next.uses.get(id) ?? 0) > 0);
  if (missing !== undefined) return rejected(`service "${missing}" is removed, and routes lead to it`);
  const unknown = removedCaBundleOf(table, next);
  if (unknown !== undefined) return rejected(unknown);
  return { kind: 'compiled', table: next };
}

/** What is left named of CA bundles that are gone. The work is that of the table, and seldom: people remove one once in years. */
function removedCaBundleOf(before: RouteTable, { caBundles, hosts, services }: RouteTable): string | undefined {
  const gone = new Set([...before.caBundles.keys()].filter((name) => !caBundles.has(name)));
  if (gone.size === 0) return undefined;
  for (const routes of hosts.values())
    for (const { route } of routes) {
      const name = route.tls?.clientCertificate?.caBundle;
      if (name !== undefined && gone.has(name)) return `CA bundle "${name}" is removed, and route ${nameOf(route)} names it`;
    }
  for (const service of services.values()) {
    const name = caBundlesNamedBy(service).find((one) => gone.has(one));
    if (name !== undefined) return `CA bundle "${name}" is removed, and service "${service.id}" names it`;
  }
  return undefined;
}

function caBundlesNamedBy({ endpoints }: Service): readonly string[] {
  return endpoints.flatMap(({ tls }) => tls?.caBundle ?? []);
}

function caBundlesWith(table: RouteTable, { caBundles }: RouteDelta): ReadonlyMap<string, CaBundle> {
  if (caBundles === undefined) return table.caBundles;
  // What did not change stays the same object: connections that were judged by it go on.
  const same = (one: CaBundle): CaBundle => {
    const before = table.caBundles.get(one.name);
    return before?.pem === one.pem ? before : one;
  };
  return new Map(caBundles.map((one) => [one.name, same(one)]));
}

function wishesIn(routes: readonly CompiledRoute[]): number {
  return routes.reduce((sum, { route }) => sum + (wishesHandshake(route) ? 1 : 0), 0);
}

function countServices(sums: Map<string, number>, routes: readonly CompiledRoute[], difference: number): void {
  for (const { route } of routes) for (const id of servicesNeededBy(route)) sums.set(id, (sums.get(id) ?? 0) + difference);
}

function servicesWith(
  table: RouteTable,
  { services, removedServices }: RouteDelta,
  caBundles: ReadonlyMap<string, CaBundle>,
): ShardedMap<Service> | string {
  const changes = new Map<string, Service | undefined>();
  for (const service of services) {
    if (changes.has(service.id)) return `service "${service.id}" is defined twice`;
    const fault = endpointFault(service);
    if (fault !== undefined) return fault;
    const caBundle = caBundlesNamedBy(service).find((name) => !caBundles.has(name));
    if (caBundle !== undefined) return `service "${service.id}" names unknown CA bundle "${caBundle}"`;
    // Routes say whose their service is, so that it is known where the service has gone.
    const before = table.services.get(service.id);
    if (before !== undefined && before.tenant !== service.tenant) return `service "${service.id}" cannot change its tenant`;
    changes.set(service.id, service);
  }
  for (const id of removedServices) {
    if (changes.has(id)) return `service "${id}" is both defined and removed`;
    if (table.services.get(id) === undefined) return `service "${id}" is removed, and is not there`;
    changes.set(id, undefined);
  }
  return table.services.with(changes);
}

function endpointsWith(table: RouteTable, { services, removedServices }: RouteDelta): ShardedMap<readonly Endpoint[]> {
  const changes = new Map<string, readonly Endpoint[] | undefined>();
  const change = (id: string, next: (list: readonly Endpoint[]) => readonly Endpoint[]): void => {
    const list = next((changes.has(id) ? changes.get(id) : table.endpoints.get(id)) ?? []);
    changes.set(id, list.length === 0 ? undefined : list);
  };
  for (const id of [...services.map((service) => service.id), ...removedServices])
    for (const endpoint of table.services.get(id)?.endpoints ?? [])
      change(endpoint.id, (list) => list.toSpliced(list.indexOf(endpoint), 1)); // Once for each service.
  for (const service of services) for (const endpoint of service.endpoints) change(endpoint.id, (list) => [...list, endpoint]);
  return table.endpoints.with(changes);
}

function endpointFault(service: Service): string | undefined {
  const ids = new Set<string>();
  for (const endpoint of service.endpoints) {
    if (ids.has(endpoint.id)) return `service "${service.id}" has endpoint "${endpoint.id}" twice`;
    if (!Number.isInteger(endpoint.port) || endpoint.port < 1 || endpoint.port > PORT_MAX) {
      return `endpoint "${endpoint.id}" of service "${service.id}" has port ${String(endpoint.port)}`;
    }
    const { weight = 1 } = endpoint;
    if (!Number.isInteger(weight) || weight < 0)
      return `endpoint "${endpoint.id}" of service "${service.id}" has weight ${String(weight)}`;
    ids.add(endpoint.id);
  }
  return undefined;
}

/** All routes of a host, those first that are asked first. A text says what is wrong. */
function compileHost(
  host: string,
  routes: readonly Route[],
  { services, caBundles }: Pick<RouteTable, 'services' | 'caBundles'>,
): readonly CompiledRoute[] | string {
  const read = parseRouteHost(host);
  if (read.kind === 'invalid') return read.reason;
  const list: CompiledRoute[] = [];
  for (const route of routes) {
    if (route.host !== host) return `route ${nameOf(route)} is listed under host ${host}`;
    const tenant = tenantOf(route, services);
    if (tenant === undefined) return `route ${nameOf(route)} leads to unknown service "${route.serviceId}"`;
    const helper = helpersOf(route.actions).find((id) => services.get(id) === undefined);
    if (helper !== undefined) return `route ${nameOf(route)} asks or copies to unknown service "${helper}"`;
    const caBundle = route.tls?.clientCertificate?.caBundle;
    if (caBundle !== undefined && !caBundles.has(caBundle)) return `route ${nameOf(route)} names unknown CA bundle "${caBundle}"`;
    const pattern = parsePathPattern(route.path);
    if (pattern.kind === 'invalid') return pattern.reason;
    const reading = parseConditions(route.methods, route.headers);
    if (reading.kind === 'invalid') return `route ${nameOf(route)}: ${reading.reason}`;
    const compiled = {
      pattern,
      conditions: reading.conditions,
      route,
      tenant,
      arms: undefined,
      whole: undefined,
    };
    const split = route.split === undefined ? compiled : splitRoute(compiled, route.split, services);
    if (typeof split === 'string') return `route ${nameOf(route)}: ${split}`;
    list.push(split);
  }
  const duplicate = sort(list);
  return duplicate === undefined ? list : `route ${nameOf(duplicate)} is defined twice`;
}

/** Undefined: its service is not there. */
function tenantOf({ serviceId, tenant, actions }: Route, services: ShardedMap<Service>): string | undefined {
  return serviceId === '' && answersItself(actions) ? tenant : services.get(serviceId)?.tenant;
}

/** The services that a route leads to, each once; none where it answers itself. */
export function servicesOfRoute({ serviceId, split }: Route): readonly string[] {
  if (serviceId === '') return [];
  return split === undefined ? [serviceId] : split.map((share) => share.serviceId);
}

/** Those that it needs: where it leads, whom it asks, and where it copies to. */
function servicesNeededBy(route: Route): ReadonlySet<string> {
  return new Set([...servicesOfRoute(route), ...helpersOf(route.actions)]);
}

/** A text says what is wrong. */
function splitRoute(
  compiled: CompiledRoute,
  split: readonly SplitShare[],
  services: ShardedMap<Service>,
): CompiledRoute | string {
  if (new Set(split.map(({ serviceId }) => serviceId)).size !== split.length) return 'a service is in its split twice';
  const list: { readonly upTo: number; readonly route: CompiledRoute }[] = [];
  let total = 0;
  const whole = { ...compiled, arms: { total: 0, list } };
  for (const { serviceId, weight } of split) {
    const service = services.get(serviceId);
    if (service === undefined) return `its split leads to unknown service "${serviceId}"`;
    if (!Number.isInteger(weight) || weight < 0) return `the weight of "${serviceId}" is ${String(weight)}`;
    total += weight;
    const route = { ...compiled.route, serviceId, split: undefined };
    list.push({ upTo: total, route: { ...compiled, route, tenant: service.tenant, whole } });
  }
  if (total === 0) return 'the weights of its split are all 0';
  whole.arms.total = total;
  return whole;
}

function nameOf({ host, path }: Route): string {
  return `${host}${path}`;
}

/**
 * Puts first what is to be asked first: exact paths, then the longest prefix, then expressions in the order in which they were written; of one path what
 * asks for more. Returns the second of two routes that no request can tell apart.
 */
function sort(list: CompiledRoute[]): Route | undefined {
  const keys = new Set<string>();
  const written = new Map<string, number>();
  for (const { pattern, conditions, route } of list) {
    const key = `${patternKey(pattern)}\n${conditionsKey(conditions)}`;
    if (keys.has(key)) return route;
    keys.add(key);
    if (pattern.kind === 'expression' && !written.has(pattern.source)) written.set(pattern.source, written.size);
  }
  list.sort(
    (one, other) => comparePatterns(one.pattern, other.pattern, written) || compareConditions(one.conditions, other.conditions),
  );
  return undefined;
}

const RANK = { exact: 0, prefix: 1, expression: 2 } as const;

function comparePatterns(one: PathPattern, other: PathPattern, written: ReadonlyMap<string, number>): number {
  if (one.kind === 'prefix' && other.kind === 'prefix')
    return other.prefix.length - one.prefix.length || order(one.prefix, other.prefix);
  if (one.kind === 'exact' && other.kind === 'exact') return order(one.path, other.path);
  if (one.kind === 'expression' && other.kind === 'expression')
    return (written.get(one.source) ?? 0) - (written.get(other.source) ?? 0);
  return RANK[one.kind] - RANK[other.kind];
}

/** Of no meaning to requests, which meet one of the two at most; but routes of one path must stand together. */
function order(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function patternKey(pattern: PathPattern): string {
  switch (pattern.kind) {
    case 'exact':
      return `=${pattern.path}`;
    case 'prefix':
      return pattern.prefix;
    case 'expression':
      return `~${pattern.source}`;
  }
}
