/** Tenants' own addresses, on which the Docker endpoint is reached as well: there their published ports are, and clients take the same host for both. */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { reasonOf } from '#errors';
import type { Log } from '#log';

export interface TenantListenersDeps {
  readonly log: Log;
  readonly port: number;
  readonly connectionsMax: number;
  readonly accept: (socket: Socket) => void;
}

export class TenantListeners implements Disposable {
  readonly #deps: TenantListenersDeps;
  readonly #servers = new Map<string, Server>();

  constructor(deps: TenantListenersDeps) {
    this.#deps = deps;
  }

  /** Listens on these addresses and on no others. One that cannot be had is logged: its tenant still has the main one. */
  async set(addresses: readonly string[]): Promise<void> {
    const wanted = new Set(addresses);
    for (const [address, server] of this.#servers) {
      if (wanted.has(address)) continue;
      this.#servers.delete(address);
      server.close(); // Requests under way go on.
    }
    await Promise.all(
      [...wanted].filter((address) => !this.#servers.has(address)).map(async (address) => await this.#open(address)),
    );
  }

  [Symbol.dispose](): void {
    for (const server of this.#servers.values()) server.close();
    this.#servers.clear();
  }

  async #open(address: string): Promise<void> {
    const { log, port } = this.#deps;
    const server = createServer({ noDelay: true }, this.#deps.accept);
    server.maxConnections = this.#deps.connectionsMax;
    this.#servers.set(address, server);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    server.on('error', (error) => {
      log.error({ address, port, reason: reasonOf(error) }, 'the Docker endpoint is not open on the address of a tenant');
      if (!server.listening && this.#servers.get(address) === server) this.#servers.delete(address);
      resolve(undefined);
    });
    server.listen(port, address, () => {
      resolve(undefined);
    });
    await promise;
  }
}
