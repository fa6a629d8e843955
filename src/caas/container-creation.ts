/** From a create request to a container: checked, named, given its networks, volumes, routes and host. What fails leaves nothing behind. */
import { randomBytes, randomInt } from 'node:crypto';
import type { Clock } from '#clock';
import { clashingHost, wantedRoutes } from './routes.ts';
import { deleteContainer, findByName, insertContainer, listContainers, renameContainer } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import { memberWrite } from '#state/networks.ts';
import type { Sql } from '#state/sql.ts';
import { listTenants } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';
import { inventName, isContainerName } from '#caas/spec/container-name.ts';
import { parseCreate, parseStoredSpec, SPEC_LIMITS } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Containers, Revive } from './containers.ts';
import { nameTaken } from './container-errors.ts';
import { dockerError, noSuchImage, refusedSpec } from './docker-api/docker-error.ts';
import { tcpPortsOf } from '#caas/engine/engine-answers.ts';
import type { EngineImage } from '#caas/engine/engine-answers.ts';
import type { HostLoads } from './host-loads.ts';
import type { Images } from '#caas/images/images.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import type { Networks } from '#caas/networks/networks.ts';
import { exposedKeys } from '#caas/spec/spec-ports.ts';
import { place } from './placement.ts';
import { MEMORY_MIN_LABEL, SCALE_OF_LABEL, scaleLabelsOf } from './scale/scale-labels.ts';
import { idleWishOf } from './sleep/sleep-check.ts';
import { snapshotProblemOf } from './snapshots/snapshot-check.ts';
import type { SaveDebts, Step } from './snapshots/save-debts.ts';
import type { PlacementRecord } from './placement.ts';
import type { MountSpec } from '#caas/spec/spec-mounts.ts';
import type { Realized, Volumes } from '#caas/volumes/volumes.ts';

export interface CreationDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly images: Images;
  readonly networks: Networks;
  readonly loads: HostLoads;
  readonly volumes: Volumes;
  readonly fabric: NetworkFabric;
  readonly debts: SaveDebts;
  /** As it is now. */
  readonly domain: () => string;
}

export interface CreateRequest {
  readonly tenant: Tenant;
  readonly name: string | undefined;
  readonly body: unknown;
  readonly severalNetworks: boolean;
}

export interface CopiesWish {
  readonly tenant: Tenant;
  readonly names: readonly string[];
  readonly spec: ContainerSpec;
}

/** A container in the store that is nothing yet. */
export interface ReservedCopy {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
}

const INVENT_ATTEMPTS_MAX = 10;
/** Every list, the other tenants' too, reads specifications from the store; most have two thousand characters. */
const SPEC_CHARS_MAX = 256 * 1024;

interface Draft {
  readonly request: CreateRequest;
  readonly spec: ContainerSpec;
  readonly memoryBytes: number;
  readonly image: EngineImage;
}

export class ContainerCreation {
  readonly #deps: CreationDeps;

  constructor(deps: CreationDeps) {
    this.#deps = deps;
  }

  /** `docker create`. Errors are Docker's. */
  async create(request: CreateRequest): Promise<{ readonly id: string; readonly warnings: readonly string[] }> {
    const parsed = parseCreate(request.body, { limits: SPEC_LIMITS, severalNetworks: request.severalNetworks });
    if (parsed.kind === 'refused') throw refusedSpec(parsed);
    const { tenant } = request;
    const reference = parsed.spec.config.Image;
    const image = await this.#deps.images.find(tenant.name, reference);
    const known = image === undefined ? undefined : await this.#deps.images.inspect(image.imageId);
    if (image === undefined || known === undefined) throw noSuchImage(/[:@]/.test(reference) ? reference : `${reference}:latest`);
    const tcpPorts = tcpPortsOf({ ...known.Config?.ExposedPorts, ...parsed.spec.config.ExposedPorts });
    const exposedPorts = exposedKeys(parsed.spec.ports, known.Config?.ExposedPorts, parsed.spec.config.ExposedPorts);
    const asked: ContainerSpec = { ...parsed.spec, imageId: image.imageId, tcpPorts, exposedPorts };
    const reason = idleProblemOf(asked) ?? scaleProblemOf(asked, parsed.memoryBytes) ?? snapshotProblemOf(asked);
    if (reason !== undefined) throw dockerError(400, `ecluse: ${reason}`);
    const spec = withMemoryLeast(asked, parsed.memoryBytes);
    const { row, mounts } = await this.#admit({ request, spec, memoryBytes: parsed.memoryBytes, image: known });
    await this.#make(row, { ...spec, mounts });
    this.#deps.containers.events.publish(row, 'create');
    return { id: row.id, warnings: parsed.warnings };
  }

