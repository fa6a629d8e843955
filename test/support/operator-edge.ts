/** An edge with one service as operators write it, at host `app.test`. */
import type { RouteConfig } from '#routing/route-table.ts';
import { serviceIdOf, serviceOf } from '#routing/operator/compile-settings.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';

/** `wishes`: all of the service but `endpoints`, each of which is a port of the loopback or a port and its weight. */
export function serviceConfig(
  endpoints: readonly (number | readonly [port: number, weight: number])[],
  wishes: object = {},
  version = 1,
): RouteConfig {
  const settings = serviceSchema.parse({
    endpoints: endpoints.map((one) => (typeof one === 'number' ? urlOfPort(one) : { url: urlOfPort(one[0]), weight: one[1] })),
    ...wishes,
  });
  return {
    version,
    services: [serviceOf('shop', settings)],
    routes: [{ host: 'app.test', path: '/', serviceId: serviceIdOf('shop') }],
  };
}

export function urlOfPort(port: number): string {
  return `http://127.0.0.1:${String(port)}`;
}
