/**
 * The containers of all tenants: made, started, stopped and removed through here, and kept in step with what engines say.
 *
 * INVARIANT: whatever changes a container holds the lock of its virtual id, migrations included; so an operation never meets a container
 * that is half on two hosts. Reading and streaming take no lock.
 */
import { randomBytes, randomInt } from 'node:crypto';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import { forgetFinalCounters, RUNTIME_NAME } from '#isolation/runtime-settings.ts';
import type { Activator } from '#routing/activator.ts';
import {
  bindEngine,
  deleteContainer,
  findByEngineId,
  findByIdPrefix,
  findByName,
  findContainer,
  insertContainer,
  listContainers,
  listContainersOf,
  renameContainer,
  updateLife,
} from '#state/containers.ts';
import type { ContainerLife, ContainerRow, ContainerState } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';
import { inventName, isContainerName } from './container-name.ts';
import { engineCreateBody, parseCreate, parseStoredSpec } from './container-spec.ts';
import type { ContainerSpec } from './container-spec.ts';
import { dockerError, noSuchContainer, noSuchImage } from './docker-api/docker-error.ts';
import { createdSchema, engineTimeMs, inspectSchema, tcpPortsOf } from './engine-answers.ts';
import type { EngineInspect } from './engine-answers.ts';
import { EngineError } from './engine-client.ts';
import type { EngineCall } from './engine-client.ts';
import type { Events } from './events.ts';
import type { Host } from './host.ts';
import type { Images } from './images.ts';
import type { Meter } from './meter.ts';
import { clashingHost, wantedRoutes } from './routes.ts';

export interface ContainersDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly events: Events;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly domain: string;
}

export interface CreateRequest {
  readonly tenant: Tenant;
  readonly name: string | undefined;
  readonly body: unknown;
}

const INVENT_ATTEMPTS_MAX = 10;
const STATES: readonly ContainerState[] = ['created', 'running', 'paused', 'restarting', 'exited', 'dead'];

function stateOf(status: string): ContainerState {
  return STATES.find((known) => known === status) ?? 'dead'; // `removing` is on its way there.
}

/** What an engine's inspect says about a container's life, with the start time that a migration carried along. Pure. */
export function lifeOf(inspect: EngineInspect, row: ContainerRow): ContainerLife {
  const carried = row.carriedStart !== '' && row.carriedStart === inspect.State.StartedAt;
  const [network] = Object.values(inspect.NetworkSettings.Networks ?? {});
  const state = stateOf(inspect.State.Status);
  return {
    state,
    startedMs: carried ? row.startedMs : engineTimeMs(inspect.State.StartedAt),
    finishedMs: engineTimeMs(inspect.State.FinishedAt),
    restartCount: carried ? row.restartCount : inspect.RestartCount,
    address: state === 'running' || state === 'paused' ? (network?.IPAddress ?? '') : '',
  };
}

export class Containers {
  readonly #deps: ContainersDeps;
  /** By virtual id: see the invariant above. */
  readonly locks = new KeyedLock();
  readonly #tenantLocks = new KeyedLock();

  constructor(deps: ContainersDeps) {
    this.#deps = deps;
  }

  /** The host of a container; an error where it is not part of this node any more. */
  hostOf(row: ContainerRow): Host {
    const host = this.#deps.hosts.get(row.host);
    if (host === undefined) {
      throw new EcluseError({
        code: 'ECLUSE_HOST_UNKNOWN',
        source: 'config',
        status: 503,
        message: `container ${row.name} is on host ${row.host}, which this node does not have`,
        mend: 'add the host to the configuration again',
      });
    }
    return host;
  }

