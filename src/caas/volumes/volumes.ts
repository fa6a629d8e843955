/**
 * Tenants' volumes: rows in the store, data in engine volumes on the host where a container first used them; containers that use them go there.
 *
 * INVARIANT: what changes a tenant's volumes holds that tenant's lock here, and a container's row is in the store before its volumes are realized;
 * so a volume that is used is never removed or moved.
 *
 * How many volumes a tenant has is limited, not how many bytes are in them: they are directories of the engines' file system, as the files of containers
 * are. A limit needs project quotas of that file system.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import { listContainers, listContainersOf } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { deleteVolume, findVolume, insertVolume, listAllVolumes, listVolumes, placeVolume } from '#state/volumes.ts';
import type { VolumeRow } from '#state/volumes.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import { parseVolumesFrom } from '#caas/spec/spec-mounts.ts';
import type { MountSpec, VolumeMount } from '#caas/spec/spec-mounts.ts';
import {
  copyVolume,
  engineVolumeOf,
  ensureEngineVolume,
  listEngineVolumes,
  removeEngineVolume,
  sizeOfVolume,
} from './volume-data.ts';
import { completeMounts, hostOfVolumes } from './volume-planning.ts';
import type { Donor, PlacedVolume } from './volume-planning.ts';

/** Volumes that were not looked at by then have an unknown size in `docker system df`. */
const USAGE_LIMIT_MS = 20_000;

export interface VolumesDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly events: Events;
  readonly sockets: EndpointSockets;
}

/** Gives out sockets to tenants' own endpoints. */
export interface EndpointSockets {
  /** The file that a container of the tenant mounts; the socket is open from here on. */
  ensure(tenant: string): Promise<string>;
  /** At a start of the node: those of these tenants are opened again, others are cleared away. */
  reopen(tenants: ReadonlySet<string>): Promise<void>;
  forget(tenant: string): Promise<void>;
}

export interface PlanRequest {
  readonly tenant: Tenant;
  readonly spec: Pick<ContainerSpec, 'mounts' | 'mountsAsked' | 'hostConfig'>;
  /** What the image declares. */
  readonly imageVolumes: readonly string[];
  /** A container of the tenant; throws Docker's 404. */
  readonly resolve: (reference: string) => Promise<ContainerRow>;
}

export interface VolumePlan {
  /** All of the container's, with names: for its stored specification. */
  readonly mounts: readonly MountSpec[];
  /** Where the container must be; undefined: anywhere. */
  readonly hostName: string | undefined;
}

export interface Realized {
  /** `HostConfig.Mounts` for the engine. */
  readonly engineMounts: readonly Readonly<Record<string, unknown>>[];
  /** Volumes that were made. */
  readonly made: readonly string[];
}

export interface VolumeUse {
  readonly row: VolumeRow;
  /** Ids of the containers that use it, in any state. */
  readonly users: readonly string[];
}

export interface VolumeWish {
  /** Empty: anonymous. */
  readonly name: string;
  /** Null: not given, which Docker shows otherwise than empty. */
  readonly labels: Readonly<Record<string, string>> | null;
  readonly options: Readonly<Record<string, string>> | null;
}

function nullIfEmpty(map: Readonly<Record<string, string>>): Readonly<Record<string, string>> | null {
  return Object.keys(map).length === 0 ? null : map;
}

function isVolume(mount: MountSpec): mount is VolumeMount {
  return mount.kind === 'volume';
}

export class Volumes {
  readonly #deps: VolumesDeps;
  readonly #locks = new KeyedLock();
  /** By tenant. */
  readonly #measuring = new KeyedLock();

  constructor(deps: VolumesDeps) {
    this.#deps = deps;
  }

