/**
 * What operators want of the edge at one version, and how it changes. Pure: a change is a patch, and a patch has an inverse; history, diff and rollback are
 * made of nothing else.
 */
import { routeKeyOf } from '#routing/merge.ts';
import { ShardedMap } from '#sharded-map';
import type { EdgeDocument, Operation, RouteMatchSettings, RouteSettings, ServiceSettings } from './schema.ts';
import { ROUTES_MAX, ROUTES_PER_HOST_MAX, SERVICES_MAX } from './schema.ts';

export interface EdgeSettings {
  readonly services: ShardedMap<ServiceSettings>;
  /** By host, in the order in which they were written. None of the lists is empty. */
  readonly hosts: ShardedMap<readonly RouteSettings[]>;
  readonly routes: number;
  /** How many routes lead to a service. */
  readonly uses: ShardedMap<number>;
}

/** What changes: services by name (null: it goes), and all routes of each host that changes (none: it has none any more). */
export interface EdgePatch {
  readonly services: Readonly<Record<string, ServiceSettings | null>>;
  readonly hosts: Readonly<Record<string, readonly RouteSettings[]>>;
}

/** What is wrong, and where: `routes[3].service`. */
export interface Problem {
  readonly path: string;
  readonly message: string;
}

export type PatchReading =
  | { readonly kind: 'patch'; readonly patch: EdgePatch }
  | { readonly kind: 'refused'; readonly problems: readonly Problem[] };

export const NO_SETTINGS: EdgeSettings = {
  services: ShardedMap.empty(),
  hosts: ShardedMap.empty(),
  routes: 0,
  uses: ShardedMap.empty(),
};

/** More problems than these are one mistake, seen many times. */
const PROBLEMS_MAX = 20;

export function isEmptyPatch({ services, hosts }: EdgePatch): boolean {
  return Object.keys(services).length === 0 && Object.keys(hosts).length === 0;
}

/** Settings after a patch that was made for them. */
export function settingsWith(settings: EdgeSettings, patch: EdgePatch): EdgeSettings {
  const hosts = new Map<string, readonly RouteSettings[] | undefined>();
  const used = new Map<string, number>();
  let { routes } = settings;
  const count = (list: readonly RouteSettings[], sign: number): void => {
    routes += sign * list.length;
    for (const { service } of list) used.set(service, (used.get(service) ?? settings.uses.get(service) ?? 0) + sign);
  };
  for (const [host, list] of Object.entries(patch.hosts)) {
    count(settings.hosts.get(host) ?? [], -1);
    count(list, 1);
    hosts.set(host, list.length === 0 ? undefined : list);
  }
  const services = new Map(Object.entries(patch.services).map(([name, service]) => [name, service ?? undefined]));
  const uses = new Map([...used].map(([service, sum]) => [service, sum === 0 ? undefined : sum]));
  return {
    services: settings.services.with(services),
    hosts: settings.hosts.with(hosts),
    routes,
    uses: settings.uses.with(uses),
  };
}

/** The patch that takes back what `patch` does to `settings`. */
export function inverseOf(settings: EdgeSettings, patch: EdgePatch): EdgePatch {
  return {
    services: Object.fromEntries(Object.keys(patch.services).map((name) => [name, settings.services.get(name) ?? null])),
    hosts: Object.fromEntries(Object.keys(patch.hosts).map((host) => [host, settings.hosts.get(host) ?? []])),
  };
}

