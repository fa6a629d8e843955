/** What changes between two configs, by service and by host. Pure. The work is that of both of them: it is done once, and each worker has the change's. */
import type { Route, RouteConfig, RouteDelta, Service } from './route-table.ts';

/** Applied to a table of `before` it gives the table of `after` (`tableWith`). */
export function deltaBetween(before: RouteConfig, after: RouteConfig): RouteDelta {
  const known = new Map(before.services.map((service) => [service.id, service]));
  const wanted = new Set(after.services.map(({ id }) => id));
  const routesBefore = Map.groupBy(before.routes, ({ host }) => host);
  const routesAfter = Map.groupBy(after.routes, ({ host }) => host);
  const changed = [...routesAfter].filter(([host, routes]) => !isSame(routesBefore.get(host), routes));
  const gone = [...routesBefore.keys()].filter((host) => !routesAfter.has(host));
  return {
    base: before.version,
    version: after.version,
    services: after.services.filter((service) => !isSame(known.get(service.id), service)),
    removedServices: before.services.map(({ id }) => id).filter((id) => !wanted.has(id)),
    hosts: [...changed.map(([host, routes]) => ({ host, routes })), ...gone.map((host) => ({ host, routes: [] }))],
    ...(JSON.stringify(before.caBundles ?? []) === JSON.stringify(after.caBundles ?? [])
      ? {}
      : { caBundles: after.caBundles ?? [] }),
  };
}

/** Plain data in the same order. */
function isSame(one: Service | readonly Route[] | undefined, other: Service | readonly Route[]): boolean {
  return one === other || (one !== undefined && JSON.stringify(one) === JSON.stringify(other));
}
