/** A host: a Docker Engine with gVisor, its network and its cgroups, ready to take containers. */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import type { Cgroups } from '#isolation/cgroup.ts';
import { STATIC_ADDRESSES, staticAddressOf, tenantNetworkOf } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import type { MachineFacts } from '#isolation/cpu-features.ts';
import { closeHostNetwork, isHostNetworkOpen, openHostNetwork } from '#isolation/host-network.ts';
import { PacketFilter } from '#isolation/packet-filter.ts';
import type { HostPolicy } from '#isolation/packet-rules.ts';
import { RUNTIME_NAME, WRAPPER_FILE, writeRuntimeSettings } from '#isolation/runtime-settings.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { listHostNetworks, takeHostNetwork } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { EngineClient, EngineError } from '#caas/engine/engine-client.ts';
import { ManagedEngine } from '#caas/engine/managed-engine.ts';

export interface HostDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly cgroups: Cgroups;
  readonly runsc: RunscCapabilities;
  readonly machine: MachineFacts;
  /** Who may talk to whom on a host, by its name, as of now; undefined: nobody but builds, and only to the outside. */
  readonly readPolicy?: (host: string) => Promise<HostPolicy>;
}

export interface HostOptions {
  readonly name: string;
  /** `managed`, or `unix:///path/of/docker.sock`. */
  readonly engine: string;
  /** DATA/hosts/NAME. */
  readonly dir: string;
  readonly network: HostNetwork;
}

/** `execRoot` of a Docker that is not ours; dockerd does not tell it. */
const FOREIGN_EXEC_ROOT = '/var/run/docker';

const infoSchema = z.object({
  ServerVersion: z.string(),
  NCPU: z.number(),
  MemTotal: z.number(),
  Driver: z.string(),
  CgroupVersion: z.string().optional(),
  CgroupDriver: z.string().optional(),
  Runtimes: z.record(z.string(), z.object({ path: z.string().optional(), runtimeArgs: z.array(z.string()).nullish() })),
});
export type EngineInfo = z.infer<typeof infoSchema>;

/** The short id that tells one node's objects on a machine (cgroups, interfaces, tables) from another's: it follows the data directory. */
export function scopeOf(dataDir: string): string {
  return createHash('sha256').update(dataDir).digest('hex').slice(0, 6);
}

/** A tenant's network as its engine knows it. */
export interface EngineNetwork {
  readonly name: string;
  readonly gateway: string;
}

export class Host {
  readonly name: string;
  readonly engineKind: string;
  readonly client: EngineClient;
  readonly network: HostNetwork;
  readonly runtimeDir: string;
  readonly runscRoot: string;
  readonly cgroupPrefix: string;
  readonly cgroups: Cgroups;
  readonly runsc: RunscCapabilities;
  readonly machine: MachineFacts;
  readonly #managed: ManagedEngine | undefined;
  readonly #deps: HostDeps;
  /** By tenant: those that are known to be there. */
  readonly #networks = new Map<string, EngineNetwork>();
  readonly #networkLocks = new KeyedLock();
  readonly #filter: PacketFilter;

  private constructor(
    deps: HostDeps,
    options: HostOptions,
    engine: {
      readonly client: EngineClient;
      readonly managed: ManagedEngine | undefined;
      readonly runtimeDir: string;
      readonly runscRoot: string;
    },
  ) {
    this.#deps = deps;
    this.name = options.name;
    this.engineKind = options.engine;
    this.network = options.network;
    this.client = engine.client;
    this.#managed = engine.managed;
    this.runtimeDir = engine.runtimeDir;
    this.runscRoot = engine.runscRoot;
    this.#filter = new PacketFilter(deps.log, options.network, async () => await this.#policy());
    this.cgroupPrefix = cgroupPrefixOf(options);
    this.cgroups = deps.cgroups;
    this.runsc = deps.runsc;
    this.machine = deps.machine;
  }