/** Both, one after the other. */
export function patchThen(first: EdgePatch, second: EdgePatch): EdgePatch {
  return { services: { ...first.services, ...second.services }, hosts: { ...first.hosts, ...second.hosts } };
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function byName([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number {
  return one < other ? -1 : 1;
}

/** Without what changes nothing. */
export function patchOnto(settings: EdgeSettings, patch: EdgePatch): EdgePatch {
  return {
    services: Object.fromEntries(
      Object.entries(patch.services).filter(([name, service]) => !isSame(settings.services.get(name) ?? null, service)),
    ),
    hosts: Object.fromEntries(
      Object.entries(patch.hosts).filter(([host, list]) => !isSame(settings.hosts.get(host) ?? [], list)),
    ),
  };
}

/** All of it, as an operator would write it: services by name, routes by host. */
export function documentOf(settings: EdgeSettings): EdgeDocument {
  return {
    services: Object.fromEntries([...settings.services.entries()].toSorted(byName)),
    routes: [...settings.hosts.entries()].toSorted(byName).flatMap(([, list]) => list),
  };
}

/** What has to change for a whole document to be true. */
export function patchToDocument(settings: EdgeSettings, document: EdgeDocument): PatchReading {
  const problems: Problem[] = [];
  const seen = new Map<string, number>();
  const hosts = new Map<string, RouteSettings[]>();
  for (const [index, route] of document.routes.entries()) {
    const { host } = route.match;
    const key = `${host} ${keyOf(route.match)}`;
    const before = seen.get(key);
    if (before !== undefined)
      problems.push({ path: `routes[${String(index)}].match`, message: `the same as routes[${String(before)}].match` });
    seen.set(key, index);
    if (!Object.hasOwn(document.services, route.service))
      problems.push({ path: `routes[${String(index)}].service`, message: `there is no service "${route.service}"` });
    const list = hosts.get(host) ?? [];
    list.push(route);
    hosts.set(host, list);
    if (problems.length >= PROBLEMS_MAX) return { kind: 'refused', problems };
  }
  for (const [host, list] of hosts) problems.push(...hostProblems(host, list));
  if (problems.length > 0) return { kind: 'refused', problems };
  const services: Record<string, ServiceSettings | null> = { ...document.services };
  for (const [name] of settings.services.entries()) if (!Object.hasOwn(services, name)) services[name] = null;
  const lists: Record<string, readonly RouteSettings[]> = Object.fromEntries(hosts);
  for (const [host] of settings.hosts.entries()) lists[host] ??= [];
  return checked(settings, patchOnto(settings, { services, hosts: lists }));
}

/** What a list of operations changes, all or nothing. */
export function patchOfOperations(settings: EdgeSettings, operations: readonly Operation[]): PatchReading {
  const services = new Map<string, ServiceSettings | null>();
  const hosts = new Map<string, readonly RouteSettings[]>();
  const problems: Problem[] = [];
  const serviceOf = (name: string): ServiceSettings | null => {
    const changed = services.get(name);
    return changed === undefined ? (settings.services.get(name) ?? null) : changed;
  };
  const routesOf = (host: string): readonly RouteSettings[] => hosts.get(host) ?? settings.hosts.get(host) ?? [];
  for (const [index, operation] of operations.entries()) {
    const refuse = (key: string, message: string): void => {
      problems.push({ path: `operations[${String(index)}].${key}`, message });
    };
    switch (operation.op) {
      case 'put-service':
        services.set(operation.name, operation.service);
        break;
      case 'remove-service':
        if (serviceOf(operation.name) === null) refuse('name', `there is no service "${operation.name}"`);
        services.set(operation.name, null);
        break;
      case 'put-route': {
        const { route } = operation;
        const list = routesOf(route.match.host);
        const at = list.findIndex(({ match }) => keyOf(match) === keyOf(route.match));
        hosts.set(route.match.host, at === -1 ? [...list, route] : list.with(at, route));
        break;
      }
      case 'remove-route': {
        const { match } = operation;
        const list = routesOf(match.host);
        const rest = list.filter((route) => keyOf(route.match) !== keyOf(match));
        if (rest.length === list.length) refuse('match', `there is no such route of ${match.host}`);
        hosts.set(match.host, rest);
        break;
      }
    }
    if (problems.length >= PROBLEMS_MAX) break;
  }
  for (const [host, list] of hosts) {
    problems.push(...hostProblems(host, list));
    for (const route of list)
      if (serviceOf(route.service) === null)
        problems.push({
          path: `the route of ${host}${route.match.path ?? '/'}`,
          message: `there is no service "${route.service}"`,
        });
  }
  if (problems.length > 0) return { kind: 'refused', problems: problems.slice(0, PROBLEMS_MAX) };
  const patch = { services: Object.fromEntries(services), hosts: Object.fromEntries(hosts) };
  return checked(settings, patchOnto(settings, patch));
}

function keyOf({ path = '/', methods, headers }: RouteMatchSettings): string {
  return routeKeyOf({ path, methods, headers });
}

function hostProblems(host: string, list: readonly RouteSettings[]): readonly Problem[] {
  if (list.length <= ROUTES_PER_HOST_MAX) return [];
  return [
    { path: `the routes of ${host}`, message: `there are ${String(list.length)}, more than ${String(ROUTES_PER_HOST_MAX)}` },
  ];
}

/** A patch whose result holds together: no route without its service, and not too much of anything. */
function checked(settings: EdgeSettings, patch: EdgePatch): PatchReading {
  const after = settingsWith(settings, patch);
  const problems: Problem[] = Object.entries(patch.services)
    .filter(([name, service]) => service === null && (after.uses.get(name) ?? 0) > 0)
    .map(([name]) => ({ path: `services.${name}`, message: `${String(after.uses.get(name))} routes lead to it` }));
  if (after.routes > ROUTES_MAX) problems.push({ path: 'routes', message: `more than ${String(ROUTES_MAX)}` });
  if (after.services.size > SERVICES_MAX) problems.push({ path: 'services', message: `more than ${String(SERVICES_MAX)}` });
  return problems.length === 0 ? { kind: 'patch', patch } : { kind: 'refused', problems: problems.slice(0, PROBLEMS_MAX) };
}
