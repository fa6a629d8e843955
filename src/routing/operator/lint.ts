/** What is allowed and hardly meant. Pure. */
import { routeName } from './diff.ts';
import type { RouteSettings } from './schema.ts';
import { HEALTH_DEFAULTS } from './service-schema.ts';
import type { ServiceSettings } from './service-schema.ts';
import { parseDurationMs } from '#units';
import { usesOfCaBundle } from './settings.ts';
import type { EdgeSettings } from './settings.ts';
import { certificatesOf } from './tls-schema.ts';
import { routeKeyOf } from '#routing/merge.ts';
import { hasPrefix, parsePathPrefix } from '#routing/path-prefix.ts';
import type { Route } from '#routing/route-table.ts';

export interface LintFinding {
  /** `services.NAME`, or a route's name. */
  readonly at: string;
  readonly message: string;
}

/** More are one mistake, seen many times. */
const FINDINGS_MAX = 1000;

/** `containerRoutes`: by host, those that containers' labels ask for. */
export function lintSettings(
  settings: EdgeSettings,
  containerRoutes: ReadonlyMap<string, readonly Route[]>,
  nowMs: number,
): readonly LintFinding[] {
  const findings: LintFinding[] = [];
  for (const [name, service] of settings.services.entries()) {
    const { endpoints } = service;
    findings.push(...wishes(service).map((message) => ({ at: `services.${name}`, message })));
    const uses = settings.uses.get(name) ?? 0;
    if (uses === 0) findings.push({ at: `services.${name}`, message: 'no route leads to it' });
    else if (endpoints.length === 0)
      findings.push({ at: `services.${name}`, message: `it has no endpoint: ${String(uses)} routes answer 503` });
  }
  findings.push(...ofCaBundles(settings, nowMs));
  for (const [host, routes] of settings.hosts.entries()) {
    findings.push(...shadowed(routes), ...unstripped(routes), ...hidden(routes, containerRoutes.get(host) ?? []));
    if (findings.length > FINDINGS_MAX) break;
  }
  return findings.slice(0, FINDINGS_MAX);
}

/** Those that nobody names, and whose certificates end. */
function ofCaBundles(settings: EdgeSettings, nowMs: number): readonly LintFinding[] {
  return [...settings.caBundles].flatMap(([name, { pem }]) => {
    const at = `caBundles.${name}`;
    const unused = usesOfCaBundle(settings, name) === 0 ? [{ at, message: 'no route and no service names it' }] : [];
    const expired = certificatesOf(pem)
      .filter(({ validToDate }) => validToDate.getTime() <= nowMs)
      .map(({ subject, validToDate }) => {
        const text = `"${subject.split('\n').join(', ')}" expired on ${validToDate.toISOString()}: what it signed is refused`;
        return { at, message: text };
      });
    return [...unused, ...expired];
  });
}

/** What is wanted of a service and comes to nothing. */
function wishes(service: ServiceSettings): readonly string[] {
  const { endpoints, balance, health, limits: { connections, pending = 0, hold } = {} } = service;
  const { interval, timeout } = { ...HEALTH_DEFAULTS, ...health };
  const isAlone = endpoints.length === 1 && balance !== undefined;
  return [
    ...(isAlone ? ['it has one endpoint: there is nothing to balance'] : []),
    ...(pending > 0 && connections === undefined
      ? [
          "limits.pending without limits.connections: requests wait only where an endpoint has all that the node's edge.limits allow",
        ]
      : []),
    ...(parseDurationMs(timeout) >= parseDurationMs(interval)
      ? ['health.timeout is no shorter than health.interval: an endpoint that hangs is checked less often than that']
      : []),
    ...(hold !== undefined && pending === 0 ? ['limits.hold without limits.pending: no request waits'] : []),
  ];
}

/** Expressions come after all prefixes: below a prefix that takes every request they are never asked. */
function shadowed(routes: readonly RouteSettings[]): readonly LintFinding[] {
  const takers = routes.flatMap(({ match }) => {
    const { path = '/', methods, headers = {} } = match;
    if (!path.startsWith('/') || methods !== undefined || Object.keys(headers).length > 0) return [];
    const read = parsePathPrefix(path);
    return read.kind === 'prefix' ? [{ match, prefix: read.prefix }] : [];
  });
  return routes.flatMap(({ match }) => {
    const { path = '/' } = match;
    if (!path.startsWith('~')) return [];
    const literal = literalOf(path.slice(1));
    const taker = takers.find(({ prefix }) => prefix === '' || (literal !== '' && hasPrefix(literal, prefix)));
    if (taker === undefined) return [];
    return [{ at: routeName(match), message: `never asked: ${routeName(taker.match)} takes all of its requests before it` }];
  });
}

/** A prefix that no path of the route begins with is never stripped. */
function unstripped(routes: readonly RouteSettings[]): readonly LintFinding[] {
  return routes.flatMap(({ match, actions }) => {
    const { path = '/' } = match;
    const strip = actions?.stripPrefix;
    if (strip === undefined || path.startsWith('~')) return [];
    const [matched, stripped] = [parsePathPrefix(path.replace(/^=/, '')), parsePathPrefix(strip)];
    if (matched.kind === 'invalid' || stripped.kind === 'invalid') return [];
    const meets =
      hasPrefix(matched.prefix, stripped.prefix) || (!path.startsWith('=') && hasPrefix(stripped.prefix, matched.prefix));
    return meets ? [] : [{ at: routeName(match), message: `stripPrefix ${strip} is never stripped: no path of it begins so` }];
  });
}

/** A path below which everything is that the expression is for; empty: nothing so simple is known. */
function literalOf(expression: string): string {
  if (expression.includes('|')) return '';
  return /^\^((?:\/[\w-]+)+\/)(?![?*{])/.exec(expression)?.[1] ?? '';
}

function hidden(routes: readonly RouteSettings[], ofContainers: readonly Route[]): readonly LintFinding[] {
  if (ofContainers.length === 0) return [];
  const keys = new Map(ofContainers.map((route) => [routeKeyOf(route), route]));
  return routes.flatMap(({ match }) => {
    const { path = '/', methods, headers } = match;
    const route = keys.get(routeKeyOf({ path, methods, headers }));
    return route === undefined
      ? []
      : [{ at: routeName(match), message: `it hides the route of containers to ${route.serviceId}` }];
  });
}
