/** Which endpoint of a service takes the next request. */
import type { Endpoint, Service } from './route-table.ts';

/**
 * The endpoint with the least requests in flight; where several have that, they take turns by `seedIndex`, a number that the
 * caller raises by one each time. Undefined where the service has none.
 */
export function pickEndpoint(
  service: Pick<Service, 'endpoints'>,
  inFlightOf: (endpointId: string) => number,
  seedIndex: number,
): Endpoint | undefined {
  const { endpoints } = service;
  if (endpoints.length <= 1) return endpoints[0];
  let least = Number.POSITIVE_INFINITY;
  let ties: Endpoint[] = [];
  for (const endpoint of endpoints) {
    const inFlight = inFlightOf(endpoint.id);
    if (inFlight < least) {
      least = inFlight;
      ties = [endpoint];
    } else if (inFlight === least) {
      ties.push(endpoint);
    }
  }
  return ties[seedIndex % ties.length];
}
