/**
 * What a worker knows of endpoints: the exchanges at each of them, and the idle connections to each of their addresses.
 *
 * A pool belongs to one tenant, endpoint, generation and address. A retired pool gives no connections out and keeps none: they end with the
 * exchanges on them. What is under way is counted by endpoint, over all its generations.
 */
import type { Endpoint } from '#routing/route-table.ts';
import type { Clock } from '#clock';
import type { FreezeResult } from './protocol.ts';
import { DRAIN_STEP_MS, STREAM_END_MS } from './limits.ts';
import type { Account, Traffic } from './traffic.ts';

/** One exchange at one endpoint, upgraded streams included. */
export interface Visit {
  /** The list it is in, and its neighbours there; `VisitList`'s alone. */
  visitOf?: VisitList | undefined;
  visitAfter?: Visit | undefined;
  visitBefore?: Visit | undefined;
  /** Whether it is a stream without an end of its own. */
  readonly isStream: boolean;
  /** Ends such a stream in order, as soon as that is possible. `isLate`: even where a part of a message is lost. May be called again. */
  endStream(tally: StreamTally, isLate: boolean): void;
  /** Leaves, to be carried again after the thaw. False: it must not be. */
  replay(): boolean;
  /** Ends the exchange now. */
  cut(): void;
}

/** Streams that were ended in order. */
export interface StreamTally {
  closedWebSockets: number;
  endedEventStreams: number;
}

/** How exchanges leave their endpoints. */
export interface Emptying {
  /** How long they may take before they are replayed or cut. */
  readonly drainMs: number;
  /** Whether streams stay. */
  readonly carriesStreams: boolean;
  /** Whether an endpoint still is to be emptied. */
  readonly lasts: (endpointId: string) => boolean;
}

/** The exchanges at an endpoint, in order. PERF: linked through themselves; a `Set` costs ten times as much for each exchange. */
export class VisitList {
  size = 0;
  #first: Visit | undefined;
  #last: Visit | undefined;