  /** Which mounts a container will have and where it must be for them. Makes nothing. */
  async plan(request: PlanRequest): Promise<VolumePlan> {
    const { tenant, spec, imageVolumes } = request;
    const mounts = completeMounts(
      {
        donors: await this.#donorsOf(request),
        own: spec.mounts,
        declared: [...spec.mountsAsked.volumes, ...imageVolumes],
        tmpfs: Object.keys(spec.hostConfig.Tmpfs ?? {}),
      },
      inventVolumeName,
    );
    const names = new Set(mounts.filter(isVolume).map(({ name }) => name));
    if (names.size === 0) return { mounts, hostName: undefined };
    // A container that is being made has its row, and perhaps not its volumes: where it will be, they will be.
    const users = await this.#usersByName(tenant.name);
    const rows = new Map((await listVolumes(this.#deps.sql, tenant.name)).map((row) => [row.name, row]));
    const known = new Set([...users.keys(), ...rows.keys()]);
    checkQuota(tenant, known.size, [...names].filter((name) => !known.has(name)).length);
    const placed = [...names].map((name): PlacedVolume => {
      const using = users.get(name) ?? [];
      const host = rows.get(name)?.host ?? '';
      return { name, host: host === '' ? (using[0]?.host ?? '') : host, users: using.length };
    });
    const where = hostOfVolumes(placed);
    if (where.kind === 'apart') throw volumesApart(where.one, where.other);
    return { mounts, hostName: where.hostName };
  }

  async #donorsOf({ spec, resolve }: PlanRequest): Promise<readonly Donor[]> {
    const donors: Donor[] = [];
    for (const entry of spec.mountsAsked.volumesFrom) {
      const { container, readOnly } = parseVolumesFrom(entry);
      try {
        donors.push({ mounts: parseStoredSpec((await resolve(container)).spec).mounts, readOnly });
      } catch (error) {
        // Docker answers 400 here: a 404 would mean the image, which clients then pull.
        if (error instanceof EcluseError && error.status === 404) throw dockerError(400, error.message);
        throw error;
      }
    }
    return donors;
  }

  /** Runs `work` while no container of the tenant gets or loses a volume. */
  async exclusively<T>(tenant: string, work: () => Promise<T>): Promise<T> {
    return await this.#locks.run(tenant, work);
  }

  /** Makes what a container's mounts need on its host. What it made is gone again where it fails. */
  async realize(tenant: string, host: Host, mounts: readonly MountSpec[]): Promise<Realized> {
    if (mounts.length === 0) return { engineMounts: [], made: [] };
    return await this.#locks.run(tenant, async () => {
      const made: string[] = [];
      try {
        const engineMounts: Readonly<Record<string, unknown>>[] = [];
        for (const mount of mounts) engineMounts.push(await this.#engineMount(tenant, host, mount, made));
        for (const name of made) this.#publish(tenant, 'create', name);
        return { engineMounts, made };
      } catch (error) {
        for (const name of made) await this.#drop(tenant, name);
        throw error;
      }
    });
  }

  async #engineMount(tenant: string, host: Host, mount: MountSpec, made: string[]): Promise<Readonly<Record<string, unknown>>> {
    const { destination: Target, readOnly: ReadOnly } = mount;
    switch (mount.kind) {
      case 'volume': {
        const row = await this.#bring(tenant, host, mount, made);
        await ensureEngineVolume(host, row);
        const Source = engineVolumeOf(host, row);
        return { Type: 'volume', Source, Target, ReadOnly, VolumeOptions: { NoCopy: mount.noCopy } };
      }
      case 'tmpfs':
        return { Type: 'tmpfs', Target, ReadOnly, TmpfsOptions: { SizeBytes: mount.sizeBytes, Mode: mount.fileMode } };
      case 'endpoint-socket': {
        // A socket that is opened anew (after a crash of the node) is mounted over the old one, and that reaches sandboxes that run.
        const Source = await this.#deps.sockets.ensure(tenant);
        return { Type: 'bind', Source, Target, ReadOnly, BindOptions: { Propagation: 'rslave' } };
      }
    }
  }

