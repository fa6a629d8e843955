/**
 * Where a request goes: a pure lookup.
 *
 * Precedence is an order over candidates, not a decision per level: exact host, then wildcard, then `*`; within one host exact paths, the longest
 * prefix, expressions in their order; of one path what asks for more of the request. A host that has routes but none for the request falls through to
 * the next level, so that a catch-all of `*.example.com` serves what `shop.example.com` leaves open.
 */
import { hasPrefix } from './path-prefix.ts';
import type { PathPattern } from './path-pattern.ts';
import { meets } from './route-conditions.ts';
import type { RequestFacts } from './route-conditions.ts';
import type { CompiledRoute, RouteTable, SplitArms } from './route-table.ts';

/** The route of a host that has one only, for all its paths and requests: nothing need be known of the request then. */
export function soleRoute(table: RouteTable, host: string): CompiledRoute | undefined {
  const exact = table.hosts.get(host);
  if (exact?.length !== 1) return undefined;
  const [only] = exact;
  return only?.pattern.kind === 'prefix' && only.pattern.prefix === '' && only.conditions === undefined ? only : undefined;
}

/** Finds the route of a normalised host (`normaliseRequestHost`) and path (`pathOf`). `facts` is asked only where a route wants to know. */
export function findRoute(table: RouteTable, host: string, path: string, facts: RequestFacts): CompiledRoute | undefined {
  return (
    firstOf(table.hosts.get(host), path, facts) ??
    firstOf(ofWildcard(table, host), path, facts) ??
    firstOf(table.hosts.get('*'), path, facts)
  );
}

/** The routes that a host's requests are matched against, level by level, each in the order in which it is asked. */
export function levelsOf(table: RouteTable, host: string): readonly (readonly CompiledRoute[])[] {
  return [table.hosts.get(host), ofWildcard(table, host), table.hosts.get('*')].filter((level) => level !== undefined);
}

/** The arm of a split that a number in [0, 1) is for. */
export function armOf({ total, list }: SplitArms, chance: number): CompiledRoute | undefined {
  const at = chance * total;
  return list.find(({ upTo }) => at < upTo)?.route;
}

/** Whether there is a route for any request to `host`. */
export function isKnownHost(table: RouteTable, host: string): boolean {
  return (table.hosts.get(host) ?? ofWildcard(table, host) ?? table.hosts.get('*')) !== undefined;
}

/** The host of a route whose certificate a client needs that asks for `name` in its handshake: a route for `*` names nobody. */
export function certificateHostOf(table: RouteTable, name: string): string | undefined {
  if (name === '*' || name.startsWith('*.')) return undefined;
  if (table.hosts.get(name) !== undefined) return name;
  const dot = name.indexOf('.');
  const wildcard = `*${name.slice(dot)}`;
  return dot > 0 && table.hosts.get(wildcard) !== undefined ? wildcard : undefined;
}

function ofWildcard(table: RouteTable, host: string): readonly CompiledRoute[] | undefined {
  const dot = host.indexOf('.');
  return dot === -1 ? undefined : table.hosts.get(`*${host.slice(dot)}`);
}

function firstOf(routes: readonly CompiledRoute[] | undefined, path: string, facts: RequestFacts): CompiledRoute | undefined {
  return routes?.find(
    ({ pattern, conditions }) => isFor(pattern, path) && (conditions === undefined || meets(facts, conditions)),
  );
}

function isFor(pattern: PathPattern, path: string): boolean {
  switch (pattern.kind) {
    case 'exact':
      return path === pattern.path;
    case 'prefix':
      return hasPrefix(path, pattern.prefix);
    case 'expression':
      return pattern.test(path);
  }
}