  add(visit: Visit): void {
    visit.visitOf = this;
    visit.visitBefore = this.#last;
    visit.visitAfter = undefined;
    if (this.#last === undefined) this.#first = visit;
    else this.#last.visitAfter = visit;
    this.#last = visit;
    this.size += 1;
  }

  /** False: it is not there. */
  remove(visit: Visit): boolean {
    if (visit.visitOf !== this) return false;
    const { visitBefore, visitAfter } = visit;
    if (visitBefore === undefined) this.#first = visitAfter;
    else visitBefore.visitAfter = visitAfter;
    if (visitAfter === undefined) this.#last = visitBefore;
    else visitAfter.visitBefore = visitBefore;
    visit.visitOf = undefined;
    visit.visitBefore = undefined;
    visit.visitAfter = undefined;
    this.size -= 1;
    return true;
  }

  /** Those that are there now; the list may change meanwhile. */
  all(): Visit[] {
    const visits: Visit[] = [];
    for (let visit = this.#first; visit !== undefined; visit = visit.visitAfter) visits.push(visit);
    return visits;
  }
}

/** A connection that waits for its next exchange. */
export interface IdleConnection {
  close(): void;
}

/** One endpoint, over all its generations. */
export interface EndpointLoad {
  readonly endpointId: string;
  readonly visits: VisitList;
}

export interface EndpointPool<C extends IdleConnection> {
  readonly endpoint: Endpoint;
  readonly load: EndpointLoad;
  readonly account: Account;
  /** Last in, first out: surplus connections grow idle and close. */
  readonly idle: C[];
  retired: boolean;
}

interface Waiter {
  readonly endpointIds: readonly string[];
  readonly idle: () => void;
}

export class Endpoints<C extends IdleConnection> implements Disposable {
  readonly #traffic: Traffic;
  readonly #pools = new Map<string, EndpointPool<C>>();
  /** PERF: by the object that the current table has for it, which spares building the key for every request. */
  readonly #byObject = new Map<Endpoint, EndpointPool<C>>();
  readonly #loads = new Map<string, EndpointLoad>();
  readonly #waiters = new Set<Waiter>();

  constructor(traffic: Traffic) {
    this.#traffic = traffic;
  }

  poolOf(tenant: string, endpoint: Endpoint): EndpointPool<C> {
    return this.#byObject.get(endpoint) ?? this.#find(tenant, endpoint);
  }

  enter(pool: EndpointPool<C>, visit: Visit): void {
    pool.load.visits.add(visit);
    pool.account.users += 1; // The account outlives a pool that is retired meanwhile.
  }

  leave(pool: EndpointPool<C>, visit: Visit): void {
    const { visits, endpointId } = pool.load;
    if (!visits.remove(visit)) return;
    pool.account.users -= 1;
    if (visits.size > 0 || this.#waiters.size === 0) return;
    for (const waiter of this.#waiters) {
      if (waiter.endpointIds.includes(endpointId) && this.#countOfAll(waiter.endpointIds) === 0) waiter.idle();
    }
  }

  countOf(endpointId: string): number {
    return this.#loads.get(endpointId)?.visits.size ?? 0;
  }

  /** How much is under way, by endpoint; none of them has nothing. */
  *inFlight(): Generator<readonly [endpointId: string, inFlight: number]> {
    for (const [id, { visits }] of this.#loads) if (visits.size > 0) yield [id, visits.size];
  }

  /** Waits until nothing is under way at `endpointIds`: streams are ended at once, what is left after `drainMs` is replayed or cut. */
  async emptied(clock: Clock, endpointIds: readonly string[], how: Emptying): Promise<FreezeResult> {
    const startMs = clock.monotonicMs();
    const result = { cut: 0, waitedMs: 0, closedWebSockets: 0, endedEventStreams: 0, replayed: 0 };
    for (;;) {
      const spentMs = clock.monotonicMs() - startMs;
      result.waitedMs = Math.round(spentMs);
      // Again each time: what was a request at the freeze can have become a stream.
      if (!how.carriesStreams)
        for (const visit of this.#underWay(endpointIds, how)) visit.endStream(result, spentMs >= STREAM_END_MS);
      const left = this.#underWay(endpointIds, how);
      if (left.length === 0) return result;
      if (spentMs >= how.drainMs) {
        for (const visit of left) {
          if (visit.replay()) result.replayed += 1;
          else {
            visit.cut();
            result.cut += 1;
          }
        }
        return result;
      }
      await this.#emptyWithin(endpointIds, Math.min(DRAIN_STEP_MS, how.drainMs - spentMs));
    }
  }

  cutAll(): void {
    for (const { visits } of this.#loads.values()) {
      for (const visit of visits.all()) visit.cut();
    }
  }

  /** Closes the idle connections of `endpointIds`; those in use close when their exchange ends. */
  retire(endpointIds: ReadonlySet<string>): void {
    this.#retireWhere((pool) => endpointIds.has(pool.endpoint.id));
  }

  /** Retires everything that is not wanted any more. */
  keepOnly(isWanted: (endpoint: Endpoint) => boolean): void {
    this.#byObject.clear(); // A new table has new objects for what changed.
    if (this.#pools.size === 0) return;
    this.#retireWhere((pool) => !isWanted(pool.endpoint));
    const pooled = new Set([...this.#pools.values()].map(({ endpoint }) => endpoint.id));
    for (const [id, load] of this.#loads) {
      if (load.visits.size === 0 && !pooled.has(id)) this.#loads.delete(id);
    }
  }

  /** Connections that wait in pools. */
  get idleConnections(): number {
    let sum = 0;
    for (const { idle } of this.#pools.values()) sum += idle.length;
    return sum;
  }

  [Symbol.dispose](): void {
    this.#retireWhere(() => true);
  }

  #find(tenant: string, endpoint: Endpoint): EndpointPool<C> {
    const key = `${tenant}\n${addressKey(endpoint)}`;
    const known = this.#pools.get(key);
    if (known !== undefined) {
      this.#byObject.set(endpoint, known);
      return known;
    }
    const account = this.#traffic.open(tenant, endpoint.id);
    const pool: EndpointPool<C> = { endpoint, load: this.#loadOf(endpoint.id), account, idle: [], retired: false };
    this.#pools.set(key, pool);
    this.#byObject.set(endpoint, pool);
    return pool;
  }

  #loadOf(endpointId: string): EndpointLoad {
    let load = this.#loads.get(endpointId);
    if (load === undefined) {
      load = { endpointId, visits: new VisitList() };
      this.#loads.set(endpointId, load);
    }
    return load;
  }

  #retireWhere(chosen: (pool: EndpointPool<C>) => boolean): void {
    for (const [key, pool] of this.#pools) {
      if (!chosen(pool)) continue;
      this.#pools.delete(key);
      pool.retired = true;
      for (const connection of pool.idle.splice(0)) connection.close();
      this.#traffic.close(pool.account);
    }
    for (const [object, pool] of this.#byObject) {
      if (pool.retired) this.#byObject.delete(object);
    }
  }

  /** What has to leave. */
  #underWay(endpointIds: readonly string[], { carriesStreams, lasts }: Emptying): readonly Visit[] {
    const visits = endpointIds.filter(lasts).flatMap((id) => this.#loads.get(id)?.visits.all() ?? []);
    return carriesStreams ? visits.filter((visit) => !visit.isStream) : visits;
  }

  async #emptyWithin(endpointIds: readonly string[], limitMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const waiter: Waiter = {
      endpointIds,
      idle: () => {
        resolve(undefined);
      },
    };
    this.#waiters.add(waiter);
    const timer = setTimeout(() => {
      resolve(undefined);
    }, limitMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#waiters.delete(waiter);
    }
  }

  #countOfAll(endpointIds: readonly string[]): number {
    return endpointIds.reduce((sum, id) => sum + this.countOf(id), 0);
  }
}

function addressKey(endpoint: Endpoint): string {
  const { id, generation, address, port, tls } = endpoint;
  return `${id} ${String(generation)} ${address} ${String(port)}${tls === undefined ? '' : ` ${JSON.stringify(tls)}`}`;
}
