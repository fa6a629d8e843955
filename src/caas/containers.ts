/**
 * The containers of all tenants: made, started, stopped and removed through here, and kept in step with what engines say.
 *
 * INVARIANT: whatever changes a container holds the lock of its virtual id, migrations included; so an operation never meets a container
 * that is half on two hosts. Reading and streaming take no lock.
 */
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import { unstage } from '#isolation/held-restore.ts';
import { forgetFinalCounters, RUNTIME_NAME } from '#isolation/runtime-settings.ts';
import type { Activator } from '#routing/activator.ts';
import {
  bindEngine,
  containerEdition,
  deleteContainer,
  findByEngineId,
  findByIdPrefix,
  findByName,
  findContainer,
  listContainers,
  listContainersOf,
  updateLife,
} from '#state/containers.ts';
import type { ContainerLife, ContainerRow, ContainerState } from '#state/containers.ts';
import { openIncarnationWrite } from '#state/ledger.ts';
import { listLanContainers } from '#state/networks.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { withVirtualNames } from './container-errors.ts';
import { ContainerEvents } from './container-events.ts';
import { ContainerNews } from './container-news.ts';
import { lifeOf } from './container-life.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { dockerError, noSuchContainer } from './docker-api/docker-error.ts';
import { createdSchema, inspectSchema } from '#caas/engine/engine-answers.ts';
import type { EngineEvent, EngineInspect } from '#caas/engine/engine-answers.ts';
import { engineCreateBody } from '#caas/spec/engine-create-body.ts';
import type { EngineContainerWish } from '#caas/spec/engine-create-body.ts';
import { killSandbox, removeNamed } from '#caas/engine/engine-copy.ts';
import { bothDone } from '#caas/migration/both-done.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { EngineCall, Query } from '#caas/engine/engine-client.ts';
import type { Events } from './events.ts';
import type { Host } from './host.ts';
import { incarnationBaseOf } from './incarnation-base.ts';
import type { Images } from '#caas/images/images.ts';
import type { Meter } from './meter.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import type { Networks } from '#caas/networks/networks.ts';
import type { PublishedPorts } from '#caas/ports/published-ports.ts';
import type { Sleep } from '#caas/sleep/sleep.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';

export interface ContainersDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly events: Events;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly networks: Networks;
  readonly fabric: NetworkFabric;
  readonly ports: PublishedPorts;
  readonly volumes: Volumes;
  readonly sleep: Sleep;
}

/** A call on a container: its path below `/containers/{id}`. */
export type ContainerCall = Omit<EngineCall, 'path'> & { readonly verb: readonly string[] };

/** Starts a container that is bound to nothing yet; `row` has its engine id. Returns how it lives then. */
export type Revive = (row: ContainerRow) => Promise<ContainerLife>;

/** States in which a container holds its ports (`restarting`: its engine will start it again). */
const HOLDS_PORTS: ReadonlySet<ContainerState> = new Set(['running', 'paused', 'restarting']);

/** Calls that need a container as it was when it fell asleep. */
const WAKING: ReadonlySet<string> = new Set(['start', 'unpause', 'stop', 'kill']);

/** A program may be given ten minutes to end (`docker stop -t`, `StopTimeout`); then the engine still has to kill it. */
const STOP_LIMIT_MS = 660_000;

export class Containers {
  readonly #deps: ContainersDeps;
  /** By virtual id: see the invariant above. */
  readonly locks = new KeyedLock();
  /** By tenant: what a quota counts changes in turn. Taken behind a container's lock, or without one; never before it. */
  readonly quotaLocks = new KeyedLock();
  readonly #addressLocks = new KeyedLock();
  /** Engine containers that an engine is asked to stop, for as long as their programs take: a kill does not wait for that, as in Docker. */
  readonly #stopping = new Set<string>();
  #listed: { readonly edition: number; readonly rows: readonly ContainerRow[] } | undefined;
  readonly events: ContainerEvents;
  readonly news: ContainerNews;

  constructor(deps: ContainersDeps) {
    this.#deps = deps;
    this.events = new ContainerEvents(deps);
    this.news = new ContainerNews(deps, this.events);
  }

