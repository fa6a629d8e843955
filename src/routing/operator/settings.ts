/**
 * What operators want of the edge at one version, and how it changes. Pure: a change is a patch, and a patch has an inverse; history, diff and rollback are
 * made of nothing else.
 */
import { routeKeyOf } from '#routing/merge.ts';
import { ShardedMap } from '#sharded-map';
import type { EdgeDocument, Operation, RouteMatchSettings, RouteSettings } from './schema.ts';
import { ROUTES_MAX, ROUTES_PER_HOST_MAX, SERVICES_MAX, caBundleOfRoute, servicesOf } from './schema.ts';
import { checksOf } from './service-schema.ts';
import type { ServiceSettings } from './service-schema.ts';
import { CA_BUNDLES_MAX } from './tls-schema.ts';
import type { CaBundleSettings } from './tls-schema.ts';

export interface EdgeSettings {
  readonly services: ShardedMap<ServiceSettings>;
  /** By host, in the order in which they were written. None of the lists is empty. */
  readonly hosts: ShardedMap<readonly RouteSettings[]>;
  readonly routes: number;
  /** How many endpoints are checked. */
  readonly checks: number;
  /** How many routes lead to a service; by `usesKey`, how many routes and services name a CA bundle. */
  readonly uses: ShardedMap<number>;
  /** By name; a few. */
  readonly caBundles: ReadonlyMap<string, CaBundleSettings>;
}

/** What changes: services by name (null: it goes), and all routes of each host that changes (none: it has none any more). */
export interface EdgePatch {
  readonly services: Readonly<Record<string, ServiceSettings | null>>;
  readonly hosts: Readonly<Record<string, readonly RouteSettings[]>>;
  /** By name (null: it goes). Absent, as in patches of old versions: none changes. */
  readonly caBundles?: Readonly<Record<string, CaBundleSettings | null>>;
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
  checks: 0,
  uses: ShardedMap.empty(),
  caBundles: new Map(),
};

/** Each is a connection in every interval, by one process: with that of 5 s they are a thousand in a second. */
const CHECKS_MAX = 5000;
/** More problems than these are one mistake, seen many times. */
const PROBLEMS_MAX = 20;

export function isEmptyPatch({ services, hosts, caBundles = {} }: EdgePatch): boolean {
  return [services, hosts, caBundles].every((part) => Object.keys(part).length === 0);
}

/** No service has such a name. */
function usesKey(caBundle: string): string {
  return `ca:${caBundle}`;
}

/** How many routes and services name it. */
export function usesOfCaBundle({ uses }: EdgeSettings, name: string): number {
  return uses.get(usesKey(name)) ?? 0;
}

/** What a route needs to be there, as it is counted. */
function needsOf(route: RouteSettings): readonly string[] {
  const caBundle = caBundleOfRoute(route);
  return caBundle === undefined ? servicesOf(route) : [...servicesOf(route), usesKey(caBundle)];
}

/** Settings after a patch that was made for them. */
export function settingsWith(settings: EdgeSettings, patch: EdgePatch): EdgeSettings {
  const hosts = new Map<string, readonly RouteSettings[] | undefined>();
  const used = new Map<string, number>();
  let { routes } = settings;
  const use = (key: string, sign: number): void => {
    used.set(key, (used.get(key) ?? settings.uses.get(key) ?? 0) + sign);
  };
  const count = (list: readonly RouteSettings[], sign: number): void => {
    routes += sign * list.length;
    for (const key of list.flatMap(needsOf)) use(key, sign);
  };
  for (const [host, list] of Object.entries(patch.hosts)) {
    count(settings.hosts.get(host) ?? [], -1);
    count(list, 1);
    hosts.set(host, list.length === 0 ? undefined : list);
  }
  let { checks } = settings;
  const services = new Map<string, ServiceSettings | undefined>();
  for (const [name, service] of Object.entries(patch.services)) {
    const before = settings.services.get(name);
    checks += (service === null ? 0 : checksOf(service)) - (before === undefined ? 0 : checksOf(before));
    if (before?.tls?.ca !== undefined) use(usesKey(before.tls.ca), -1);
    if (service?.tls?.ca !== undefined) use(usesKey(service.tls.ca), 1);
    services.set(name, service ?? undefined);
  }
  const uses = new Map([...used].map(([service, sum]) => [service, sum === 0 ? undefined : sum]));
  return {
    services: settings.services.with(services),
    hosts: settings.hosts.with(hosts),
    routes,
    checks,
    uses: settings.uses.with(uses),
    caBundles: caBundlesWith(settings.caBundles, patch.caBundles),
  };
}