  /**
   * Takes the places of further containers like one that exists: all of them, or none. Packet rules are written once for all. Each is to be made
   * (`makeCopy`) or given up (`giveUpCopy`).
   */
  async reserveCopies(like: ContainerRow, copies: CopiesWish): Promise<readonly ReservedCopy[]> {
    const { images, fabric } = this.#deps;
    const { tenant, names, spec } = copies;
    const image = await images.inspect(spec.imageId);
    if (image === undefined) throw noSuchImage(spec.config.Image);
    const reserved: ReservedCopy[] = [];
    try {
      for (const name of names) {
        const request = { tenant, name, body: undefined, severalNetworks: true };
        const { row, mounts } = await this.#admit({ request, spec, memoryBytes: like.memoryBytes, image });
        reserved.push({ row, spec: { ...spec, mounts } });
      }
      await fabric.refresh(tenant.name);
    } catch (error) {
      for (const copy of reserved) await this.giveUpCopy(copy);
      throw error;
    }
    return reserved;
  }

  /** One that was not made. */
  async giveUpCopy({ row }: ReservedCopy): Promise<void> {
    await this.#inDebt(row, [], async () => await this.#forget(row, undefined));
  }

  /**
   * Makes a copy that runs: `revive` starts it. Nobody hears of it before, and a daemon that dies meanwhile takes it away when it starts. Where that fails
   * nothing of it is left.
   */
  async makeCopy({ row, spec }: ReservedCopy, revive: Revive): Promise<void> {
    const { containers, clock } = this.#deps;
    containers.events.hush(row.id, clock.nowMs());
    try {
      await this.#make(row, spec, revive);
    } catch (error) {
      containers.events.forget(row.id);
      throw error;
    }
    containers.events.loud(row.id, clock.nowMs());
    containers.events.publish(row, 'create');
    await containers.news.tellStart(row);
  }