  /** The volume's row, with its data on `host`. */
  async #bring(tenant: string, host: Host, mount: VolumeMount, made: string[]): Promise<VolumeRow> {
    const { sql } = this.#deps;
    const { name, anonymous, labels, options } = mount;
    const row = await findVolume(sql, tenant, name);
    if (row === undefined) {
      const wish = { name, labels: nullIfEmpty(labels), options: nullIfEmpty(options) };
      const fresh: VolumeRow = { ...this.#fresh(tenant, wish), host: host.name, anonymous };
      if ((await insertVolume(sql, fresh)).kind === 'conflict')
        throw new Error(`volume ${name} was made beside its tenant's lock`);
      made.push(name);
      return fresh;
    }
    if (row.host === host.name) return row;
    if (row.host !== '') await this.#move(row, host);
    if ((await placeVolume(sql, row, host.name)).kind === 'conflict')
      throw new Error(`volume ${name} moved beside its tenant's lock`);
    if (row.host !== '') await this.#removeData(row);
    return { ...row, host: host.name };
  }

  /** Copies a volume's data; it is there twice until the store says where it counts. */
  async #move(row: VolumeRow, to: Host): Promise<void> {
    const users = (await this.#usersOf(row.tenant, row.name)).filter((user) => user.host !== to.name);
    if (users.length > 0) throw volumesApart(row.name, 'the others');
    const from = this.#hostOf(row);
    if (!from.isManaged || !to.isManaged) {
      throw dockerError(
        409,
        `ecluse: volume ${row.name} cannot move to the container's host; use it in a container without the other volumes`,
      );
    }
    this.#deps.log.info({ tenant: row.tenant, volume: row.name, from: from.name, to: to.name }, 'a volume moves');
    await copyVolume(row, from, to);
  }

