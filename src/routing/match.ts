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

/** Finds the route of a normalised host (`normaliseRequestHost`) and path (`pathOf`). */
export function matchRoute(table: RouteTable, host: string, path: string): MatchResult {
  const exact = table.byExactHost.get(host);
  const dot = host.indexOf('.');
  const wildcard = dot === -1 ? undefined : table.byWildcardHost.get(host.slice(dot + 1));
  const found = firstBelow(exact, path) ?? firstBelow(wildcard, path) ?? firstBelow(table.byAnyHost, path);
  if (found !== undefined) return { kind: 'match', route: found.route, service: found.service };
  const known = exact !== undefined || wildcard !== undefined || table.byAnyHost.length > 0;
  return { kind: 'no-route', reason: known ? 'unknown-path' : 'unknown-host' };
}

function firstBelow(routes: readonly CompiledRoute[] | undefined, path: string): CompiledRoute | undefined {
  return routes?.find((candidate) => hasPrefix(path, candidate.prefix));
}
