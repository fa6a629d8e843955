/**
 * What follows from tenants' networks on the machines: packet rules on every host, and names. Both are computed from the store; this part only says
 * when, and where.
 */
import type { HostPolicy, NetworkMembers, TenantPolicy } from '#isolation/packet-rules.ts';
import { listHostNetworks, listHosts } from '#state/hosts.ts';
import { listAllMembers, listAllNetworks, listLanContainers } from '#state/networks.ts';
import type { LanContainer, MemberRow, NetworkRow } from '#state/networks.ts';
import type { Sql } from '#state/sql.ts';
import type { Host } from './host.ts';

/** Who is in which network of a tenant, by address. What is in none reaches nobody, and nothing outside. Pure. */
export function networksOf(
  containers: readonly LanContainer[],
  members: readonly MemberRow[],
  internal: ReadonlySet<string>,
): readonly NetworkMembers[] {
  const addresses = new Map<string, string[]>();
  const byId = Map.groupBy(containers, ({ id }) => id);
  const joined = new Set<string>();
  for (const { network, container } of members) {
    joined.add(container);
    const list = addresses.get(network) ?? [];
    addresses.set(network, list);
    for (const { address } of byId.get(container) ?? []) list.push(address);
  }
  const shared = [...addresses].map(([id, list]) => ({ id, internal: internal.has(id), addresses: list }));
  const alone = containers.filter((container) => !joined.has(container.id));
  return [...shared, ...alone.map(({ id, address }) => ({ id, internal: true, addresses: [address] }))];
}

export class NetworkFabric {
  readonly #sql: Sql;
  #hosts: ReadonlyMap<string, Host> = new Map();
  /** By host: where the node's name service listens. */
  readonly #resolverPorts = new Map<string, number>();
  readonly #onNames = new Set<(tenant: string) => void>();

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** Hosts ask for their policy while they open, before they are known here. */
  attach(hosts: ReadonlyMap<string, Host>): void {
    this.#hosts = hosts;
  }

  setResolver(host: string, port: number): void {
    this.#resolverPorts.set(host, port);
  }

  /** Calls back when a tenant's names may have changed. */
  onNames(listener: (tenant: string) => void): void {
    this.#onNames.add(listener);
  }

  /** Who may talk to whom on a host. */
  async policyOf(host: string): Promise<HostPolicy> {
    const sql = this.#sql;
    const numbers = await listHostNetworks(sql, host);
    const containers = Map.groupBy(await listLanContainers(sql), ({ tenant }) => tenant);
    const members = Map.groupBy(await listAllMembers(sql), ({ tenant }) => tenant);
    const internal = new Set((await listAllNetworks(sql)).filter(isInternal).map(({ id }) => id));
    const tenants: TenantPolicy[] = numbers.map(({ tenant, number }) => ({
      tenantNumber: number,
      networks: networksOf(containers.get(tenant) ?? [], members.get(tenant) ?? [], internal),
    }));
    const octets = (await listHosts(sql)).map(({ networkOctet }) => networkOctet);
    return { octets, resolverPort: this.#resolverPorts.get(host), tenants };
  }

  /** After a container came, went or moved, or a network changed: resolves when every host has it. */
  async refresh(tenant: string): Promise<void> {
    this.forgetNames(tenant);
    await Promise.all([...this.#hosts.values()].map(async (host) => await host.refreshRules()));
  }

  /** After a container started or stopped: only what its name means has changed. */
  forgetNames(tenant: string): void {
    for (const listener of this.#onNames) listener(tenant);
  }
}

function isInternal(network: NetworkRow): boolean {
  return network.internal;
}