  #hostOf(row: VolumeRow): Host {
    const host = this.#deps.hosts.get(row.host);
    if (host !== undefined) return host;
    throw new EcluseError({
      code: 'ECLUSE_HOST_UNKNOWN',
      source: 'config',
      status: 503,
      message: `volume ${row.name} of tenant ${row.tenant} is on host ${row.host}, which this node does not have`,
      mend: 'add the host to the configuration again',
    });
  }

  #fresh(tenant: string, { name, labels, options }: VolumeWish): VolumeRow {
    const anonymous = name === '';
    return {
      tenant,
      name: anonymous ? inventVolumeName() : name,
      id: randomBytes(8).toString('hex'),
      host: '',
      createdMs: this.#deps.clock.nowMs(),
      anonymous,
      labels,
      options,
    };
  }

  #publish(tenant: string, action: string, name: string, attributes: Readonly<Record<string, string>> = {}): void {
    this.#deps.events.publish(tenant, 'volume', action, { id: name, attributes: { driver: 'local', ...attributes } });
  }

  /** Takes back what `realize` made. To be called when the container's row is gone. */
  async undo(tenant: string, realized: Realized): Promise<void> {
    await this.#dropUnused(tenant, realized.made);
  }

  /** `docker rm -v` and `--rm`. To be called when the container's row is gone. */
  async removeAnonymousOf(tenant: string, mounts: readonly MountSpec[]): Promise<void> {
    await this.#dropUnused(
      tenant,
      mounts.filter((mount) => isVolume(mount) && mount.anonymous).map((mount) => (isVolume(mount) ? mount.name : '')),
    );
  }

  async #dropUnused(tenant: string, names: readonly string[]): Promise<void> {
    if (names.length === 0) return;
    await this.#locks.run(tenant, async () => {
      for (const name of names) {
        if ((await this.#usersOf(tenant, name)).length > 0) continue;
        if (await this.#drop(tenant, name)) this.#publish(tenant, 'destroy', name);
      }
    });
  }

  /** Removes row and data. False: there was none. */
  async #drop(tenant: string, name: string): Promise<boolean> {
    const row = await findVolume(this.#deps.sql, tenant, name);
    if (row === undefined) return false;
    await deleteVolume(this.#deps.sql, row, this.#deps.clock.nowMs());
    await this.#removeData(row);
    return true;
  }

  /** Data that cannot be removed now is without a row, and goes at the next start. */
  async #removeData(row: VolumeRow): Promise<void> {
    const host = this.#deps.hosts.get(row.host);
    if (host === undefined) return;
    try {
      await removeEngineVolume(host, engineVolumeOf(host, row));
    } catch (error) {
      this.#deps.log.error({ host: host.name, volume: row.id, reason: reasonOf(error) }, 'data of a removed volume is left');
    }
  }

  /** The containers of a tenant, in any state, by the names of the volumes that they have. */
  async #usersByName(tenant: string): Promise<ReadonlyMap<string, readonly ContainerRow[]>> {
    const users = new Map<string, ContainerRow[]>();
    for (const row of await listContainersOf(this.#deps.sql, tenant)) {
      const { mounts } = parseStoredSpec(row.spec);
      const names = new Set(mounts.filter(isVolume).map(({ name }) => name));
      for (const name of names) users.set(name, [...(users.get(name) ?? []), row]);
    }
    return users;
  }

  async #usersOf(tenant: string, name: string): Promise<readonly ContainerRow[]> {
    return (await this.#usersByName(tenant)).get(name) ?? [];
  }

  /** Publishes that a container's volumes are in use from now on, or no more. */
  announce(row: ContainerRow, mounts: readonly MountSpec[], action: 'mount' | 'unmount'): void {
    for (const mount of mounts.filter(isVolume)) {
      const more = { destination: mount.destination, propagation: '', 'read/write': String(!mount.readOnly) };
      this.#publish(row.tenant, action, mount.name, { container: row.id, ...(action === 'mount' ? more : {}) });
    }
  }

  /** All volumes of a tenant, by name. */
  async list(tenant: string): Promise<readonly VolumeUse[]> {
    const users = await this.#usersByName(tenant);
    const rows = await listVolumes(this.#deps.sql, tenant);
    return rows.map((row) => ({ row, users: (users.get(row.name) ?? []).map(({ id }) => id) }));
  }

  async find(tenant: string, name: string): Promise<VolumeRow> {
    const row = await findVolume(this.#deps.sql, tenant, name);
    if (row === undefined) throw noSuchVolume(name);
    return row;
  }

  /** `docker volume create`. One that exists is returned as it is, as Docker does. */
  async create(tenant: Tenant, wish: VolumeWish): Promise<VolumeRow> {
    return await this.#locks.run(tenant.name, async () => {
      const known = wish.name === '' ? undefined : await findVolume(this.#deps.sql, tenant.name, wish.name);
      if (known !== undefined) return known;
      checkQuota(tenant, (await listVolumes(this.#deps.sql, tenant.name)).length, 1);
      const row = this.#fresh(tenant.name, wish);
      if ((await insertVolume(this.#deps.sql, row)).kind === 'conflict')
        throw new Error(`volume ${row.name} was made beside its tenant's lock`);
      this.#publish(tenant.name, 'create', row.name);
      return row;
    });
  }

  /** `docker volume rm`. */
  async remove(tenant: string, name: string, options: { readonly force: boolean }): Promise<void> {
    await this.#locks.run(tenant, async () => {
      if ((await findVolume(this.#deps.sql, tenant, name)) === undefined) {
        if (options.force) return;
        throw noSuchVolume(name);
      }
      const users = await this.#usersOf(tenant, name);
      if (users.length > 0)
        throw dockerError(409, `remove ${name}: volume is in use - [${users.map((row) => row.id).join(', ')}]`);
      if (await this.#drop(tenant, name)) this.#publish(tenant, 'destroy', name);
    });
  }

  /** `docker volume prune`. A tmpfs has nothing to be reclaimed, and stays, as in Docker. */
  async prune(tenant: string, isWanted: (row: VolumeRow) => boolean): Promise<{ deleted: readonly string[]; bytes: number }> {
    return await this.#locks.run(tenant, async () => {
      const deleted: string[] = [];
      let bytes = 0;
      for (const { row, users } of await this.list(tenant)) {
        if (users.length > 0 || Object.keys(row.options ?? {}).length > 0 || !isWanted(row)) continue;
        bytes += Math.max(0, await this.#sizeOf(row));
        if (!(await this.#drop(tenant, row.name))) continue;
        deleted.push(row.name);
        this.#publish(tenant, 'destroy', row.name);
      }
      this.#deps.events.publish(tenant, 'volume', 'prune', { id: '', attributes: { reclaimed: String(bytes) } });
      return { deleted, bytes };
    });
  }

  /** For `docker system df`. */
  async usage(
    tenant: string,
  ): Promise<readonly { readonly row: VolumeRow; readonly refCount: number; readonly sizeBytes: number }[]> {
    const uses = (await this.list(tenant)).filter(({ row }) => Object.keys(row.options ?? {}).length === 0);
    // One after the other, of all requests of the tenant: each is a walk through the files by a program of the machine.
    return await this.#measuring.run(tenant, async () => {
      const startMs = this.#deps.clock.monotonicMs();
      const measured: { readonly row: VolumeRow; readonly refCount: number; readonly sizeBytes: number }[] = [];
      for (const { row, users } of uses) {
        const isLate = this.#deps.clock.monotonicMs() - startMs > USAGE_LIMIT_MS;
        measured.push({ row, refCount: users.length, sizeBytes: isLate ? -1 : await this.#sizeOf(row) });
      }
      return measured;
    });
  }

  async #sizeOf(row: VolumeRow): Promise<number> {
    const host = this.#deps.hosts.get(row.host);
    if (host === undefined) return row.host === '' ? 0 : -1;
    return await sizeOfVolume(host, row).catch(() => -1); // Its host does not answer: unknown.
  }

  /** At a start of the node, before any container is started: sockets of the tenants whose containers have one. */
  async reopenSockets(): Promise<void> {
    const rows = await listContainers(this.#deps.sql);
    const withSocket = rows.filter((row) => parseStoredSpec(row.spec).mounts.some(({ kind }) => kind === 'endpoint-socket'));
    await this.#deps.sockets.reopen(new Set(withSocket.map((row) => row.tenant)));
  }

  /** Removes engine volumes of ours that no row places there: what a crash, or a host that was away, left. */
  async collectGarbage(host: Host): Promise<void> {
    const placed = (await listAllVolumes(this.#deps.sql)).filter((row) => row.host === host.name);
    const known = new Set(placed.map((row) => engineVolumeOf(host, row)));
    for (const name of await listEngineVolumes(host)) {
      if (known.has(name)) continue;
      this.#deps.log.warn({ host: host.name, volume: name }, 'a leftover volume is removed');
      await removeEngineVolume(host, name);
    }
  }

  /** Of a tenant that is removed nothing stays. It has no containers any more. */
  async forgetTenant(tenant: string): Promise<void> {
    await this.#locks.run(tenant, async () => {
      for (const row of await listVolumes(this.#deps.sql, tenant)) await this.#drop(tenant, row.name);
      await this.#deps.sockets.forget(tenant);
    });
  }
}

/** 64 hex digits, as Docker names volumes that have no name. */
function inventVolumeName(): string {
  return randomBytes(32).toString('hex');
}

function noSuchVolume(name: string): EcluseError {
  return dockerError(404, `get ${name}: no such volume`);
}

function checkQuota(tenant: Tenant, count: number, more: number): void {
  const { volumesMax } = tenant.quota;
  if (more === 0 || count + more <= volumesMax) return;
  throw dockerError(
    403,
    `ecluse: tenant ${tenant.name} has ${String(count)} volumes, its quota is ${String(volumesMax)}; remove some with docker volume prune`,
  );
}

function volumesApart(one: string, other: string): EcluseError {
  return dockerError(
    409,
    `ecluse: volumes ${one} and ${other} are on different hosts and containers use them, so one container cannot have both; remove the containers that use one of them and its data follows`,
  );
}
