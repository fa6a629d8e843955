/** Routes of one host from two sources. Pure. */
import { conditionsKey, parseConditions } from './route-conditions.ts';
import type { Route } from './route-table.ts';

/** The same for two routes of a host that no request can tell apart. Of a route that is not valid it says no more than that it is itself. */
export function routeKeyOf({ path, methods, headers }: Pick<Route, 'path' | 'methods' | 'headers'>): string {
  const conditions = parseConditions(methods, headers);
  const pattern = path.startsWith('/') && path.endsWith('/') ? path.slice(0, -1) : path;
  return `${pattern}\n${conditions.kind === 'conditions' ? conditionsKey(conditions.conditions) : JSON.stringify([methods, headers])}`;
}

/** All of `first`, and what `second` has beside them. */
export function mergeRoutes(first: readonly Route[], second: readonly Route[]): readonly Route[] {
  if (first.length === 0) return second;
  const taken = new Set(first.map(routeKeyOf));
  return [...first, ...second.filter((route) => !taken.has(routeKeyOf(route)))];
}
