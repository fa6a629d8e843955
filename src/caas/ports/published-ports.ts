/**
 * Published ports of containers: taken on the tenant's address when a container starts, given back when it ended.
 *
 * A row of the store is what makes a port a container's; the workers listen on what the store says of running containers (`node-edge.ts`).
 * INVARIANT: a port is probed before it is taken, because workers share their listeners (`reusePort`): with a program of the same user that shares
 * its own, they would split its connections.
 */
import { waitFor } from '#clock';
import type { Clock } from '#clock';
import type { Log } from '#log';
import { KeyedLock } from '#lifecycle';
import { reasonOf } from '#errors';
import type { ContainerRow } from '#state/containers.ts';
import { listMembersOf } from '#state/networks.ts';
import { listAllPorts, listPortsOf, listPortsOfTenant, releasePorts, takePorts } from '#state/published-ports.ts';
import type { PublishedPortRow } from '#state/published-ports.ts';
import type { Sql } from '#state/sql.ts';
import { findTenant } from '#state/tenants.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { probePort } from './port-probe.ts';
import { portWishes } from '#caas/spec/spec-ports.ts';
import type { PortsOfSpec, PortWish } from '#caas/spec/spec-ports.ts';

interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface PublishedPortsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  /** Where the Docker endpoint listens; its host is the address of tenants that have none of their own. Undefined: it is off. */
  readonly docker: HostPort | undefined;
  /** What the node itself listens on. */
  readonly reserved: readonly HostPort[];
  /** Brings the workers to what the store says: what was given back is closed then. */
  readonly publish: () => Promise<void>;
}

/** `taken`: just now; `held`: it had them already. */
export type TakeOutcome = 'taken' | 'held' | 'none';

/** As the kernel's for outgoing connections, and Docker's. */
const RANDOM_FIRST = 32_768;
const RANDOM_LAST = 60_999;
/** A port that another program has is skipped where there is a choice; so many in a row mean that something else is wrong. */
const PROBES_MAX = 200;
/** Two daemons never share a store, and takes are made one after the other: a conflict is a fault that must not loop. */
const TAKE_ATTEMPTS_MAX = 3;
/** Clients hear of an end from the engine, and may be back before the store knows of it: Docker has given the ports back by then. */
const HELD_LIMIT_MS = 250;
const HELD_STEP_MS = 50;
const WILDCARDS = new Set(['', '0.0.0.0', '::']);

/** The address that the Docker endpoint's host stands for. Pure. */
export function sharedAddress(docker: HostPort | undefined): string {
  const host = docker?.host ?? '';
  if (host === 'localhost' || host === '::1') return '127.0.0.1';
  return WILDCARDS.has(host) || !/^[\d.]+$/.test(host) ? '0.0.0.0' : host;
}

function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === 'localhost' || address === '::1';
}

function overlap(one: string, other: string): boolean {
  return one === other || WILDCARDS.has(one) || WILDCARDS.has(other);
}

/** What a taken port is in the messages: as the client gave it. */
function shownIp(wish: PortWish): string {
  return WILDCARDS.has(wish.hostIp) ? '0.0.0.0' : wish.hostIp;
}

interface Refusal {
  readonly why: string;
  /** By another container: it may have ended this moment. */
  readonly isHeld: boolean;
}

function refused(why: string): Refusal {
  return { why, isHeld: false };
}

function held(why: string): Refusal {
  return { why, isHeld: true };
}

/** Ports that are spoken for on one address, by protocol. */
type Taken = Readonly<Record<'tcp' | 'udp', Set<number>>>;

export class PublishedPorts {
  readonly #deps: PublishedPortsDeps;
  readonly #locks = new KeyedLock();
  /** The random port that was given last, by address and protocol: the next one is another. */
  readonly #last = new Map<string, number>();

  constructor(deps: PublishedPortsDeps) {
    this.#deps = deps;
  }

