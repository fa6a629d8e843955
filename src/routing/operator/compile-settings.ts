/** Operators' settings as routing takes them. Pure. */
import type { Endpoint, Route, Service } from '#routing/route-table.ts';
import { actionsOf } from './action-schema.ts';
import type { RouteSettings, ServiceSettings } from './schema.ts';

/** Whose traffic it is that goes to operators' own endpoints; no tenant can be called that. */
export const OPERATOR = '_operator';
const HTTP_PORT = 80;

export function serviceIdOf(name: string): string {
  return `${OPERATOR}/${name}`;
}

export function serviceOf(name: string, { endpoints, sendProxy }: ServiceSettings): Service {
  return {
    id: serviceIdOf(name),
    tenant: OPERATOR,
    endpoints: endpoints.map((url) => endpointOf(name, url)),
    ...(sendProxy === undefined ? {} : { sendProxy }),
  };
}

/** `url` as the schema lets it through. */
function endpointOf(service: string, url: string): Endpoint {
  const { hostname, port } = new URL(url);
  const address = hostname.replaceAll(/[[\]]/g, '');
  return {
    id: `${serviceIdOf(service)} ${url}`,
    address,
    port: port === '' ? HTTP_PORT : Number(port),
    hostName: '',
    generation: 1,
  };
}

export function routeOf(settings: RouteSettings): Route {
  const { match, split, service, actions } = settings;
  const first = split?.[0]?.service ?? service;
  return {
    host: match.host,
    path: match.path ?? '/',
    ...(match.methods === undefined ? {} : { methods: match.methods }),
    ...(match.headers === undefined ? {} : { headers: match.headers }),
    serviceId: first === undefined ? '' : serviceIdOf(first),
    ...(first === undefined ? { tenant: OPERATOR } : {}),
    ...(actions === undefined ? {} : { actions: actionsOf(actions, serviceIdOf) }),
    ...(split === undefined
      ? {}
      : { split: split.map((share) => ({ serviceId: serviceIdOf(share.service), weight: share.weight })) }),
  };
}
