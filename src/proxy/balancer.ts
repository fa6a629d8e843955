/** The turns and hashes of a worker's services, between requests: what the choices of `balance.ts` are told. */
import { hashText, leastRequest, randomTwo, rendezvous, roundRobin } from '#routing/balance.ts';
import type { Endpoint, Service, ServicePolicy } from '#routing/route-table.ts';

export class Balancer {
  readonly #inFlightOf: (endpointId: string) => number;
  /** Both by objects of the table: what a new table has anew begins anew, what is gone is forgotten. */
  readonly #credits = new WeakMap<Service, Map<string, number>>();
  readonly #hashes = new WeakMap<Endpoint, number>();
  #turn = 0;

  constructor(inFlightOf: (endpointId: string) => number) {
    this.#inFlightOf = inFlightOf;
  }

  least(candidates: readonly Endpoint[]): Endpoint | undefined {
    this.#turn += 1;
    return leastRequest(candidates, this.#inFlightOf, this.#turn);
  }

  /** `key`: the hash of what the request is told apart by; undefined: it has none, or its service does not hash. */
  choose(
    service: Service,
    policy: ServicePolicy,
    candidates: readonly Endpoint[],
    key: number | undefined,
  ): Endpoint | undefined {
    switch (policy.balance.kind) {
      case 'least-request':
        return this.least(candidates);
      case 'round-robin':
        return roundRobin(candidates, this.#creditsOf(service));
      case 'random-two':
        return randomTwo(candidates, this.#inFlightOf, Math.random);
      case 'hash-header':
      case 'hash-cookie':
      case 'hash-ip':
        return key === undefined ? this.least(candidates) : rendezvous(candidates, key, (endpoint) => this.#hashOf(endpoint));
    }
  }

  #creditsOf(service: Service): Map<string, number> {
    const known = this.#credits.get(service);
    if (known !== undefined) return known;
    const credits = new Map<string, number>();
    this.#credits.set(service, credits);
    return credits;
  }

  #hashOf(endpoint: Endpoint): number {
    const known = this.#hashes.get(endpoint);
    if (known !== undefined) return known;
    const hash = hashText(endpoint.id);
    this.#hashes.set(endpoint, hash);
    return hash;
  }
}
