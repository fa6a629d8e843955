/**
 * Where a request goes: a pure lookup.
 *
 * Precedence is an order over candidates, not a decision per level: exact host, then wildcard, then `*`; within one host the
 * longest prefix. A host that has routes but none for the path falls through to the next level, so that a catch-all of
 * `*.example.com` serves what `shop.example.com` leaves open.
 */
import { hasPrefix } from './path-prefix.ts';
import type { CompiledRoute, Route, RouteTable, Service } from './route-table.ts';

export type MatchResult =
  | { readonly kind: 'match'; readonly route: Route; readonly service: Service }
  | { readonly kind: 'no-route'; readonly reason: 'unknown-host' | 'unknown-path' };

/** The route of a host that has one only, for all its paths: nothing need be known of the path then. */
export function soleRoute(table: RouteTable, host: string): CompiledRoute | undefined {
  const exact = table.byExactHost.get(host);
  if (exact?.length !== 1) return undefined;
  const [only] = exact;
  return only?.prefix === '' ? only : undefined;
}

/** Finds the route of a normalised host (`normaliseRequestHost`) and path (`pathOf`). */
export function findRoute(table: RouteTable, host: string, path: string): CompiledRoute | undefined {
  return (
    firstBelow(table.byExactHost.get(host), path) ??
    firstBelow(ofWildcard(table, host), path) ??
    firstBelow(table.byAnyHost, path)
  );
}

/** Whether there is a route for any path of `host`. */
export function isKnownHost(table: RouteTable, host: string): boolean {
  return table.byExactHost.has(host) || ofWildcard(table, host) !== undefined || table.byAnyHost.length > 0;
}

/** Finds the route of a normalised host (`normaliseRequestHost`) and path (`pathOf`). */
export function matchRoute(table: RouteTable, host: string, path: string): MatchResult {
  const found = findRoute(table, host, path);
  if (found !== undefined) return { kind: 'match', route: found.route, service: found.service };
  return { kind: 'no-route', reason: isKnownHost(table, host) ? 'unknown-path' : 'unknown-host' };
}

function ofWildcard(table: RouteTable, host: string): readonly CompiledRoute[] | undefined {
  const dot = host.indexOf('.');
  return dot === -1 ? undefined : table.byWildcardHost.get(host.slice(dot + 1));
}

function firstBelow(routes: readonly CompiledRoute[] | undefined, path: string): CompiledRoute | undefined {
  return routes?.find((candidate) => hasPrefix(path, candidate.prefix));
}
