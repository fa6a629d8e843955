/**
 * Sockets to tenants' own endpoints, for containers that mount `/var/run/docker.sock`. Who reaches such a socket is in a container of that tenant,
 * so it needs no certificate.
 *
 * DATA/sockets/TENANT/docker.sock is what containers mount. It is a mount itself, shared, over an empty file: a file that is mounted into a sandbox
 * stays the same one for ever, so after a crash of the node the new socket could not take the old one's place. It is mounted over it instead, and as
 * sandboxes' mounts follow (`rslave`), those that run see the new one.
 */
import { chmod, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { basename, join } from 'node:path';
import { once } from 'node:events';
import { runCommand, tryCommand } from '#command';
import { EcluseError, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import type { EndpointSockets } from '#caas/volumes/volumes.ts';

/** Takes over a connection of a tenant's container. */
export type AcceptConnection = (tenant: string, socket: Socket) => void;

/** What one tenant's containers may hold; each `logs -f` is one. */
const CONNECTIONS_PER_TENANT_MAX = 1000;
/** One for each crash of the node that the tenant's containers outlived. */
const LAYERS_MAX = 1000;

export class TenantSockets implements EndpointSockets, AsyncDisposable {
  readonly #log: Log;
  /** DATA/sockets. */
  readonly #folder: string;
  readonly #servers = new Map<string, Server>();
  readonly #locks = new KeyedLock();
  /** Connections that come before the endpoint is open wait for it. */
  readonly #endpoint = Promise.withResolvers<AcceptConnection>();

  constructor(deps: { readonly log: Log }, folder: string) {
    this.#log = deps.log;
    this.#folder = folder;
  }

  /** From now on connections are served. */
  attach(accept: AcceptConnection): void {
    this.#endpoint.resolve(accept);
  }

  /** At a start of the node: sockets of the tenants whose containers have them, before any is started again; leftovers of others go. */
  async reopen(tenants: ReadonlySet<string>): Promise<void> {
    for (const tenant of tenants) {
      await this.ensure(tenant).catch((error: unknown) => {
        this.#log.error({ tenant, reason: reasonOf(error) }, 'containers of a tenant do not reach its endpoint');
      });
    }
    for (const name of await readdir(this.#folder).catch(() => [])) {
      if (tenants.has(name)) continue;
      await this.forget(name).catch((error: unknown) => {
        this.#log.error({ tenant: name, reason: reasonOf(error) }, 'a leftover endpoint socket could not be cleared away');
      });
    }
  }

  async ensure(tenant: string): Promise<string> {
    return await this.#locks.run(tenant, async () => {
      const mounted = join(this.#folder, tenant, 'docker.sock');
      if (!this.#servers.has(tenant)) this.#servers.set(tenant, await this.#open(tenant, mounted));
      return mounted;
    });
  }

  async #open(tenant: string, mounted: string): Promise<Server> {
    const folder = join(this.#folder, tenant);
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      void this.#onConnection(tenant, socket);
    });
    server.maxConnections = CONNECTIONS_PER_TENANT_MAX;
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const names = new Set(await readdir(folder));
      if (!names.has('docker.sock')) await writeFile(mounted, '', { mode: 0o600 });
      // A new name each time: Linux mounts nothing over a file that was unlinked, as an earlier socket below it would be.
      let socketPath = join(folder, 's0');
      for (let layer = 1; names.has(basename(socketPath)); layer += 1) socketPath = join(folder, `s${String(layer)}`);
      server.listen(socketPath);
      await once(server, 'listening');
      await chmod(socketPath, 0o660);
      await runCommand('mount', ['--bind', socketPath, mounted]);
      await runCommand('mount', ['--make-shared', mounted]);
      return server;
    } catch (error) {
      server.close();
      throw new EcluseError({
        code: 'ECLUSE_SOCKET_FAILED',
        source: 'runtime',
        status: 503,
        message: `the endpoint socket of tenant ${tenant} in ${folder} cannot be opened: ${reasonOf(error)}`,
        mend: 'check the directory and that this process may mount',
        cause: error,
      });
    }
  }

  async #onConnection(tenant: string, socket: Socket): Promise<void> {
    socket.on('error', () => undefined); // A container that goes away; 'close' follows.
    const accept = await this.#endpoint.promise;
    if (socket.destroyed) return;
    accept(tenant, socket);
    socket.resume();
  }

  async forget(tenant: string): Promise<void> {
    await this.#locks.run(tenant, async () => {
      await this.#close(tenant);
      await rm(join(this.#folder, tenant), { recursive: true, force: true });
    });
  }

  async #close(tenant: string): Promise<void> {
    this.#servers.get(tenant)?.close(); // Its connections are the endpoint's, which ends them.
    this.#servers.delete(tenant);
    const mounted = join(this.#folder, tenant, 'docker.sock');
    for (let layer = 0; layer < LAYERS_MAX; layer += 1) {
      if ((await tryCommand('umount', ['--lazy', mounted])).exitCode !== 0) break; // Nothing is mounted any more.
    }
  }

  /** At the node's stop, when no container runs any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const tenant of this.#servers.keys())
      await this.#locks.run(tenant, async () => {
        await this.#close(tenant);
      });
    this.#log.debug({ folder: this.#folder }, 'endpoint sockets are closed');
  }
}
