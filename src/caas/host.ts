/** A host: a Docker Engine with gVisor, its network and its cgroups, ready to take containers. */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import type { Cgroups } from '#isolation/cgroup.ts';
import {
  applyHostRules,
  closeHostNetwork,
  isHostNetworkOpen,
  openHostNetwork,
  tenantNetworkOf,
} from '#isolation/host-network.ts';
import type { HostNetwork } from '#isolation/host-network.ts';
import { RUNTIME_NAME, WRAPPER_FILE, writeRuntimeSettings } from '#isolation/runtime-settings.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { listHostNetworks, takeHostNetwork } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { EngineClient, EngineError } from './engine-client.ts';
import { ManagedEngine } from './managed-engine.ts';

export interface HostDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly cgroups: Cgroups;
  readonly runsc: RunscCapabilities;
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
  readonly #managed: ManagedEngine | undefined;
  readonly #deps: HostDeps;

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
    this.cgroupPrefix = cgroupPrefixOf(options);
    this.cgroups = deps.cgroups;
    this.runsc = deps.runsc;
  }

  /** Where it fails, what it made on the machine is gone again; what an earlier daemon left running stays. */
  static async open(deps: HostDeps, options: HostOptions): Promise<Host> {
    const runtimeDir = join(options.dir, 'runsc');
    const foreign = options.engine === 'managed' ? undefined : new EngineClient(options.engine.slice('unix://'.length));
    if (foreign !== undefined) await checkForeignEngine(foreign, options, runtimeDir);
    const wasOpen = await isHostNetworkOpen(options.network);
    try {
      const numbers = await listHostNetworks(deps.sql, options.name);
      await openHostNetwork(
        options.network,
        numbers.map(({ number }) => tenantNetworkOf(options.network, number).bridge),
      );
      await mkdir(runtimeDir, { recursive: true, mode: 0o700 });
      await writeRuntimeSettings(runtimeDir, deps.runsc, cgroupPrefixOf(options));
      if (foreign !== undefined) {
        const runscRoot = join(FOREIGN_EXEC_ROOT, 'runtime-runc', 'moby');
        return new Host(deps, options, { client: foreign, managed: undefined, runtimeDir, runscRoot });
      }
      const managed = await ManagedEngine.open(deps, {
        host: options.name,
        dir: options.dir,
        network: options.network,
        cgroupPrefix: cgroupPrefixOf(options),
      });
      return new Host(deps, options, { client: managed.client, managed, runtimeDir, runscRoot: managed.runscRoot });
    } catch (error) {
      if (!wasOpen) await closeHostNetwork(options.network, options.engine === 'managed' ? 'with-bridges' : 'rules-only');
      throw error;
    }
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

  /** The tenant's network on this engine, made on first use. Returns its engine name. */
  async ensureTenantNetwork(tenant: string): Promise<string> {
    const name = `ecluse-${this.network.scope}-${tenant}`;
    try {
      await this.client.call({ method: 'GET', path: ['networks', name] });
      return name;
    } catch (error) {
      if (!(error instanceof EngineError && error.status === 404)) throw error;
    }
    const number = await takeHostNetwork(this.#deps.sql, this.name, tenant);
    if (number === undefined) {
      throw new EcluseError({
        code: 'ECLUSE_NETWORK_EXHAUSTED',
        source: 'runtime',
        status: 503,
        message: `host ${this.name} has no network number left for tenant ${tenant}`,
        mend: 'add a host or remove unused tenants',
      });
    }
    const { bridge, subnet, gateway } = tenantNetworkOf(this.network, number);
    await this.client.call({
      method: 'POST',
      path: ['networks', 'create'],
      body: {
        Name: name,
        CheckDuplicate: true,
        Driver: 'bridge',
        IPAM: { Driver: 'default', Config: [{ Subnet: subnet, Gateway: gateway }] },
        Options: { 'com.docker.network.bridge.name': bridge },
      },
    });
    await this.refreshRules();
    return name;
  }

  /** Writes the packet rules anew, with the bridges that exist by now. */
  async refreshRules(): Promise<void> {
    const numbers = await listHostNetworks(this.#deps.sql, this.name);
    await applyHostRules(
      this.network,
      numbers.map(({ number }) => tenantNetworkOf(this.network, number).bridge),
    );
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
    await this.#deps.cgroups.remove('/ecluse'); // Only if no other node of this machine has something in it: rmdir refuses otherwise.
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

function cgroupPrefixOf(options: HostOptions): string {
  return `/ecluse/${options.network.scope}-${options.name}`;
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