  /**
   * Takes what a container wants to have published, all or nothing. What it holds already it keeps. Errors are Docker's, with its words. Who starts
   * the container publishes afterwards, and releases where it does not start and the outcome was `taken`.
   */
  async take(row: ContainerRow, spec: PortsOfSpec): Promise<TakeOutcome> {
    const wishes = portWishes(spec);
    if (wishes.length === 0) {
      await this.release(row.id);
      return 'none';
    }
    let refusal: Refusal | undefined;
    const outcome = await waitFor(
      this.#deps.clock,
      async () => {
        const answer = await this.#locks.run('take', async () => await this.#take(row, wishes));
        if (typeof answer === 'string') return answer;
        refusal = answer;
        return answer.isHeld ? undefined : 'refused';
      },
      { limitMs: HELD_LIMIT_MS, stepMs: HELD_STEP_MS },
    );
    return outcome === undefined || outcome === 'refused' ? await this.#refuse(row, refusal?.why ?? '') : outcome;
  }

  /** Gives back what a container holds. True where it held something: the workers must hear of it (`publish`). */
  async release(container: string): Promise<boolean> {
    if ((await listPortsOf(this.#deps.sql, container)).length === 0) return false;
    await releasePorts(this.#deps.sql, container);
    return true;
  }

  async listOf(container: string): Promise<readonly PublishedPortRow[]> {
    return await listPortsOf(this.#deps.sql, container);
  }

  /** By virtual id. Containers that hold none are not in it. */
  async listOfTenant(tenant: string): Promise<ReadonlyMap<string, readonly PublishedPortRow[]>> {
    return Map.groupBy(await listPortsOfTenant(this.#deps.sql, tenant), ({ container }) => container);
  }

  async #take(row: ContainerRow, wishes: readonly PortWish[]): Promise<TakeOutcome | Refusal> {
    const { sql } = this.#deps;
    const tenant = await findTenant(sql, row.tenant);
    const tenantAddress = tenant?.address ?? '';
    const address = tenantAddress === '' ? sharedAddress(this.#deps.docker) : tenantAddress;
    const own = await listPortsOf(sql, row.id);
    // While it runs it keeps them, also those of an address that its tenant had before.
    const isUp = ['running', 'paused', 'restarting'].includes(row.state);
    if (own.length === wishes.length && (isUp || own.every((port) => port.address === address))) return 'held';
    await releasePorts(sql, row.id);
    for (const { hostIp } of wishes) {
      const refusal = this.#addressRefusal(hostIp, address);
      if (refusal !== undefined) return refused(refusal);
    }
    for (let attempt = 0; attempt < TAKE_ATTEMPTS_MAX; attempt += 1) {
      const all = await listAllPorts(sql);
      const count = all.filter((port) => port.tenant === row.tenant).length + wishes.length;
      if (tenant !== undefined && count > tenant.quota.portsMax)
        return refused(
          `ecluse: ${String(count)} ports of tenant ${row.tenant} would be published, its quota is ${String(tenant.quota.portsMax)}`,
        );
      const chosen = await this.#choose(wishes, { row, address, taken: this.#takenOn(address, all) });
      if ('why' in chosen) return chosen;
      if ((await takePorts(sql, chosen)).kind === 'done') return 'taken';
    }
    return refused('ecluse: its ports were taken meanwhile');
  }

  async #choose(
    wishes: readonly PortWish[],
    at: { readonly row: ContainerRow; readonly address: string; readonly taken: Taken },
  ): Promise<readonly PublishedPortRow[] | Refusal> {
    const chosen: PublishedPortRow[] = [];
    for (const wish of wishes) {
      const taken = at.taken[wish.protocol];
      const port = await this.#find(wish, at.address, taken);
      if (typeof port !== 'number') return port;
      taken.add(port);
      const { protocol, containerPort } = wish;
      chosen.push({ address: at.address, protocol, port, tenant: at.row.tenant, container: at.row.id, containerPort });
    }
    return chosen;
  }

  /** A free port for a wish, or moby's words for why there is none. */
  async #find(wish: PortWish, address: string, taken: ReadonlySet<number>): Promise<number | Refusal> {
    const { protocol, range } = wish;
    if (range === undefined) return await this.#findRandom(protocol, address, taken);
    const { first, last } = range;
    if (first === last) {
      if (taken.has(first)) return held(`Bind for ${shownIp(wish)}:${String(first)} failed: port is already allocated`);
      const answer = await this.#probe({ protocol, address, port: first });
      return answer === 'free' ? first : refused(userlandRefusal(wish, answer, first));
    }
    let busy = '';
    let probes = 0;
    // Other tenants' starts wait meanwhile: what fails for the whole address (EADDRNOTAVAIL) is not tried on sixty thousand ports.
    for (let port = first; port <= last && probes < PROBES_MAX && (busy === '' || busy === 'EADDRINUSE'); port += 1) {
      if (taken.has(port)) continue;
      probes += 1;
      busy = await probePort({ protocol, address, port });
      if (busy === 'free') return port;
    }
    return busy === '' ? held('all ports are allocated') : refused(userlandRefusal(wish, busy, last));
  }

  async #findRandom(protocol: 'tcp' | 'udp', address: string, taken: ReadonlySet<number>): Promise<number | Refusal> {
    const key = `${protocol} ${address}`;
    let port = this.#last.get(key) ?? RANDOM_LAST;
    let probes = 0;
    for (let step = RANDOM_FIRST; step <= RANDOM_LAST && probes < PROBES_MAX; step += 1) {
      port = port >= RANDOM_LAST ? RANDOM_FIRST : port + 1;
      if (taken.has(port)) continue;
      probes += 1;
      if ((await probePort({ protocol, address, port })) !== 'free') continue;
      this.#last.set(key, port);
      return port;
    }
    return refused('all ports are allocated');
  }

  /** A port that was just given back may still be open in a worker: that is waited for. */
  async #probe(port: Parameters<typeof probePort>[0]): Promise<string> {
    const answer = await probePort(port);
    if (answer !== 'EADDRINUSE') return answer;
    try {
      await this.#deps.publish();
    } catch (error) {
      this.#deps.log.warn({ reason: reasonOf(error) }, 'the workers did not take over what was published');
    }
    return await probePort(port);
  }

  #takenOn(address: string, all: readonly PublishedPortRow[]): Taken {
    const { docker, reserved } = this.#deps;
    const taken: Taken = { tcp: new Set(), udp: new Set() };
    for (const row of all) if (overlap(row.address, address)) taken[row.protocol].add(row.port);
    for (const { host, port } of reserved) if (overlap(host === 'localhost' ? '127.0.0.1' : host, address)) taken.tcp.add(port);
    if (docker !== undefined) taken.tcp.add(docker.port); // The endpoint listens on tenants' own addresses as well.
    return taken;
  }

  #addressRefusal(hostIp: string, address: string): string | undefined {
    if (WILDCARDS.has(hostIp) || hostIp === address) return undefined;
    const { docker } = this.#deps;
    const where = WILDCARDS.has(address) ? 'every address of the node' : address;
    if (hostIp === '127.0.0.1') {
      if (isLoopback(address) || (docker !== undefined && isLoopback(docker.host))) return undefined;
      return `ecluse: a port of 127.0.0.1 could be reached on the node alone, not by you; ports are published on ${where}: leave the address out`;
    }
    return `ecluse: ${hostIp} is not an address of yours; ports are published on ${where}: leave the address out`;
  }

  async #refuse(row: ContainerRow, why: string): Promise<never> {
    const [member] = await listMembersOf(this.#deps.sql, row.id);
    const endpoint = member?.endpoint ?? row.id;
    throw dockerError(500, `driver failed programming external connectivity on endpoint ${row.name} (${endpoint}): ${why}`);
  }
}

/** What Docker's proxy says of a port that it cannot open. */
function userlandRefusal(wish: PortWish, code: string, port: number): string {
  const causes: Readonly<Record<string, string>> = {
    EADDRINUSE: 'address already in use',
    EADDRNOTAVAIL: 'cannot assign requested address',
    EACCES: 'permission denied',
  };
  return `Error starting userland proxy: listen ${wish.protocol}4 ${shownIp(wish)}:${String(port)}: bind: ${causes[code] ?? code}`;
}