function caBundlesWith(before: EdgeSettings['caBundles'], patch: EdgePatch['caBundles']): ReadonlyMap<string, CaBundleSettings> {
  if (patch === undefined) return before;
  const after = new Map(before);
  for (const [name, caBundle] of Object.entries(patch)) {
    if (caBundle === null) after.delete(name);
    else after.set(name, caBundle);
  }
  return after;
}

/** The part of a patch that is about them; nothing where nothing changes, so that patches are as they were before there were any. */
function caBundlePart(changes: NonNullable<EdgePatch['caBundles']>): Pick<EdgePatch, 'caBundles'> {
  return Object.keys(changes).length === 0 ? {} : { caBundles: changes };
}

/** The patch that takes back what `patch` does to `settings`. */
export function inverseOf(settings: EdgeSettings, patch: EdgePatch): EdgePatch {
  return {
    services: Object.fromEntries(Object.keys(patch.services).map((name) => [name, settings.services.get(name) ?? null])),
    hosts: Object.fromEntries(Object.keys(patch.hosts).map((host) => [host, settings.hosts.get(host) ?? []])),
    ...caBundlePart(
      Object.fromEntries(Object.keys(patch.caBundles ?? {}).map((name) => [name, settings.caBundles.get(name) ?? null])),
    ),
  };
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
    ...caBundlePart(
      Object.fromEntries(
        Object.entries(patch.caBundles ?? {}).filter(
          ([name, caBundle]) => !isSame(settings.caBundles.get(name) ?? null, caBundle),
        ),
      ),
    ),
  };
}

/** All of it, as an operator would write it: services by name, routes by host. */
export function documentOf(settings: EdgeSettings): EdgeDocument {
  return {
    services: Object.fromEntries([...settings.services.entries()].toSorted(byName)),
    routes: [...settings.hosts.entries()].toSorted(byName).flatMap(([, list]) => list),
    ...(settings.caBundles.size === 0
      ? {}
      : { caBundles: Object.fromEntries([...settings.caBundles.entries()].toSorted(byName)) }),
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
    for (const service of servicesOf(route))
      if (!Object.hasOwn(document.services, service))
        problems.push({
          path: `routes[${String(index)}].${route.split === undefined ? 'service' : 'split'}`,
          message: `there is no service "${service}"`,
        });
    const list = hosts.get(host) ?? [];
    list.push(route);
    hosts.set(host, list);
    if (problems.length >= PROBLEMS_MAX) return { kind: 'refused', problems };
  }
  for (const [host, list] of hosts) problems.push(...hostProblems(host, list));
  if (problems.length > 0) return { kind: 'refused', problems };
  const services = inPlaceOf(
    [...settings.services.entries()].map(([name]) => name),
    document.services,
  );
  const lists: Record<string, readonly RouteSettings[]> = Object.fromEntries(hosts);
  for (const [host] of settings.hosts.entries()) if (!hosts.has(host)) lists[host] = [];
  const caBundles = inPlaceOf([...settings.caBundles.keys()], document.caBundles ?? {});
  return checked(settings, patchOnto(settings, { services, hosts: lists, caBundles }));
}

/** All that is wanted, and null for what there is besides. */
function inPlaceOf<T>(names: readonly string[], wanted: Readonly<Record<string, T>>): Readonly<Record<string, T | null>> {
  return { ...Object.fromEntries(names.map((name) => [name, null])), ...wanted };
}

/** What a list of operations changes, all or nothing. */
export function patchOfOperations(settings: EdgeSettings, operations: readonly Operation[]): PatchReading {
  const draft = new Draft(settings);
  const problems: Problem[] = [];
  for (const [index, operation] of operations.entries()) {
    const fault = draft.take(operation);
    if (fault !== undefined) problems.push({ path: `operations[${String(index)}].${fault.path}`, message: fault.message });
    if (problems.length >= PROBLEMS_MAX) break;
  }
  problems.push(...draft.faults());
  if (problems.length > 0) return { kind: 'refused', problems: problems.slice(0, PROBLEMS_MAX) };
  return checked(settings, patchOnto(settings, draft.patch()));
}

/** Settings while operations are applied to them, one after the other. */
class Draft {
  readonly #settings: EdgeSettings;
  readonly #services = new Map<string, ServiceSettings | null>();
  readonly #caBundles = new Map<string, CaBundleSettings | null>();
  /** By host: its routes by what they match, in their order. */
  readonly #hosts = new Map<string, Map<string, RouteSettings>>();

  constructor(settings: EdgeSettings) {
    this.#settings = settings;
  }

