/** Operators' settings as routing takes them. Pure. */
import { parseBalance } from '#routing/balance.ts';
import type {
  Endpoint,
  HealthCheck,
  Route,
  Service,
  ServiceLimits,
  ServicePolicy,
  ServiceTimeouts,
} from '#routing/route-table.ts';
import { parseDurationMs } from '#units';
import { actionsOf } from './action-schema.ts';
import type { RouteSettings } from './schema.ts';
import { HEALTH_DEFAULTS, urlOf, weightOf } from './service-schema.ts';
import type { ServiceSettings } from './service-schema.ts';
import { endpointTlsOf, routeTlsOf } from './tls-schema.ts';
import type { ServiceTlsSettings } from './tls-schema.ts';

/** Whose traffic it is that goes to operators' own endpoints; no tenant can be called that. */
export const OPERATOR = '_operator';
const HTTP_PORT = 80;
const HTTPS_PORT = 443;

export function serviceIdOf(name: string): string {
  return `${OPERATOR}/${name}`;
}

/** The name and address, as they were written, of an endpoint that `serviceOf` made. */
export function writtenOf(serviceId: string, endpointId: string): { readonly service: string; readonly url: string } {
  return { service: serviceId.slice(OPERATOR.length + 1), url: endpointId.slice(serviceId.length + 1) };
}

export function serviceOf(name: string, settings: ServiceSettings): Service {
  const { endpoints, sendProxy, tls = {} } = settings;
  const policy = policyOf(settings);
  return {
    id: serviceIdOf(name),
    tenant: OPERATOR,
    endpoints: endpoints.map((endpoint) => endpointOf(name, urlOf(endpoint), { weight: weightOf(endpoint), tls })),
    ...(sendProxy === undefined ? {} : { sendProxy }),
    ...(policy === undefined ? {} : { policy }),
  };
}

/** `url` as the schema lets it through. What it is called does not change with its weight. */
function endpointOf(
  service: string,
  url: string,
  { weight, tls }: { readonly weight: number; readonly tls: ServiceTlsSettings },
): Endpoint {
  const { hostname, port, protocol } = new URL(url);
  const isSecure = protocol === 'https:';
  const address = hostname.replaceAll(/[[\]]/g, '');
  return {
    id: `${serviceIdOf(service)} ${url}`,
    address,
    port: port === '' ? (isSecure ? HTTPS_PORT : HTTP_PORT) : Number(port),
    hostName: '',
    generation: 1,
    ...(weight === 1 ? {} : { weight }),
    ...(isSecure ? { tls: endpointTlsOf(tls) } : {}),
  };
}

/** Undefined: it wants nothing that is not done anyway. */
function policyOf({ endpoints, balance, health, timeouts = {}, limits = {} }: ServiceSettings): ServicePolicy | undefined {
  const read = parseBalance(balance ?? 'least-request');
  const policy: ServicePolicy = {
    balance: read.kind === 'balance' ? read.balance : { kind: 'least-request' },
    ...(Object.keys(timeouts).length === 0 ? {} : { timeouts: timeoutsOf(timeouts) }),
    ...(Object.keys(limits).length === 0 ? {} : { limits: limitsOf(limits) }),
    ...(health === undefined ? {} : { health: healthOf(health) }),
  };
  const isPlain = policy.balance.kind === 'least-request' && endpoints.every((endpoint) => weightOf(endpoint) === 1);
  return isPlain && Object.keys(policy).length === 1 ? undefined : policy;
}

function timeoutsOf({ connect, firstByte, idle }: NonNullable<ServiceSettings['timeouts']>): ServiceTimeouts {
  return {
    ...(connect === undefined ? {} : { connectMs: parseDurationMs(connect) }),
    ...(firstByte === undefined ? {} : { firstByteMs: parseDurationMs(firstByte) }),
    ...(idle === undefined ? {} : { idleMs: parseDurationMs(idle) }),
  };
}

function healthOf(settings: NonNullable<ServiceSettings['health']>): HealthCheck {
  const { path, interval, timeout, unhealthyAfter, healthyAfter } = { ...HEALTH_DEFAULTS, ...settings };
  return { path, intervalMs: parseDurationMs(interval), timeoutMs: parseDurationMs(timeout), unhealthyAfter, healthyAfter };
}

function limitsOf({ hold, ...counts }: NonNullable<ServiceSettings['limits']>): ServiceLimits {
  return { ...counts, ...(hold === undefined ? {} : { holdMs: parseDurationMs(hold) }) };
}

export function routeOf(settings: RouteSettings): Route {
  const { match, split, service, actions, tls } = settings;
  const first = split?.[0]?.service ?? service;
  return {
    host: match.host,
    path: match.path ?? '/',
    ...(match.methods === undefined ? {} : { methods: match.methods }),
    ...(match.headers === undefined ? {} : { headers: match.headers }),
    serviceId: first === undefined ? '' : serviceIdOf(first),
    ...(first === undefined ? { tenant: OPERATOR } : {}),
    ...(actions === undefined ? {} : { actions: actionsOf(actions, serviceIdOf) }),
    ...(tls === undefined ? {} : { tls: routeTlsOf(tls) }),
    ...(split === undefined
      ? {}
      : { split: split.map((share) => ({ serviceId: serviceIdOf(share.service), weight: share.weight })) }),
  };
}