  /** Where it fails, what it made on the machine is gone again; what an earlier daemon left running stays. */
  static async open(deps: HostDeps, options: HostOptions): Promise<Host> {
    const runtimeDir = join(options.dir, 'runsc');
    const foreign = options.engine === 'managed' ? undefined : new EngineClient(options.engine.slice('unix://'.length));
    if (foreign !== undefined) await checkForeignEngine(foreign, options, runtimeDir);
    const wasOpen = await isHostNetworkOpen(options.network);
    try {
      await openHostNetwork(options.network);
      await mkdir(runtimeDir, { recursive: true, mode: 0o700 });
      await writeRuntimeSettings(runtimeDir, deps.runsc, cgroupPrefixOf(options));
      if (foreign !== undefined) {
        const runscRoot = join(FOREIGN_EXEC_ROOT, 'runtime-runc', 'moby');
        const host = new Host(deps, options, { client: foreign, managed: undefined, runtimeDir, runscRoot });
        await host.#begin();
        return host;
      }
      const managed = await ManagedEngine.open(deps, {
        host: options.name,
        dir: options.dir,
        network: options.network,
        cgroupPrefix: cgroupPrefixOf(options),
      });
      const host = new Host(deps, options, { client: managed.client, managed, runtimeDir, runscRoot: managed.runscRoot });
      await host.#begin();
      return host;
    } catch (error) {
      if (!wasOpen) await closeHostNetwork(options.network, options.engine === 'managed' ? 'with-bridges' : 'rules-only');
      throw error;
    }
  }

  async #begin(): Promise<void> {
    await this.refreshRules();
    await this.cgroups.weigh(this.cgroupPrefix, availableParallelism());
  }

  get isManaged(): boolean {
    return this.#managed !== undefined;
  }

  /** What the engine says of itself. */
  async info(): Promise<EngineInfo> {
    const { json } = await this.client.call({ method: 'GET', path: ['info'] });
    return infoSchema.parse(json);
  }

  /** The parent cgroup of a container: its CPU counter outlives the container. */
  cgroupOf(tenant: string, containerId: string): string {
    return `${this.cgroupPrefix}/${tenant}/${containerId}`;
  }

  /** The number of the tenant's network on this host, taken on first use. */
  async tenantNumber(tenant: string): Promise<number> {
    const number = await takeHostNetwork(this.#deps.sql, this.name, tenant);
    if (number !== undefined) return number;
    throw new EcluseError({
      code: 'ECLUSE_NETWORK_EXHAUSTED',
      source: 'runtime',
      status: 503,
      message: `host ${this.name} has no network number left for tenant ${tenant}`,
      mend: 'add a host or remove unused tenants',
    });
  }

  /** The subnet that the tenant's containers on this host are in. */
  async subnetOf(tenant: string): Promise<{ readonly subnet: string; readonly gateway: string }> {
    const { subnet, gateway } = tenantNetworkOf(this.network, await this.tenantNumber(tenant));
    return { subnet, gateway };
  }

  /** The lowest address of the tenant's network that is not taken; undefined: all are. */
  async freeAddress(tenant: string, taken: ReadonlySet<string>): Promise<string | undefined> {
    const number = await this.tenantNumber(tenant);
    for (let position = 0; position < STATIC_ADDRESSES; position += 1) {
      const address = staticAddressOf(this.network, number, position);
      if (!taken.has(address)) return address;
    }
    return undefined;
  }

  /** The tenant's network on this engine, made on first use. */
  async ensureTenantNetwork(tenant: string): Promise<EngineNetwork> {
    const known = this.#networks.get(tenant);
    if (known !== undefined) return known;
    return await this.#networkLocks.run(tenant, async () => {
      const made = this.#networks.get(tenant) ?? (await this.#makeTenantNetwork(tenant));
      this.#networks.set(tenant, made);
      return made;
    });
  }

  /** A tenant that is gone leaves no bridge behind. What is still on it keeps it; a later start of the engine has it then. */
  async dropTenantNetwork(tenant: string): Promise<void> {
    this.#networks.delete(tenant);
    try {
      await this.client.call({ method: 'DELETE', path: ['networks', `ecluse-${this.network.scope}-${tenant}`] });
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      if (error.status !== 404) this.#deps.log.warn({ host: this.name, tenant, reason: error.message }, 'a network stays');
    }
  }

  async #makeTenantNetwork(tenant: string): Promise<EngineNetwork> {
    const name = `ecluse-${this.network.scope}-${tenant}`;
    const { bridge, subnet, gateway, dynamicRange } = tenantNetworkOf(this.network, await this.tenantNumber(tenant));
    try {
      await this.client.call({ method: 'GET', path: ['networks', name] });
      return { name, gateway };
    } catch (error) {
      if (!(error instanceof EngineError && error.status === 404)) throw error;
    }
    await this.client.call({
      method: 'POST',
      path: ['networks', 'create'],
      body: {
        Name: name,
        CheckDuplicate: true,
        Driver: 'bridge',
        IPAM: { Driver: 'default', Config: [{ Subnet: subnet, Gateway: gateway, IPRange: dynamicRange }] },
        Options: { 'com.docker.network.bridge.name': bridge },
      },
    });
    await this.refreshRules();
    return { name, gateway };
  }

  /** Brings the packet rules in step with who may talk to whom by now. On the way of every start, so it is short where little changed. */
  async refreshRules(): Promise<void> {
    await this.#filter.refresh();
  }

  async #policy(): Promise<HostPolicy> {
    if (this.#deps.readPolicy !== undefined) return await this.#deps.readPolicy(this.name);
    const numbers = await listHostNetworks(this.#deps.sql, this.name);
    const tenants = numbers.map(({ number }) => ({ tenantNumber: number, networks: [] }));
    return { octets: [this.network.octet], resolverPort: undefined, tenants };
  }

  /** Ends a managed engine and takes everything of this host off the machine but its data. Containers must be stopped. */
  async close(): Promise<void> {
    await this.#managed?.stop();
    await this.#managed?.[Symbol.asyncDispose]();
    this.client[Symbol.dispose]();
    await this.#endLeftovers();
    await this.#managed?.clearAway();
    // The bridges of an engine that is not ours belong to networks that it keeps.
    await closeHostNetwork(this.network, this.isManaged ? 'with-bridges' : 'rules-only');
    await this.#deps.cgroups.remove(this.cgroupPrefix);
    await this.#deps.cgroups.removeEmpty('/ecluse'); // Other nodes of this machine may have something in it.
  }

  /** Kills what still runs in this host's cgroups: sandboxes whose engine could not end them. */
  async #endLeftovers(): Promise<void> {
    for (const pid of await this.#deps.cgroups.processesIn(this.cgroupPrefix)) {
      this.#deps.log.warn({ host: this.name, pid }, 'a process was left in a container cgroup and is killed');
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself between the look and the kill.
      }
    }
  }

  /** Lets go without ending anything: containers and a managed engine go on. */
  async release(): Promise<void> {
    await this.#managed?.[Symbol.asyncDispose]();
    this.client[Symbol.dispose]();
  }
}