  take(operation: Operation): Problem | undefined {
    switch (operation.op) {
      case 'put-service':
        this.#services.set(operation.name, operation.service);
        return undefined;
      case 'remove-service': {
        const { name } = operation;
        if (this.#serviceOf(name) === null) return { path: 'name', message: `there is no service "${name}"` };
        this.#services.set(name, null);
        return undefined;
      }
      case 'put-route': {
        const { host } = operation.route.match;
        const routes = this.#routesOf(host);
        routes.set(keyOf(operation.route.match), operation.route);
        const most = String(ROUTES_PER_HOST_MAX);
        return routes.size <= ROUTES_PER_HOST_MAX
          ? undefined
          : { path: 'route', message: `${host} would have more than ${most} routes` };
      }
      case 'remove-route': {
        const { match } = operation;
        if (this.#routesOf(match.host).delete(keyOf(match))) return undefined;
        return { path: 'match', message: `there is no such route of ${match.host}` };
      }
      case 'put-ca-bundle':
        this.#caBundles.set(operation.name, operation.caBundle);
        return undefined;
      case 'remove-ca-bundle': {
        const { name } = operation;
        const known = this.#caBundles.has(name) ? this.#caBundles.get(name) : this.#settings.caBundles.get(name);
        if (known === undefined || known === null) return { path: 'name', message: `there is no CA bundle "${name}"` };
        this.#caBundles.set(name, null);
        return undefined;
      }
    }
  }

  /** Routes without their service. */
  faults(): readonly Problem[] {
    return [...this.#hosts].flatMap(([host, routes]) =>
      [...routes.values()].flatMap((route) =>
        servicesOf(route)
          .filter((service) => this.#serviceOf(service) === null)
          .map((service) => ({ path: `the route of ${routeText(host, route)}`, message: `there is no service "${service}"` })),
      ),
    );
  }

  patch(): EdgePatch {
    const hosts = [...this.#hosts].map(([host, routes]) => [host, [...routes.values()]] as const);
    return {
      services: Object.fromEntries(this.#services),
      hosts: Object.fromEntries(hosts),
      ...caBundlePart(Object.fromEntries(this.#caBundles)),
    };
  }

  #serviceOf(name: string): ServiceSettings | null {
    const changed = this.#services.get(name);
    return changed === undefined ? (this.#settings.services.get(name) ?? null) : changed;
  }

  #routesOf(host: string): Map<string, RouteSettings> {
    const known = this.#hosts.get(host);
    if (known !== undefined) return known;
    const routes = new Map((this.#settings.hosts.get(host) ?? []).map((route) => [keyOf(route.match), route]));
    this.#hosts.set(host, routes);
    return routes;
  }
}

function routeText(host: string, { match }: RouteSettings): string {
  return `${host}${match.path ?? '/'}`;
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
  problems.push(...caBundleProblems(after, patch));
  if (after.routes > ROUTES_MAX) problems.push({ path: 'routes', message: `more than ${String(ROUTES_MAX)}` });
  if (after.services.size > SERVICES_MAX) problems.push({ path: 'services', message: `more than ${String(SERVICES_MAX)}` });
  if (after.checks > CHECKS_MAX)
    problems.push({ path: 'services', message: `more than ${String(CHECKS_MAX)} endpoints have health checks` });
  return problems.length === 0 ? { kind: 'patch', patch } : { kind: 'refused', problems: problems.slice(0, PROBLEMS_MAX) };
}

/** CA bundles that are named and not there, and too many of them. What was named before is looked at where CA bundles change. */
function caBundleProblems(after: EdgeSettings, { services, hosts, caBundles = {} }: EdgePatch): readonly Problem[] {
  const { size } = after.caBundles;
  const gone = Object.entries(caBundles)
    .filter(([name, caBundle]) => caBundle === null && usesOfCaBundle(after, name) > 0)
    .map(([name]) => ({ path: `caBundles.${name}`, message: 'routes or services name it' }));
  const missing = (path: string, name: string | undefined): readonly Problem[] =>
    name === undefined || after.caBundles.has(name) || Object.hasOwn(caBundles, name)
      ? []
      : [{ path, message: `there is no CA bundle "${name}"` }];
  return [
    ...(size > CA_BUNDLES_MAX ? [{ path: 'caBundles', message: `more than ${String(CA_BUNDLES_MAX)}` }] : []),
    ...gone,
    ...Object.entries(services).flatMap(([name, service]) => missing(`services.${name}.tls.ca`, service?.tls?.ca)),
    ...Object.entries(hosts).flatMap(([host, list]) =>
      list.flatMap((route) => missing(`the route of ${routeText(host, route)}`, caBundleOfRoute(route))),
    ),
  ];
}
