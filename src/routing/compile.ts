/** Turns a config of routes into the table that requests are matched against. All or nothing: a table is never half right. */
import { parseRouteHost } from './host-name.ts';
import { parsePathPrefix } from './path-prefix.ts';
import type { CompiledRoute, Route, RouteConfig, RouteTable, Service } from './route-table.ts';

export type CompileResult =
  | { readonly kind: 'compiled'; readonly table: RouteTable }
  | { readonly kind: 'rejected'; readonly reason: string };

const PORT_MAX = 65_535;

/** Compiles `config`; the first fault rejects all of it. */
export function compileRoutes(config: RouteConfig): CompileResult {
  const services = new Map<string, Service>();
  for (const service of config.services) {
    const fault = services.has(service.id) ? `service "${service.id}" is defined twice` : endpointFault(service);
    if (fault !== undefined) return { kind: 'rejected', reason: fault };
    services.set(service.id, service);
  }
  const draft: Draft = { byExactHost: new Map(), byWildcardHost: new Map(), byAnyHost: [] };
  for (const route of config.routes) {
    const fault = addRoute(draft, services, route);
    if (fault !== undefined) return { kind: 'rejected', reason: fault };
  }
  const lists = [...draft.byExactHost.values(), ...draft.byWildcardHost.values(), draft.byAnyHost];
  for (const list of lists) {
    const duplicate = sortByPrefix(list);
    if (duplicate !== undefined) {
      return { kind: 'rejected', reason: `route ${duplicate.host}${duplicate.pathPrefix} is defined twice` };
    }
  }
  return { kind: 'compiled', table: { version: config.version, services, ...draft } };
}

interface Draft {
  readonly byExactHost: Map<string, CompiledRoute[]>;
  readonly byWildcardHost: Map<string, CompiledRoute[]>;
  readonly byAnyHost: CompiledRoute[];
}

function endpointFault(service: Service): string | undefined {
  const ids = new Set<string>();
  for (const endpoint of service.endpoints) {
    if (ids.has(endpoint.id)) return `service "${service.id}" has endpoint "${endpoint.id}" twice`;
    if (!Number.isInteger(endpoint.port) || endpoint.port < 1 || endpoint.port > PORT_MAX) {
      return `endpoint "${endpoint.id}" of service "${service.id}" has port ${String(endpoint.port)}`;
    }
    ids.add(endpoint.id);
  }
  return undefined;
}

function addRoute(draft: Draft, services: ReadonlyMap<string, Service>, route: Route): string | undefined {
  const service = services.get(route.serviceId);
  if (service === undefined) return `route ${route.host}${route.pathPrefix} leads to unknown service "${route.serviceId}"`;
  const path = parsePathPrefix(route.pathPrefix);
  if (path.kind === 'invalid') return path.reason;
  const compiled: CompiledRoute = { prefix: path.prefix, route, service };
  const host = parseRouteHost(route.host);
  switch (host.kind) {
    case 'invalid':
      return host.reason;
    case 'any':
      draft.byAnyHost.push(compiled);
      return undefined;
    case 'exact':
      pushUnder(draft.byExactHost, host.name, compiled);
      return undefined;
    case 'wildcard':
      pushUnder(draft.byWildcardHost, host.suffix, compiled);
      return undefined;
  }
}

function pushUnder(lists: Map<string, CompiledRoute[]>, key: string, compiled: CompiledRoute): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [compiled]);
  else list.push(compiled);
}

/** Sorts the longest prefix first; returns the route of a prefix that occurs twice. */
function sortByPrefix(list: CompiledRoute[]): Route | undefined {
  const prefixes = new Set<string>();
  for (const compiled of list) {
    if (prefixes.has(compiled.prefix)) return compiled.route;
    prefixes.add(compiled.prefix);
  }
  list.sort((a, b) => b.prefix.length - a.prefix.length);
  return undefined;
}
