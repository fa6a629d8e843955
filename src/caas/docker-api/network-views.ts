/** Docker's JSON of networks, and of containers in them. Pure. Shapes: Docker Engine API 1.41 (`Network`, `EndpointSettings`). */
import { macAddressOf } from '#isolation/host-addresses.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { MemberRow } from '#state/networks.ts';
import type { TenantNetwork } from '#caas/networks/networks.ts';

/** One of a tenant's bridges: all its networks share them. */
export interface Subnet {
  readonly subnet: string;
  readonly gateway: string;
}

const PREFIX_BITS = 22;

/** What a container's networks look like from it. */
export interface ContainerNetworks {
  /** In the order in which it joined. */
  readonly memberships: readonly { readonly name: string; readonly isPredefined: boolean; readonly member: MemberRow }[];
  /** Of the host that it is on; undefined where nothing of it runs. */
  readonly gateway: string | undefined;
  /** Names of the containers that links lead to, by id. */
  readonly nameOf: (container: string) => string | undefined;
}

export const NO_NETWORKS: ContainerNetworks = { memberships: [], gateway: undefined, nameOf: () => undefined };

function holdsAddress(row: ContainerRow): boolean {
  return row.state === 'running' || row.state === 'paused';
}

function linksView(member: MemberRow, nameOf: ContainerNetworks['nameOf']): readonly string[] | null {
  if (member.links.length === 0) return null;
  return member.links.map((link) => {
    const at = link.indexOf(':');
    return `${nameOf(link.slice(0, at)) ?? link.slice(0, 12)}${link.slice(at)}`;
  });
}

/** `NetworkSettings.Networks`. */
export function endpointsView(row: ContainerRow, networks: ContainerNetworks): Readonly<Record<string, unknown>> {
  const live = holdsAddress(row);
  return Object.fromEntries(
    networks.memberships.map(({ name, isPredefined, member }) => [
      name,
      {
        IPAMConfig: null,
        Links: linksView(member, networks.nameOf),
        Aliases: isPredefined ? null : [...new Set([...member.aliases, row.id.slice(0, 12)])],
        // Docker resolves the default network's name at the first start, and keeps what it found.
        NetworkID: row.startedMs !== undefined || !isPredefined ? member.network : '',
        EndpointID: live ? member.endpoint : '',
        Gateway: live ? (networks.gateway ?? '') : '',
        IPAddress: live ? row.lanAddress : '',
        IPPrefixLen: live ? PREFIX_BITS : 0,
        IPv6Gateway: '',
        GlobalIPv6Address: '',
        GlobalIPv6PrefixLen: 0,
        MacAddress: live ? macAddressOf(row.lanAddress) : '',
        DriverOpts: null,
      },
    ]),
  );
}

/** The part of `NetworkSettings` that is about the predefined bridge: Docker keeps it from the time before networks. */
export function bridgeView(row: ContainerRow, networks: ContainerNetworks): Readonly<Record<string, unknown>> {
  const bridge = networks.memberships.find(({ isPredefined }) => isPredefined);
  const live = bridge !== undefined && holdsAddress(row);
  return {
    EndpointID: live ? bridge.member.endpoint : '',
    Gateway: live ? (networks.gateway ?? '') : '',
    IPAddress: live ? row.lanAddress : '',
    IPPrefixLen: live ? PREFIX_BITS : 0,
    MacAddress: live ? macAddressOf(row.lanAddress) : '',
  };
}

/** Docker shows nanoseconds; ours are milliseconds. */
function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000000Z');
}

export interface NetworkFacts {
  readonly network: TenantNetwork;
  readonly subnets: readonly Subnet[];
  /** Those that run. */
  readonly members: readonly { readonly member: MemberRow; readonly row: ContainerRow }[];
}

/** `detail`: with members, as inspect has them; lists are without. */
export function networkView({ network, subnets, members }: NetworkFacts, detail: boolean): Readonly<Record<string, unknown>> {
  const isBridge = network.kind === 'own' || network.kind === 'bridge';
  const drivers = { own: 'bridge', bridge: 'bridge', host: 'host', none: 'null' } as const;
  const config = isBridge ? subnets.map(({ subnet, gateway }) => ({ Subnet: subnet, Gateway: gateway })) : [];
  const shown = members.filter(({ row }) => holdsAddress(row));
  return {
    Name: network.name,
    Id: network.id,
    Created: timeOf(network.createdMs),
    Scope: 'local',
    Driver: drivers[network.kind],
    EnableIPv6: false,
    IPAM: { Driver: 'default', Options: network.kind === 'own' ? {} : null, Config: config },
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: Object.fromEntries(
      (detail ? shown : []).map(({ member, row }) => [
        row.id,
        {
          Name: row.name,
          EndpointID: member.endpoint,
          MacAddress: macAddressOf(row.lanAddress),
          IPv4Address: `${row.lanAddress}/${String(PREFIX_BITS)}`,
          IPv6Address: '',
        },
      ]),
    ),
    Options: network.kind === 'bridge' ? { 'com.docker.network.bridge.default_bridge': 'true' } : {},
    Labels: network.labels,
  };
}