  /** A host by its name, which placement chose. */
  hostNamed(name: string): Host {
    const host = this.#deps.hosts.get(name);
    if (host === undefined) throw new Error(`host ${name} does not exist`);
    return host;
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

  /** Id, then name, then id prefix: Docker's order, within the tenant. Its engine can be asked about it from here on. */
  async resolve(tenant: string, reference: string): Promise<ContainerRow> {
    const row = await this.#resolve(tenant, reference);
    if (row.snapshot !== '') await this.#deps.sleep.settle(row.id);
    return row;
  }

  async #resolve(tenant: string, reference: string): Promise<ContainerRow> {
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

  /** PERF: watches ask each second, of all: a row is 10 µs, a look at whether any is another 5 µs for all of them. */
  async list(): Promise<readonly ContainerRow[]> {
    // Before the rows: what changes in between is read again the next time.
    const edition = await containerEdition(this.#deps.sql);
    if (this.#listed?.edition !== edition) this.#listed = { edition, rows: await listContainers(this.#deps.sql) };
    return this.#listed.rows;
  }

  async listOf(tenant: string): Promise<readonly ContainerRow[]> {
    return (await listContainersOf(this.#deps.sql, tenant)).filter((row) => row.state !== 'creating');
  }

  async find(id: string): Promise<ContainerRow | undefined> {
    return await findContainer(this.#deps.sql, id);
  }

  /** The engine's view; undefined where the engine does not know it (any more). */
  async inspect(row: ContainerRow): Promise<EngineInspect | undefined> {
    if (row.snapshot !== '') await this.#deps.sleep.settle(row.id);
    return await this.inspectEngine(row);
  }

  /** As `inspect`, where the caller knows that the engine is not starting it. */
  async inspectEngine(row: ContainerRow): Promise<EngineInspect | undefined> {
    if (row.engineId === '') return undefined;
    try {
      const { json } = await this.hostOf(row).client.call({ method: 'GET', path: ['containers', row.engineId, 'json'] });
      return inspectSchema.parse(json);
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Lets `take` write down the lowest free address of a tenant on a host. In turn: a create and a move must not both get it. */
  async withFreeAddress<T>(host: Host, tenant: string, take: (address: string) => Promise<T>): Promise<T> {
    return await this.#addressLocks.run(tenant, async () => {
      const taken = new Set((await listLanContainers(this.#deps.sql, tenant)).map(({ address }) => address));
      const address = await host.freeAddress(tenant, taken);
      if (address === undefined)
        throw dockerError(503, `ecluse: tenant ${tenant} has no network address left; remove containers`);
      return await take(address);
    });
  }

  /** The engine's name for a container: derived, so that a half-made one is found again after a crash. */
  engineNameOf(host: Host, id: string): string {
    return `ecluse-${host.network.scope}-${id.slice(0, 16)}`;
  }

  /** Makes the engine container of `row` on a host; image and network are brought there first. Returns the engine's id. */
  async makeEngineContainer(host: Host, row: ContainerRow, made: EngineContainerWish): Promise<string> {
    const { spec, mounts } = made;
    await this.#deps.images.ensureOn(host, spec.imageId);
    const network = row.lanAddress === '' ? undefined : await host.ensureTenantNetwork(row.tenant);
    const body = engineCreateBody(spec, {
      runtime: RUNTIME_NAME,
      cgroupParent: host.cgroupOf(row.tenant, row.id),
      network: network === undefined ? undefined : { ...network, address: row.lanAddress },
      hostname: row.id.slice(0, 12),
      memoryBytes: row.memoryBytes,
      mounts,
    });
    const { json } = await host.client.call({
      method: 'POST',
      path: ['containers', 'create'],
      query: { name: made.name ?? this.engineNameOf(host, row.id) },
      body,
    });
    return createdSchema.parse(json).Id;
  }

  /**
   * The engine container of a row that was just reserved, and its books. Its peers may talk to it from here on. `revive`: lets it run before anybody
   * hears of it, and before it is metered.
   */
  async make(row: ContainerRow, made: EngineContainerWish, revive?: Revive): Promise<void> {
    const host = this.hostOf(row);
    const making = this.makeEngineContainer(host, row, made);
    const refreshing = this.#deps.fabric.refresh(row.tenant);
    await Promise.allSettled([making, refreshing]); // Who undoes a failure of one must find the other done.
    await refreshing;
    const engineId = await making;
    const life = await revive?.({ ...row, engineId });
    const at = await this.#deps.meter.startingPoint(incarnationBaseOf(row, host));
    // In one batch: nothing runs that is not in the books.
    if ((await bindEngine(this.#deps.sql, row.id, engineId, { life, also: [openIncarnationWrite(at)] })).kind === 'conflict') {
      throw new EcluseError({
        code: 'ECLUSE_CONTAINER_GONE',
        source: 'internal',
        message: `container ${row.id} went while it was made`,
      });
    }
    this.#deps.meter.adopt(at);
  }

  /** Takes the engine container of a row away that was not made to its end, if there is one. */
  async unmake(row: ContainerRow): Promise<void> {
    const host = this.hostOf(row);
    await removeNamed(host, this.engineNameOf(host, row.id));
  }

  /** `docker start` and `docker restart`. What the container needs of the node is taken before, and given back where the engine refuses. */
  async start(
    tenant: Tenant,
    row: ContainerRow,
    call: { readonly verb: 'start' | 'restart'; readonly query?: Query } = { verb: 'start' },
  ): Promise<number> {
    const prepare = async (current: ContainerRow): Promise<() => Promise<void>> => await this.#takeForStart(current);
    try {
      await this.#deps.networks.checkStart(tenant, row.id);
      const engineCall = { method: 'POST', verb: [call.verb], query: call.query ?? {} } as const;
      return (await this.#operateWith(row, engineCall, prepare)).status;
    } catch (error) {
      await this.#removeUnstarted(row);
      throw error;
    }
  }

  /** What a container needs of the node to run, for who starts it below its engine. Returns how it is given back. */
  async takeForStart(tenant: Tenant, row: ContainerRow): Promise<() => Promise<void>> {
    await this.#deps.networks.checkStart(tenant, row.id);
    return await this.#takeForStart(row);
  }

  async #takeForStart(row: ContainerRow): Promise<() => Promise<void>> {
    const taken = await this.#takePorts(row);
    return async () => {
      if (taken === 'taken') await this.#deps.ports.release(row.id);
    };
  }

  /** A container that was to be removed at its end, and cannot even begin (moby, `daemon.containerStart`). Clients wait for its removal. */
  async #removeUnstarted(row: ContainerRow): Promise<void> {
    const now = parseStoredSpec(row.spec).hostConfig.AutoRemove ? await findContainer(this.#deps.sql, row.id) : undefined;
    if (now?.state === 'created') await this.remove(now, { force: true, volumes: true });
  }

  async #takePorts(row: ContainerRow): Promise<'taken' | 'held' | 'none'> {
    const spec = parseStoredSpec(row.spec);
    return spec.networking.mode === 'none' ? 'none' : await this.#deps.ports.take(row, spec);
  }

  /** A new name: names resolve by it, and the default host follows it. */
  async renamed(before: ContainerRow, name: string): Promise<void> {
    this.events.publish({ ...before, name }, 'rename', { oldName: `/${before.name}` });
    await this.#deps.fabric.refresh(before.tenant);
    await this.#deps.activator.publish();
  }

  /** Runs one engine call on a container under its lock and takes over what it changed. 304 passes through as the status. */
  async operate(row: ContainerRow, call: ContainerCall): Promise<{ readonly status: number; readonly json: unknown }> {
    if (call.verb[0] === 'kill' && this.#stopping.has(row.engineId)) return await this.#call(row, call); // Who stops it looks at it afterwards.
    return await this.#operateWith(row, call, async () => {
      await Promise.resolve();
      return undefined;
    });
  }

  async #call(row: ContainerRow, { verb, ...rest }: ContainerCall): Promise<{ readonly status: number; readonly json: unknown }> {
    const isStop = verb[0] === 'stop' || verb[0] === 'restart';
    if (isStop) this.#stopping.add(row.engineId);
    const patience = isStop ? { patienceMs: STOP_LIMIT_MS } : {};
    try {
      return await this.hostOf(row).client.call({ ...rest, ...patience, path: ['containers', row.engineId, ...verb] });
    } catch (error) {
      throw withVirtualNames(error, row);
    } finally {
      if (isStop) this.#stopping.delete(row.engineId);
    }
  }

  /** `prepare` runs under the lock before the call; what it returns undoes it where the call fails. */
  async #operateWith(
    row: ContainerRow,
    call: ContainerCall,
    prepare: (current: ContainerRow) => Promise<(() => Promise<void>) | undefined>,
  ): Promise<{ readonly status: number; readonly json: unknown }> {
    return await this.locks.run(row.id, async () => {
      const found = await findContainer(this.#deps.sql, row.id);
      if (found === undefined) throw noSuchContainer(row.id);
      const current = found.snapshot === '' ? found : await this.#endSleep(found, call);
      if (current === undefined) return { status: 204, json: undefined };
      const undo = await prepare(current);
      try {
        return await this.#call(current, call);
      } catch (error) {
        await undo?.();
        throw error;
      } finally {
        await this.syncLocked(current.id);
      }
    });
  }

  /**
   * What a call means to a container that sleeps, under its lock. A restart gives its memory up; whatever needs it awake wakes it; the rest finds it as
   * its engine has it: ended. Undefined: it was woken, and nothing else was asked for.
   */
  async #endSleep(row: ContainerRow, call: ContainerCall): Promise<ContainerRow | undefined> {
    const [verb = ''] = call.verb;
    if (verb === 'restart') await this.#deps.sleep.forget(row);
    else if (WAKING.has(verb)) await this.#deps.sleep.wakeLocked(row);
    else await this.#deps.sleep.settle(row.id);
    return verb === 'unpause' || verb === 'start' ? undefined : await findContainer(this.#deps.sql, row.id);
  }

  /** Names, routes and ports of a tenant follow what just changed. */
  async announceLife(tenant: string): Promise<void> {
    await this.#deps.fabric.refreshNames(tenant);
    await this.#deps.activator.publish();
  }

  /** `docker rm`. */
  async remove(row: ContainerRow, options: { readonly force: boolean; readonly volumes: boolean }): Promise<void> {
    // Who stops it would keep us waiting for as long as its program takes.
    if (options.force && this.#stopping.has(row.engineId))
      await this.#call(row, { method: 'POST', verb: ['kill'] }).catch(() => undefined);
    await this.locks.run(row.id, async () => {
      const current = await findContainer(this.#deps.sql, row.id);
      if (current === undefined) throw noSuchContainer(row.id);
      this.events.leave(current.engineId);
      if (current.snapshot !== '') await this.#deps.sleep.forget(current);
      try {
        const host = this.hostOf(current);
        const removed = host.client.call({
          method: 'DELETE',
          path: ['containers', current.engineId],
          query: { force: options.force, v: true },
        });
        // Engines wait 10 s for a paused sandbox to react to their kill, and may fail then. After the call was made: an engine that sees it end first
        // would remove a container of `--rm` by itself, or start one anew.
        const killed = options.force && current.state === 'paused' ? killSandbox(host, current) : Promise.resolve();
        await bothDone(removed, killed);
      } catch (error) {
        // 404: its engine forgot it (--rm, or a lost disk); the store forgets it now.
        if (!(error instanceof EngineError && error.status === 404)) {
          this.events.stay(current.engineId);
          throw withVirtualNames(error, current);
        }
      }
      await this.#finish(current, { anonymousVolumes: options.volumes });
    });
  }

  /** Closes the books of a container that is gone from its engine. */
  async #finish(row: ContainerRow, options: { readonly anonymousVolumes: boolean }): Promise<void> {
    await Promise.all([this.#deps.meter.close(row.id), this.events.left(row.engineId)]);
    await deleteContainer(this.#deps.sql, row, this.#deps.clock.nowMs());
    try {
      await this.#clearAfter(row, options);
    } finally {
      // Last, as in moby: clients of API 1.24 remove by themselves and end at this news, with the answer to their removal still to come.
      this.events.publish(row, 'destroy');
      this.events.forget(row.id);
    }
  }

  /** Takes away what a container had of the node. */
  async #clearAfter(row: ContainerRow, options: { readonly anonymousVolumes: boolean }): Promise<void> {
    const host = this.hostOf(row);
    const { mounts } = parseStoredSpec(row.spec);
    // Beside each other: a client waits for all of it.
    const outcomes = await Promise.allSettled([
      host.cgroups.remove(host.cgroupOf(row.tenant, row.id)),
      ...(row.engineId === ''
        ? []
        : [forgetFinalCounters(host.runtimeDir, row.engineId), unstage({ runtimeDir: host.runtimeDir, engineId: row.engineId })]),
      options.anonymousVolumes ? this.#deps.volumes.removeAnonymousOf(row.tenant, mounts) : undefined,
      this.#deps.fabric.refresh(row.tenant),
      this.#deps.activator.publish(),
      this.#deps.sleep.forgetKept(row.id),
    ]);
    const failure = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
  }

  /** Takes over what the engine says about a container. */
  async sync(id: string): Promise<void> {
    await this.locks.run(id, async () => {
      await this.syncLocked(id);
    });
  }

  /** As `sync`, for who holds the container's lock. */
  async syncLocked(id: string): Promise<void> {
    const row = await findContainer(this.#deps.sql, id);
    if (row === undefined || row.state === 'creating' || row.snapshot !== '') return;
    const inspect = await this.inspect(row);
    if (inspect !== undefined) await this.#takeOver(row, lifeOf(inspect, row));
    else if (parseStoredSpec(row.spec).hostConfig.AutoRemove) await this.#finish(row, { anonymousVolumes: true });
    else if (row.state !== 'lost') {
      this.#deps.log.error({ tenant: row.tenant, container: row.id, host: row.host }, 'the engine lost a container');
      await this.#takeOver(row, { ...row, state: 'lost', address: '' });
    }
  }

  async #takeOver(row: ContainerRow, life: ContainerLife): Promise<void> {
    await updateLife(this.#deps.sql, row, life, this.#deps.clock.nowMs());
    if (life.state !== 'running' && row.state === 'running') await this.#deps.meter.flush(row.id, 'ends');
    if (life.state === 'running' && row.state !== 'running') this.#deps.meter.started(row.id);
    const portsChanged = HOLDS_PORTS.has(life.state) ? await this.#keepPorts(row) : await this.#deps.ports.release(row.id);
    if (life.state === row.state && life.address === row.address && !portsChanged) return;
    await this.#deps.fabric.refreshNames(row.tenant);
    await this.#deps.activator.publish();
  }

  /** An engine may have started a container by itself after its ports were given back. */
  async #keepPorts(row: ContainerRow): Promise<boolean> {
    if (HOLDS_PORTS.has(row.state)) return false;
    try {
      return (await this.#takePorts(row)) === 'taken';
    } catch (error) {
      this.#deps.log.error({ container: row.id, reason: reasonOf(error) }, 'a container runs without its published ports');
      return false;
    }
  }

  /** Takes over what an engine says about a container that it names. */
  async syncEngineId(engineId: string): Promise<void> {
    const row = await findByEngineId(this.#deps.sql, engineId);
    if (row !== undefined) await this.sync(row.id);
  }

  /**
   * The first look at an engine's event, without waiting for anything: of a container that goes, the news is told now, because its row will not
   * be there. Returns whether it was told.
   */
  async onEngineNews(event: EngineEvent): Promise<boolean> {
    const engineId = event.Actor.ID;
    const row = await findByEngineId(this.#deps.sql, engineId);
    const goes = row !== undefined && (this.events.isLeaving(engineId) || parseStoredSpec(row.spec).hostConfig.AutoRemove);
    if (goes) {
      this.events.leave(engineId);
      await this.news.tell(row, event);
    }
    if (event.Action === 'destroy') this.events.gone(engineId);
    return goes;
  }

  /** Reacts to an engine's event: a mark that something changed, whose truth is then asked for, and news for the tenant. */
  async onEngineEvent(event: EngineEvent, isTold: boolean): Promise<void> {
    await this.syncEngineId(event.Actor.ID);
    const row = isTold ? undefined : await findByEngineId(this.#deps.sql, event.Actor.ID);
    if (row !== undefined) await this.news.tell(row, event);
  }
}
