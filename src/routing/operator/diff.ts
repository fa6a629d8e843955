/** What a patch changes, for people and scripts: one entry a service or route. Pure. */
import { routeKeyOf } from '#routing/merge.ts';
import type { Route } from '#routing/route-table.ts';
import type { RouteSettings } from './schema.ts';
import type { EdgePatch, EdgeSettings } from './settings.ts';

export interface DiffEntry {
  readonly change: 'added' | 'removed' | 'changed';
  /** `order`: the routes of a host are asked in another order. */
  readonly kind: 'service' | 'route' | 'order' | 'ca-bundle';
  /** A service's name, a route's host and path with what else it asks for, or a host. */
  readonly name: string;
  /** JSON, as it was; absent: it was not there. */
  readonly before?: unknown;
  /** As it is then; absent: it is gone. */
  readonly after?: unknown;
}

/** `shop.example.com/api GET,POST x-beta=1`. */
export function routeName({ host, path = '/', methods = [], headers = {} }: Partial<Route> & Pick<Route, 'host'>): string {
  const parts = [`${host}${path.startsWith('/') ? path : ` ${path}`}`];
  if (methods.length > 0) parts.push(methods.join(','));
  for (const [name, value] of Object.entries(headers)) parts.push(`${name}=${value}`);
  return parts.join(' ');
}

/** In the order of names. */
export function diffOf(settings: EdgeSettings, patch: EdgePatch): readonly DiffEntry[] {
  const services = Object.entries(patch.services).flatMap(([name, after]) =>
    entryOf('service', name, settings.services.get(name), after ?? undefined),
  );
  const routes = Object.entries(patch.hosts).flatMap(([host, list]) => {
    const before = byKey(settings.hosts.get(host) ?? []);
    const after = byKey(list);
    const kept = [...before.keys()].filter((key) => after.has(key));
    const isReordered = [...after.keys()].filter((key) => before.has(key)).some((key, index) => key !== kept[index]);
    const order: readonly DiffEntry[] = isReordered ? [{ change: 'changed', kind: 'order', name: host }] : [];
    const entries = [...new Set([...before.keys(), ...after.keys()])].flatMap((key) => {
      const name = routeName((after.get(key) ?? before.get(key))?.match ?? { host });
      return entryOf('route', name, before.get(key), after.get(key));
    });
    return [...order, ...entries];
  });
  const caBundles = Object.entries(patch.caBundles ?? {}).flatMap(([name, after]) =>
    entryOf('ca-bundle', name, settings.caBundles.get(name), after ?? undefined),
  );
  return [...services, ...routes, ...caBundles].toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

function byKey(routes: readonly RouteSettings[]): ReadonlyMap<string, RouteSettings> {
  return new Map(
    routes.map((route) => {
      const { path = '/', methods, headers } = route.match;
      return [routeKeyOf({ path, methods, headers }), route];
    }),
  );
}

function entryOf(kind: DiffEntry['kind'], name: string, before: unknown, after: unknown): readonly DiffEntry[] {
  if (before === undefined) return after === undefined ? [] : [{ change: 'added', kind, name, after }];
  if (after === undefined) return [{ change: 'removed', kind, name, before }];
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ change: 'changed', kind, name, before, after }];
}