  /** Id, then name, then id prefix: Docker's order, within the tenant. */
  async resolve(tenant: string, reference: string): Promise<ContainerRow> {
    const name = reference.replace(/^\//, '');
    const isHex = /^[0-9a-f]{1,64}$/.test(reference);
    const byId = isHex && reference.length === 64 ? await findContainer(this.#deps.sql, reference) : undefined;
    if (byId?.tenant === tenant && byId.state !== 'creating') return byId;
    const byName = await findByName(this.#deps.sql, tenant, name);
    if (byName !== undefined && byName.state !== 'creating') return byName;
    if (!isHex) throw noSuchContainer(reference);
    const found = await findByIdPrefix(this.#deps.sql, tenant, reference);
    const [first, second] = found.filter((row) => row.state !== 'creating');
    if (second !== undefined) throw dockerError(400, `Multiple IDs found with provided prefix: ${reference}`);
    if (first === undefined) throw noSuchContainer(reference);
    return first;
  }

  async list(): Promise<readonly ContainerRow[]> {
    return await listContainers(this.#deps.sql);
  }

  async listOf(tenant: string): Promise<readonly ContainerRow[]> {
    return (await listContainersOf(this.#deps.sql, tenant)).filter((row) => row.state !== 'creating');
  }

  async find(id: string): Promise<ContainerRow | undefined> {
    return await findContainer(this.#deps.sql, id);
  }

  /** The engine's view; undefined where the engine does not know it (any more). */
  async inspect(row: ContainerRow): Promise<EngineInspect | undefined> {
    if (row.engineId === '') return undefined;
    try {
      const { json } = await this.hostOf(row).client.call({ method: 'GET', path: ['containers', row.engineId, 'json'] });
      return inspectSchema.parse(json);
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** `docker create`. Errors are Docker's. Nothing is left behind by a failed one. */
  async create(request: CreateRequest): Promise<{ readonly id: string; readonly warnings: readonly string[] }> {
    const parsed = parseCreate(request.body);
    if (parsed.kind === 'refused') throw dockerError(parsed.status, `ecluse: ${parsed.reason}`);
    const { tenant } = request;
    const reference = parsed.spec.config.Image;
    const image = await this.#deps.images.find(tenant.name, reference);
    if (image === undefined) throw noSuchImage(/[:@]/.test(reference) ? reference : `${reference}:latest`);
    const known = await this.#deps.images.inspect(image.imageId);
    if (known === undefined) throw noSuchImage(reference);
    if (Object.keys(known.Config?.Volumes ?? {}).length > 0) {
      throw dockerError(501, `ecluse: image ${reference} declares volumes, and volumes are not implemented yet`);
    }
    const tcpPorts = tcpPortsOf({ ...known.Config?.ExposedPorts, ...parsed.spec.config.ExposedPorts });
    const spec: ContainerSpec = { ...parsed.spec, imageId: image.imageId, tcpPorts };
    const row = await this.#tenantLocks.run(tenant.name, async () => await this.#reserve(request, spec, parsed.memoryBytes));
    try {
      await this.#makeOn(this.hostOf(row), row, spec);
    } catch (error) {
      await deleteContainer(this.#deps.sql, row, this.#deps.clock.nowMs());
      throw error;
    }
    await this.sync(row.id);
    return { id: row.id, warnings: parsed.warnings };
  }

  /** Checks name, routes and quota, and takes the place in the store. */
  async #reserve(request: CreateRequest, spec: ContainerSpec, memoryBytes: number): Promise<ContainerRow> {
    const { tenant } = request;
    const all = await this.list();
    const mine = all.filter((row) => row.tenant === tenant.name);
    if (mine.length >= tenant.quota.containersMax) {
      throw dockerError(
        403,
        `ecluse: tenant ${tenant.name} has ${String(mine.length)} containers, its quota is ${String(tenant.quota.containersMax)}`,
      );
    }
    const memorySum = mine.reduce((sum, row) => sum + row.memoryBytes, memoryBytes);
    if (memorySum > tenant.quota.memoryBytesMax) {
      throw dockerError(
        403,
        `ecluse: the memory limits of tenant ${tenant.name} would add up to ${String(memorySum)} bytes, its quota is ${String(tenant.quota.memoryBytesMax)}; set a smaller one with --memory`,
      );
    }
    const name = this.#nameFor(request, mine);
    await this.#checkRoutes(name, spec, tenant, all);
    const row: ContainerRow = {
      id: randomBytes(32).toString('hex'),
      tenant: tenant.name,
      name,
      host: this.#place(all).name,
      engineId: '',
      incarnation: 1,
      state: 'creating',
      createdMs: this.#deps.clock.nowMs(),
      startedMs: undefined,
      finishedMs: undefined,
      restartCount: 0,
      address: '',
      resume: false,
      carriedStart: '',
      memoryBytes,
      lanAddress: '',
      placement: '',
      spec: JSON.stringify(spec),
    };
    if ((await insertContainer(this.#deps.sql, row)).kind === 'conflict') throw nameTaken(name, 'another container');
    return row;
  }

  #nameFor(request: CreateRequest, mine: readonly ContainerRow[]): string {
    const taken = new Map(mine.map((row) => [row.name, row.id]));
    if (request.name !== undefined && request.name !== '') {
      const name = request.name.replace(/^\//, '');
      if (!isContainerName(name)) {
        throw dockerError(
          400,
          `Invalid container name (${request.name.slice(0, 130)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
        );
      }
      const holder = taken.get(name);
      if (holder !== undefined) throw nameTaken(name, `container "${holder}"`);
      return name;
    }
    for (let attempt = 0; attempt < INVENT_ATTEMPTS_MAX; attempt += 1) {
      const name = inventName(randomInt, attempt);
      if (!taken.has(name)) return name;
    }
    return randomBytes(8).toString('hex');
  }

  async #checkRoutes(name: string, spec: ContainerSpec, tenant: Tenant, all: readonly ContainerRow[]): Promise<void> {
    const wanted = wantedRoutes(name, spec, tenant, this.#deps.domain);
    if (wanted.kind === 'refused') throw dockerError(400, `ecluse: ${wanted.reason}`);
    const tenants = new Map((await listTenants(this.#deps.sql)).map((other) => [other.name, other]));
    const others = all.filter((row) => row.tenant !== tenant.name).map((row) => ({ row, spec: parseStoredSpec(row.spec) }));
    const clash = clashingHost(wanted.routes, others, tenants, this.#deps.domain);
    if (clash !== undefined)
      throw dockerError(
        409,
        `ecluse: the host name ${clash} is in use by another tenant; choose another with --label ecluse.http.host`,
      );
  }

  /** The host with the fewest containers; the first in order where several have as few. */
  #place(all: readonly ContainerRow[]): Host {
    const loads = [...this.#deps.hosts.values()].map((host) => ({
      host,
      load: all.filter((row) => row.host === host.name).length,
    }));
    const [best] = loads.toSorted((one, other) => one.load - other.load);
    if (best === undefined) throw dockerError(503, 'ecluse: there is no host to place the container on');
    return best.host;
  }

  /** The engine's name for a container: derived, so that a half-made one is found again after a crash. */
  engineNameOf(host: Host, id: string): string {
    return `ecluse-${host.network.scope}-${id.slice(0, 16)}`;
  }

  /** Makes the engine container of `row` on a host; image and network are brought there first. Returns the engine's id. */
  async makeEngineContainer(host: Host, row: ContainerRow, spec: ContainerSpec): Promise<string> {
    await this.#deps.images.ensureOn(host, spec.imageId);
    const network = spec.hostConfig.NetworkMode === 'none' ? undefined : await host.ensureTenantNetwork(row.tenant);
    const body = engineCreateBody(spec, {
      runtime: RUNTIME_NAME,
      cgroupParent: host.cgroupOf(row.tenant, row.id),
      network,
      hostname: row.id.slice(0, 12),
      memoryBytes: row.memoryBytes,
    });
    const { json } = await host.client.call({
      method: 'POST',
      path: ['containers', 'create'],
      query: { name: this.engineNameOf(host, row.id) },
      body,
    });
    return createdSchema.parse(json).Id;
  }

  async #makeOn(host: Host, row: ContainerRow, spec: ContainerSpec): Promise<void> {
    const engineId = await this.makeEngineContainer(host, row, spec);
    if ((await bindEngine(this.#deps.sql, row.id, engineId)).kind === 'conflict') {
      throw new EcluseError({
        code: 'ECLUSE_CONTAINER_GONE',
        source: 'internal',
        message: `container ${row.id} went while it was made`,
      });
    }
    await this.#deps.meter.openIncarnation(
      await this.#deps.meter.startingPoint({
        container: row.id,
        incarnation: row.incarnation,
        tenant: row.tenant,
        host: host.name,
        name: row.name,
        cgroup: host.cgroupOf(row.tenant, row.id),
      }),
    );
  }

  /** Runs one engine call on a container under its lock and takes over what it changed. 304 passes through as the status. */
  async operate(
    row: ContainerRow,
    call: Omit<EngineCall, 'path'> & { readonly verb: readonly string[] },
  ): Promise<{ readonly status: number; readonly json: unknown }> {
    return await this.locks.run(row.id, async () => {
      const current = await findContainer(this.#deps.sql, row.id);
      if (current === undefined) throw noSuchContainer(row.id);
      const { verb, ...rest } = call;
      try {
        return await this.hostOf(current).client.call({ ...rest, path: ['containers', current.engineId, ...verb] });
      } catch (error) {
        throw withVirtualNames(error, current);
      } finally {
        await this.#syncLocked(current.id);
      }
    });
  }

  /** `docker rm`. */
  async remove(row: ContainerRow, options: { readonly force: boolean }): Promise<void> {
    await this.locks.run(row.id, async () => {
      const current = await findContainer(this.#deps.sql, row.id);
      if (current === undefined) throw noSuchContainer(row.id);
      try {
        await this.hostOf(current).client.call({
          method: 'DELETE',
          path: ['containers', current.engineId],
          query: { force: options.force, v: true },
        });
      } catch (error) {
        // 404: its engine forgot it (--rm, or a lost disk); the store forgets it now.
        if (!(error instanceof EngineError && error.status === 404)) throw withVirtualNames(error, current);
      }
      await this.#finish(current);
    });
  }

  /** `docker rename`. The default host name follows the name, so it is checked like a new one. */
  async rename(tenant: Tenant, row: ContainerRow, name: string): Promise<void> {
    const bare = name.replace(/^\//, '');
    if (bare === '') throw dockerError(400, 'Neither old nor new names may be empty');
    if (bare === row.name) throw dockerError(400, 'Renaming a container with the same name as its current name');
    if (!isContainerName(bare)) {
      throw dockerError(400, `Invalid container name (${name.slice(0, 130)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
    }
    await this.#tenantLocks.run(tenant.name, async () => {
      await this.#checkRoutes(bare, parseStoredSpec(row.spec), tenant, await this.list());
      const holder = await findByName(this.#deps.sql, tenant.name, bare);
      if (holder !== undefined) throw nameTaken(bare, `container "${holder.id}"`);
      const outcome = await renameContainer(this.#deps.sql, row.id, bare);
      if (outcome.kind === 'conflict') throw nameTaken(bare, 'another container');
    });
    await this.#deps.activator.publish();
  }

  /** Closes the books of a container that is gone from its engine. */
  async #finish(row: ContainerRow): Promise<void> {
    await this.#deps.meter.close(row.id);
    await deleteContainer(this.#deps.sql, row, this.#deps.clock.nowMs());
    const host = this.hostOf(row);
    await host.cgroups.remove(host.cgroupOf(row.tenant, row.id));
    if (row.engineId !== '') await forgetFinalCounters(host.runtimeDir, row.engineId);
    await this.#deps.activator.publish();
  }

  /** Takes over what the engine says about a container. */
  async sync(id: string): Promise<void> {
    await this.locks.run(id, async () => {
      await this.#syncLocked(id);
    });
  }

  async #syncLocked(id: string): Promise<void> {
    const row = await findContainer(this.#deps.sql, id);
    if (row === undefined || row.state === 'creating') return;
    const inspect = await this.inspect(row);
    if (inspect === undefined) {
      if (parseStoredSpec(row.spec).hostConfig.AutoRemove) await this.#finish(row);
      else if (row.state !== 'lost') {
        this.#deps.log.error({ tenant: row.tenant, container: row.id, host: row.host }, 'the engine lost a container');
        await updateLife(this.#deps.sql, row, { ...row, state: 'lost', address: '' }, this.#deps.clock.nowMs());
        await this.#deps.activator.publish();
      }
      return;
    }
    const life = lifeOf(inspect, row);
    await updateLife(this.#deps.sql, row, life, this.#deps.clock.nowMs());
    if (life.state !== 'running' && row.state === 'running') await this.#deps.meter.flush(row.id);
    if (life.state !== row.state || life.address !== row.address) await this.#deps.activator.publish();
  }

  /** Reacts to an engine's event: only a mark that something changed, the truth is then asked for. */
  async onEngineEvent(engineId: string): Promise<void> {
    const row = await findByEngineId(this.#deps.sql, engineId);
    if (row !== undefined) await this.sync(row.id);
  }
}

function nameTaken(name: string, holder: string): EcluseError {
  return dockerError(
    409,
    `Conflict. The container name "/${name}" is already in use by ${holder}. You have to remove (or rename) that container to be able to reuse that name.`,
  );
}

/** Engine messages name the engine's id; the tenant knows the virtual one. */
export function withVirtualNames(error: unknown, row: ContainerRow): unknown {
  if (!(error instanceof EngineError)) return error;
  const message = error.message.replaceAll(row.engineId, row.id).replaceAll(/ecluse-[0-9a-f]{6}-[0-9a-f]{16}/g, row.name);
  return dockerError(error.status, message);
}