  async #admit(draft: Draft): Promise<{ readonly row: ContainerRow; readonly mounts: readonly MountSpec[] }> {
    return await this.#deps.containers.quotaLocks.run(draft.request.tenant.name, async () => await this.#reserve(draft));
  }

  /** The volumes and the engine container of a row that was just reserved. Where it fails, all of it is gone again. */
  async #make(row: ContainerRow, spec: ContainerSpec, revive?: Revive): Promise<void> {
    const { containers, volumes } = this.#deps;
    let realized: Realized | undefined;
    try {
      realized = await volumes.realize(row.tenant, containers.hostOf(row), spec.mounts);
      await containers.make(row, { spec, mounts: realized.engineMounts }, revive);
    } catch (error) {
      // One that may run must be gone before it is forgotten; of others its name is wanted again at once, and where their engine cannot be asked the next
      // start of the node takes them away.
      if (revive === undefined) await containers.unmake(row).catch(() => undefined);
      const steps = revive === undefined ? [] : [async () => await containers.unmake(row)];
      await this.#inDebt(row, steps, async () => await this.#forget(row, realized));
      throw error;
    }
  }

  async #inDebt(row: ContainerRow, steps: readonly Step[], last: Step): Promise<void> {
    const { containers, debts } = this.#deps;
    await containers.locks.run(row.id, async () => {
      await debts.take((await containers.find(row.id)) ?? row, steps, last);
    });
  }

  async #forget(row: ContainerRow, realized: Realized | undefined): Promise<void> {
    const { containers, volumes, sql, clock, fabric } = this.#deps;
    await deleteContainer(sql, (await containers.find(row.id)) ?? row, clock.nowMs());
    await fabric.refresh(row.tenant); // Its address is nobody's.
    if (realized !== undefined) await volumes.undo(row.tenant, realized);
  }

  /** Checks name, routes and quota, chooses the host, and takes the place in the store. */
  async #reserve(draft: Draft): Promise<{ readonly row: ContainerRow; readonly mounts: readonly MountSpec[] }> {
    const { clock, sql, containers, networks } = this.#deps;
    const { tenant } = draft.request;
    const all = await listContainers(sql);
    const mine = all.filter((row) => row.tenant === tenant.name);
    checkQuota(tenant, mine, draft);
    const name = this.#nameFor(draft.request, mine);
    await this.#checkRoutes(name, draft.spec, tenant, all);
    const id = randomBytes(32).toString('hex');
    const members = await networks.membershipsOf(tenant, draft.spec.networking, id);
    const resolve = async (reference: string): Promise<ContainerRow> => await containers.resolve(tenant.name, reference);
    const imageVolumes = Object.keys(draft.image.Config?.Volumes ?? {});
    const plan = await this.#deps.volumes.plan({ tenant, spec: draft.spec, imageVolumes, resolve });
    const record = await this.#place(draft, all, plan.hostName);
    const host = containers.hostNamed(record.host);
    const reserved: ContainerRow = {
      id,
      tenant: tenant.name,
      name,
      host: host.name,
      engineId: '',
      incarnation: 1,
      state: 'creating',
      createdMs: clock.nowMs(),
      startedMs: undefined,
      finishedMs: undefined,
      restartCount: 0,
      address: '',
      resume: false,
      carriedStart: '',
      memoryBytes: draft.memoryBytes,
      lanAddress: '',
      snapshot: '',
      placement: JSON.stringify(record),
      spec: JSON.stringify({ ...draft.spec, mounts: plan.mounts }),
    };
    if (reserved.spec.length > SPEC_CHARS_MAX) {
      throw dockerError(
        400,
        `ecluse: the container's configuration is longer than ${String(SPEC_CHARS_MAX)} characters; put large values into files`,
      );
    }
    const writes = members.map((member, position) => memberWrite(member, position));
    const insert = async (lanAddress: string): Promise<ContainerRow> => {
      const row = { ...reserved, lanAddress };
      if ((await insertContainer(sql, row, writes)).kind === 'conflict') throw nameTaken(name, 'another container');
      return row;
    };
    const hasNetwork = draft.spec.networking.mode !== 'none';
    const row = hasNetwork ? await containers.withFreeAddress(host, tenant.name, insert) : await insert('');
    return { row, mounts: plan.mounts };
  }

  async #place(draft: Draft, all: readonly ContainerRow[], volumeHost: string | undefined): Promise<PlacementRecord> {
    const { spec, memoryBytes, request } = draft;
    const facts = await this.#deps.loads.facts(all, { tenant: request.tenant.name, spec });
    const result = place(facts, { memoryBytes, volumeHost }, this.#deps.clock.nowMs());
    if (result.kind === 'placed') return result.record;
    // Hosts are the operator's: the tenant hears that there is no room, not where.
    this.#deps.loads.report(result.reasons);
    throw dockerError(503, 'ecluse: no host has room for this container now; set a smaller --memory or try again later');
  }

  #nameFor(request: CreateRequest, mine: readonly ContainerRow[]): string {
    const taken = new Map(mine.map((row) => [row.name, row.id]));
    if (request.name !== undefined && request.name !== '') {
      const name = checkedName(request.name);
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
    const wanted = wantedRoutes(name, spec, tenant, this.#deps.domain());
    if (wanted.kind === 'refused') throw dockerError(400, `ecluse: ${wanted.reason}`);
    if (wanted.routes.length === 0) return;
    const tenants = new Map((await listTenants(this.#deps.sql)).map((other) => [other.name, other]));
    const others = all.filter((row) => row.tenant !== tenant.name).map((row) => ({ row, spec: parseStoredSpec(row.spec) }));
    const clash = clashingHost(wanted.routes, others, tenants, this.#deps.domain());
    if (clash !== undefined)
      throw dockerError(
        409,
        `ecluse: the host name ${clash} is in use by another tenant; choose another with --label ecluse.http.host`,
      );
  }

  /** `docker rename`. The default host name follows the name, so it is checked like a new one. */
  async rename(tenant: Tenant, row: ContainerRow, name: string): Promise<void> {
    if (name === '') throw dockerError(400, 'Neither old nor new names may be empty');
    const bare = name.replace(/^\//, '');
    if (bare === row.name) throw dockerError(400, 'Renaming a container with the same name as its current name');
    checkedName(`/${bare}`, 'Error when allocating new name: ');
    await this.#deps.containers.quotaLocks.run(tenant.name, async () => {
      await this.#checkRoutes(bare, parseStoredSpec(row.spec), tenant, await listContainers(this.#deps.sql));
      const holder = await findByName(this.#deps.sql, tenant.name, bare);
      if (holder !== undefined) throw nameTaken(bare, `container "${holder.id}"`, 'Error when allocating new name: ');
      if ((await renameContainer(this.#deps.sql, row.id, bare)).kind === 'conflict') throw nameTaken(bare, 'another container');
    });
    await this.#deps.containers.renamed(row, bare);
  }
}

/** `before`: how Docker begins what it says where a container is renamed. */
function checkedName(name: string, before = ''): string {
  const bare = name.replace(/^\//, '');
  if (isContainerName(bare)) return bare;
  throw dockerError(400, `${before}Invalid container name (${name.slice(0, 130)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
}

/** Why the label `ecluse.idle` cannot be kept, or undefined: what sleeps is woken by who asks for it at the edge. */
function idleProblemOf(spec: ContainerSpec): string | undefined {
  const idle = idleWishOf(spec.config.Labels ?? {});
  if (idle.kind !== 'after') return idle.kind === 'invalid' ? idle.why : undefined;
  const isPublished = spec.publishAll || spec.ports.some(({ bindings }) => bindings.length > 0);
  if (isPublished || spec.tcpPorts.length > 0 || spec.config.Labels?.['ecluse.http.port'] !== undefined) return undefined;
  return 'label ecluse.idle: the container exposes no port, and what sleeps is woken by requests';
}

/** Why the labels of scaling cannot be kept, or undefined: what grows is what HTTP requests ask for, and copies of it must be possible. */
function scaleProblemOf(spec: ContainerSpec, memoryBytes: number): string | undefined {
  const labels = spec.config.Labels ?? {};
  for (const own of [SCALE_OF_LABEL, MEMORY_MIN_LABEL])
    if (labels[own] !== undefined) return `label ${own}: the node writes it; leave it away`;
  const reading = scaleLabelsOf(labels, memoryBytes);
  if (reading.kind === 'invalid') return reading.why;
  if (reading.labels.copies === undefined) return undefined;
  const why = copiesProblemOf(spec);
  return why === undefined ? undefined : `label ecluse.scale.max: ${why}`;
}

/** Why a container can have no copies (`Clones`), as far as its specification says. */
function copiesProblemOf(spec: ContainerSpec): string | undefined {
  if (spec.tcpPorts.length === 0 && spec.config.Labels?.['ecluse.http.port'] === undefined)
    return 'the container exposes no port, and copies are made for HTTP requests';
  if (spec.publishAll || spec.ports.some(({ bindings }) => bindings.length > 0))
    return 'the container publishes ports, and a port has one container; leave one of the two away';
  if (spec.hostConfig.AutoRemove) return 'a container that was started with --rm cannot be copied; start it without';
  if (spec.mounts.some((mount) => mount.kind === 'volume' && !mount.readOnly))
    return 'the container writes to a volume, and copies would overwrite each other there; mount it read-only';
  return undefined;
}

/** What a limit that was raised comes back to is written down where the limit itself is. */
function withMemoryLeast(spec: ContainerSpec, memoryBytes: number): ContainerSpec {
  const labels = spec.config.Labels ?? {};
  if (labels['ecluse.scale.memory.max'] === undefined) return spec;
  return { ...spec, config: { ...spec.config, Labels: { ...labels, [MEMORY_MIN_LABEL]: String(memoryBytes) } } };
}

function checkQuota(tenant: Tenant, mine: readonly ContainerRow[], { spec, memoryBytes }: Draft): void {
  const { quota } = tenant;
  if (mine.length >= quota.containersMax) {
    throw dockerError(
      403,
      `ecluse: tenant ${tenant.name} has ${String(mine.length)} containers, its quota is ${String(quota.containersMax)}`,
    );
  }
  const memorySum = mine.reduce((sum, row) => sum + row.memoryBytes, memoryBytes);
  if (memorySum > quota.memoryBytesMax) {
    throw dockerError(
      403,
      `ecluse: the memory limits of tenant ${tenant.name} would add up to ${String(memorySum)} bytes, its quota is ${String(quota.memoryBytesMax)}; set a smaller one with --memory`,
    );
  }
  if (quota.cpuMilliMax === 0) return;
  const cpuSum = mine.reduce((sum, row) => sum + cpuMilliOf(parseStoredSpec(row.spec)), cpuMilliOf(spec));
  if (cpuSum > quota.cpuMilliMax) {
    throw dockerError(
      403,
      `ecluse: the processors of tenant ${tenant.name}'s containers would add up to ${String(cpuSum / 1000)}, its quota is ${String(quota.cpuMilliMax / 1000)}; set fewer with --cpus`,
    );
  }
}

/** What `--cpus` promises, in thousandths of a processor. */
export function cpuMilliOf({ hostConfig }: ContainerSpec): number {
  if (hostConfig.NanoCpus > 0) return Math.ceil(hostConfig.NanoCpus / 1e6);
  return hostConfig.CpuQuota > 0 ? Math.ceil((hostConfig.CpuQuota / (hostConfig.CpuPeriod || 100_000)) * 1000) : 0;
}