/** Where a node's host has its cgroups, also one that the node does not have any more. */
export function cgroupPrefixOf({
  name,
  network,
}: Pick<HostOptions, 'name'> & { readonly network: Pick<HostNetwork, 'scope'> }): string {
  return `/ecluse/${network.scope}-${name}`;
}

/** Says whether an engine that is not ours can be used, and what to add to it if not. */
async function checkForeignEngine(client: EngineClient, options: HostOptions, runtimeDir: string): Promise<void> {
  const { json } = await client.call({ method: 'GET', path: ['info'] });
  const info = infoSchema.parse(json);
  if (info.CgroupDriver !== undefined && info.CgroupDriver !== 'cgroupfs') {
    throw new EcluseError({
      code: 'ECLUSE_ENGINE_UNFIT',
      source: 'config',
      message: `the Docker engine ${options.engine} of host ${options.name} has the cgroup driver ${info.CgroupDriver}, under which use cannot be metered`,
      mend: 'set "exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json and restart docker, or use engine: managed',
    });
  }
  const runtime = info.Runtimes[RUNTIME_NAME];
  if (runtime?.path === WRAPPER_FILE && (runtime.runtimeArgs ?? []).includes(runtimeDir)) return;
  const entry = { runtimes: { [RUNTIME_NAME]: { path: WRAPPER_FILE, runtimeArgs: ['--ecluse-dir', runtimeDir] } } };
  throw new EcluseError({
    code: 'ECLUSE_ENGINE_UNFIT',
    source: 'config',
    message: `the Docker engine ${options.engine} of host ${options.name} does not have the runtime ${RUNTIME_NAME} that sandboxes containers`,
    mend: `merge ${JSON.stringify(entry)} into /etc/docker/daemon.json and restart docker, or use engine: managed`,
  });
}
