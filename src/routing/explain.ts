/** Why a request goes where it goes: every route that could have had it, in the order in which they are asked, with its verdict. Pure. */
import { weightOf } from './balance.ts';
import { servicesOfRoute } from './compile.ts';
import { normaliseRequestHost } from './host-name.ts';
import { findRoute, levelsOf } from './match.ts';
import { hasPrefix, pathOf } from './path-prefix.ts';
import { locationOf, sentPath } from './rewritten-path.ts';
import type { PathPattern } from './path-pattern.ts';
import type { RequestFacts, RouteConditions } from './route-conditions.ts';
import type { RouteTls } from './route-tls.ts';
import type { CompiledRoute, Endpoint, Route, RouteTable } from './route-table.ts';

export interface Question {
  readonly host: string;
  /** The target of the request: path and query. */
  readonly target: string;
  readonly method: string;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface Candidate {
  readonly route: Route;
  readonly tenant: string;
  /** `taken`, or why it was not. */
  readonly verdict: string;
}

export interface Explanation {
  readonly version: number;
  /** As routes are asked for it. Undefined: it is no host, and every such request is refused with 400. */
  readonly host: string | undefined;
  readonly path: string;
  readonly route: Route | undefined;
  readonly tenant: string | undefined;
  readonly serviceId: string | undefined;
  readonly endpoints: readonly Endpoint[];
  /** What a client gets: which status, if no endpoint answers. */
  readonly outcome: string;
  /** The first of them, in the order in which they are asked. */
  readonly candidates: readonly Candidate[];
}

/** A host with a thousand routes is not read to its end. */
const CANDIDATES_MAX = 50;

/** `isUnhealthy`: what health checks found of an endpoint. */
export function explainRequest(
  table: RouteTable,
  { host: header, target, method, headers }: Question,
  isUnhealthy: (endpointId: string) => boolean = () => false,
): Explanation {
  const host = normaliseRequestHost(header);
  const path = pathOf(target);
  const base = { version: table.version, host, path };
  const nowhere = { route: undefined, tenant: undefined, serviceId: undefined, endpoints: [] };
  if (host === undefined) return { ...base, ...nowhere, outcome: `400: "${header.slice(0, 80)}" is no host`, candidates: [] };
  const facts: RequestFacts = { requestMethod: () => method, requestField: (name) => headers[name] };
  const found = findRoute(table, host, path, facts);
  const candidates: Candidate[] = [];
  for (const compiled of levelsOf(table, host).flat().slice(0, CANDIDATES_MAX)) {
    const verdict = verdictOf(compiled, { path, facts, found, isAfter: candidates.some((one) => one.verdict === 'taken') });
    candidates.push({ route: compiled.route, tenant: compiled.tenant, verdict });
  }
  if (found === undefined) return { ...base, ...nowhere, outcome: '404: no route is for it', candidates };
  const { route, tenant } = found;
  const endpoints = endpointsOf(table, route);
  const steps = [...gatesOf(route), answerOf(route, { host, target }) ?? outcomeOf(endpoints, isUnhealthy)];
  return { ...base, route, tenant, serviceId: route.serviceId, endpoints, outcome: steps.join(', then '), candidates };
}

/** What a request has to pass before it is answered. */
function gatesOf({ actions, tls }: Route): readonly string[] {
  const { rateLimit, auth } = actions ?? {};
  const limit = [
    ...clientGate(tls),
    ...(rateLimit === undefined ? [] : [`429 beyond ${String(rateLimit.requests)} requests in ${String(rateLimit.perMs)} ms`]),
  ];
  if (auth === undefined) return limit;
  return [...limit, auth.kind === 'basic' ? '401 without a password' : `allowed or answered by ${auth.serviceId}`];
}

/** Over plain HTTP nobody can be asked. */
function clientGate(tls: RouteTls | undefined): readonly string[] {
  const rule = tls?.clientCertificate;
  if (rule === undefined) return [];
  return rule.mode === 'optional'
    ? [`asked for a client certificate of ${rule.caBundle}, and let on without one`]
    : [`403 without a client certificate of ${rule.caBundle}, and over plain HTTP`];
}

/** Of a route that answers itself. */
function answerOf({ actions }: Route, { host, target }: { readonly host: string; readonly target: string }): string | undefined {
  const { redirect, respond, stripPrefix } = actions ?? {};
  if (respond !== undefined) return `${String(respond.status)}: the route answers itself`;
  if (redirect === undefined) return undefined;
  const [path = '', query] = target.split('?', 2);
  const facts = { host, path: sentPath(path, stripPrefix), query: query === undefined ? '' : `?${query}` };
  return `${String(redirect.status)} to ${locationOf(redirect.to, facts)}`;
}

/** All endpoints that a route may lead to. */
function endpointsOf(table: RouteTable, route: Route): readonly Endpoint[] {
  return servicesOfRoute(route).flatMap((id) => table.services.get(id)?.endpoints ?? []);
}

function outcomeOf(endpoints: readonly Endpoint[], isUnhealthy: (endpointId: string) => boolean): string {
  if (endpoints.length === 0) return '503: its service has no endpoint';
  const usable = endpoints.filter((endpoint) => weightOf(endpoint) > 0 && !isUnhealthy(endpoint.id));
  if (usable.length === 0) return '503: none of its endpoints is healthy';
  const awake = usable.filter(({ state }) => state !== 'asleep');
  if (awake.length === 0) return 'held until its endpoint is awake';
  return awake.length === 1 ? 'sent to its endpoint' : `sent to one of ${String(awake.length)} endpoints`;
}

function verdictOf(
  compiled: CompiledRoute,
  asked: {
    readonly path: string;
    readonly facts: RequestFacts;
    readonly found: CompiledRoute | undefined;
    readonly isAfter: boolean;
  },
): string {
  if (asked.found === compiled) return 'taken';
  const against = pathVerdict(compiled.pattern, asked.path) ?? conditionVerdict(compiled.conditions, asked.facts);
  return against ?? (asked.isAfter ? 'the one before it is asked first' : 'it is not asked');
}

function pathVerdict(pattern: PathPattern, path: string): string | undefined {
  switch (pattern.kind) {
    case 'exact':
      return path === pattern.path ? undefined : `the path is not ${pattern.path}`;
    case 'prefix':
      return hasPrefix(path, pattern.prefix) ? undefined : `the path is not below ${pattern.prefix}`;
    case 'expression':
      return pattern.test(path) ? undefined : `the expression ${pattern.source} is not in the path`;
  }
}

function conditionVerdict(conditions: RouteConditions | undefined, facts: RequestFacts): string | undefined {
  const { methods = [], fields = [] } = conditions ?? {};
  if (methods.length > 0 && !methods.includes(facts.requestMethod())) return `the method is not ${methods.join(' or ')}`;
  const field = fields.find(([name, value]) => facts.requestField(name) !== value);
  return field === undefined ? undefined : `the field ${field[0]} is not ${field[1]}`;
}
