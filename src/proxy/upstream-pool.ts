/**
 * Idle connections to endpoints, one set per endpoint, generation and address. A retired set gives none out and keeps none: its
 * connections end with the requests on them.
 */
import { Agent } from 'node:http';
import type { Endpoint } from '#routing/route-table.ts';
import { UPSTREAM_CONNECTIONS_MAX, UPSTREAM_IDLE_MS, UPSTREAM_IDLE_SOCKETS_MAX } from './limits.ts';

interface Pooled {
  readonly endpointId: string;
  readonly agent: Agent;
}

export class UpstreamPool implements Disposable {
  readonly #pooled = new Map<string, Pooled>();

  agentFor(endpoint: Endpoint): Agent {
    const key = keyOf(endpoint);
    const known = this.#pooled.get(key);
    if (known !== undefined) return known.agent;
    // LIFO lets surplus connections grow idle and close.
    const agent = new Agent({
      keepAlive: true,
      scheduling: 'lifo',
      maxSockets: UPSTREAM_CONNECTIONS_MAX,
      maxFreeSockets: UPSTREAM_IDLE_SOCKETS_MAX,
      timeout: UPSTREAM_IDLE_MS,
    });
    this.#pooled.set(key, { endpointId: endpoint.id, agent });
    return agent;
  }

  /** Closes the idle connections of `endpointIds`; those in use close when their request ends. */
  retire(endpointIds: ReadonlySet<string>): void {
    this.#retireWhere((pooled) => endpointIds.has(pooled.endpointId));
  }

  /** Retires everything that is not one of `endpoints`. */
  keepOnly(endpoints: Iterable<Endpoint>): void {
    const keys = new Set<string>();
    for (const endpoint of endpoints) keys.add(keyOf(endpoint));
    this.#retireWhere((_pooled, key) => !keys.has(key));
  }

  [Symbol.dispose](): void {
    for (const { agent } of this.#pooled.values()) agent.destroy();
    this.#pooled.clear();
  }

  #retireWhere(chosen: (pooled: Pooled, key: string) => boolean): void {
    for (const [key, pooled] of this.#pooled) {
      if (!chosen(pooled, key)) continue;
      this.#pooled.delete(key);
      pooled.agent.maxFreeSockets = 0;
      for (const sockets of Object.values(pooled.agent.freeSockets)) {
        for (const socket of sockets ?? []) socket.destroy();
      }
    }
  }
}

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.id} ${String(endpoint.generation)} ${endpoint.address} ${String(endpoint.port)}`;
}
