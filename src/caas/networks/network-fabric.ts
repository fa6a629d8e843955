/**
 * What follows from tenants' networks on the machines: packet rules on every host, and names. Both are computed from the store; this part says when, and
 * holds what the name service is asked for.
 */
import type { HostPolicy, NetworkMembers, TenantPolicy } from '#isolation/packet-rules.ts';
import { listHostNetworks, listHosts } from '#state/hosts.ts';
import { listAllMembers, listAllNetworks, listLanContainers, listMembers, listNetworks } from '#state/networks.ts';
import type { LanContainer, MemberRow, NetworkRow } from '#state/networks.ts';
import type { Sql } from '#state/sql.ts';
import { nameTableOf } from '#caas/dns/name-table.ts';
import type { NameMember, NameTable } from '#caas/dns/name-table.ts';
import type { Host } from '#caas/host.ts';
import { PENDING, predefinedId } from './networks.ts';

/**
 * Who is in which network of a tenant, by address. What is in none reaches nobody. `withWayOut`: ids of networks; one that was removed beside a start,
 * with a member that runs now, is in it no more, whatever it was. Pure.
 */
export function networksOf(
  containers: readonly LanContainer[],
  members: readonly MemberRow[],
  withWayOut: ReadonlySet<string>,
): readonly NetworkMembers[] {
  const addresses = new Map<string, string[]>();
  const byId = Map.groupBy(containers, ({ id }) => id);
  for (const { network, container } of members) {
    if (network.startsWith(PENDING)) continue;
    const list = addresses.get(network) ?? [];
    addresses.set(network, list);
    for (const { address } of byId.get(container) ?? []) list.push(address);
  }
  return [...addresses].map(([id, list]) => ({ id, internal: !withWayOut.has(id), addresses: list }));
}

/** Who may ask for names, and be asked for where it runs. Pure. `networks`: the tenant's own; what is not among them is its predefined bridge. */
export function nameMembersOf(
  containers: readonly LanContainer[],
  members: readonly MemberRow[],
  networks: readonly NetworkRow[],
): readonly NameMember[] {
  const own = new Map(networks.map((network) => [network.id, network]));
  const byContainer = Map.groupBy(members, ({ container }) => container);
  return containers
    .filter(({ isTarget }) => !isTarget)
    .map(({ id, name, address, isRunning }) => {
      const joined = byContainer.get(id) ?? [];
      return {
        containerId: id,
        name,
        address,
        memberships: joined.map(({ network, aliases, links }) => ({
          networkId: network,
          networkName: own.get(network)?.name ?? 'bridge',
          isPredefined: !own.has(network),
          aliases,
          links: links.map((link) => ({
            containerId: link.slice(0, link.indexOf(':')),
            alias: link.slice(link.indexOf(':') + 1),
          })),
        })),
        hasWayOut: joined.some(
          ({ network, tenant }) => own.get(network)?.internal === false || network === predefinedId(tenant, 'bridge'),
        ),
        isHidden: !isRunning,
      };
    });
}

export class NetworkFabric {
  readonly #sql: Sql;
  #hosts: ReadonlyMap<string, Host> = new Map();
  /** By host: where the node's name service listens. */
  readonly #resolverPorts = new Map<string, number>();
  readonly #members = new Map<string, readonly NameMember[]>();
  /** By tenant: the turn in which its members were read. */
  readonly #readAt = new Map<string, number>();
  #turn = 0;
  #octets: readonly number[] = [];
  /** Undefined: something changed since it was last asked for. */
  #names: NameTable | undefined;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** Hosts ask for their policy while they open, before they are known here. */
  async attach(hosts: ReadonlyMap<string, Host>, resolverPorts: ReadonlyMap<string, number>): Promise<void> {
    this.#hosts = hosts;
    this.#octets = [...hosts.values()].map(({ network }) => network.octet);
    for (const [host, port] of resolverPorts) this.#resolverPorts.set(host, port);
    const tenants = new Set((await listLanContainers(this.#sql)).map(({ tenant }) => tenant));
    for (const tenant of tenants) await this.refreshNames(tenant);
    await this.#refreshRules();
  }

  /** The names of this moment. */
  names(): NameTable {
    this.#names ??= nameTableOf([...this.#members.values()].flat(), this.#octets);
    return this.#names;
  }

  /** Who may talk to whom on a host. */
  async policyOf(host: string): Promise<HostPolicy> {
    const sql = this.#sql;
    const numbers = await listHostNetworks(sql, host);
    const containers = Map.groupBy(await listLanContainers(sql), ({ tenant }) => tenant);
    const members = Map.groupBy(await listAllMembers(sql), ({ tenant }) => tenant);
    const withWayOut = new Set([
      ...(await listAllNetworks(sql)).filter((network) => !network.internal).map(({ id }) => id),
      ...numbers.map(({ tenant }) => predefinedId(tenant, 'bridge')),
    ]);
    const tenants: TenantPolicy[] = numbers.map(({ tenant, number }) => ({
      tenantNumber: number,
      networks: networksOf(containers.get(tenant) ?? [], members.get(tenant) ?? [], withWayOut),
    }));
    const octets = (await listHosts(sql)).map(({ networkOctet }) => networkOctet);
    return { octets, resolverPort: this.#resolverPorts.get(host), tenants };
  }

  /** After a container came, went or moved, or a network changed: resolves when every host and the name service have it. */
  async refresh(tenant: string): Promise<void> {
    await Promise.all([this.refreshNames(tenant), this.#refreshRules()]);
  }

  async #refreshRules(): Promise<void> {
    await Promise.all([...this.#hosts.values()].map(async (host) => await host.refreshRules()));
  }

  /** After a container started or stopped: only what its name means has changed. */
  async refreshNames(tenant: string): Promise<void> {
    this.#turn += 1;
    const turn = this.#turn;
    const [containers, members, networks] = await Promise.all([
      listLanContainers(this.#sql, tenant),
      listMembers(this.#sql, tenant),
      listNetworks(this.#sql, tenant),
    ]);
    // Of two that read at the same time the one that began later knows better.
    if ((this.#readAt.get(tenant) ?? 0) > turn) return;
    this.#readAt.set(tenant, turn);
    const list = nameMembersOf(containers, members, networks);
    if (list.length === 0) this.#members.delete(tenant);
    else this.#members.set(tenant, list);
    this.#names = undefined;
  }
}
