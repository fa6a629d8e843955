/**
 * Who may talk to whom, as nftables rules. Pure: plain data in, text for `nft -f` out.
 *
 * - Between containers: only where one network has both addresses, on this host or on others of the node. Judged packet by packet, without
 *   connection tracking, so that leaving a network cuts what went through it, and judged at both ends.
 * - Out of the node: containers with a network that is not internal, and the engine's own (builds). Never to the host, to link-local or
 *   metadata addresses, or to another tenant.
 * - In: only the edge, which is the root namespace itself, and answers to what went out.
 * - Each frame of a container bears its own MAC and address; of ARP passes what peers need, of IPv6 nothing.
 *
 * Two tables with the same sets: `bridge` for frames between ports of one bridge, `inet` for what is routed. With br_netfilter the frames of
 * the first pass the second too, as packets from a bridge to itself, and get the same answer there.
 *
 * In the machine's own namespace other programs have bridges too, and the kernel may be without `meta ibrname`: there frames are ours if an
 * address or MAC of the host is in them. In a namespace of our own every frame is.
 */
import { isIPv4 } from 'node:net';
import { EcluseError } from '#errors';
import {
  bridgePattern,
  engineAddressOf,
  isOfHost,
  linkAddressOf,
  macAddressOf,
  nodePattern,
  RELAY_PORT,
  RESOLVER_ADDRESS,
  tableOf,
  tenantNetworkOf,
  UPLINK,
  vethOf,
} from './host-addresses.ts';
import type { HostNetwork } from './host-addresses.ts';

export interface NetworkMembers {
  /** Letters and digits: part of a set's name. Unique in the node. */
  readonly id: string;
  /** Members reach nothing but each other. */
  readonly internal: boolean;
  /** Of members on any host of the node. */
  readonly addresses: readonly string[];
}

export interface TenantPolicy {
  /** The number of the tenant's network on this host. */
  readonly tenantNumber: number;
  readonly networks: readonly NetworkMembers[];
}

export interface HostPolicy {
  /** Of all hosts of the node, this one included. */
  readonly octets: readonly number[];
  /** The port of the node's responder at the host's link address; undefined: nobody answers. */
  readonly resolverPort: number | undefined;
  /** Every tenant that has a bridge on this host, also one without members. */
  readonly tenants: readonly TenantPolicy[];
}

/** Before connection tracking: what is dropped here leaves no trace. */
const PRIORITY_SOURCE = -310;
/**
 * Questions for names over UDP, a tenant and host: what the responder answers with a tenth of a core. All tenants share its socket, so who floods it
 * must be cut off before.
 */
const QUESTIONS = 'limit rate over 4000/second burst 8000 packets';
const NEVER_OUTSIDE = '0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.2.0/24, 224.0.0.0/3';
const FAMILIES = ['inet', 'bridge'] as const;
type Family = (typeof FAMILIES)[number];

function rangeOf(octet: number): string {
  return `10.${String(octet)}.0.0/16`;
}

function elementsOf(values: readonly string[]): string {
  return values.length === 0 ? '' : `elements = { ${[...new Set(values)].join(', ')} }`;
}

function setOf(network: NetworkMembers): string {
  return `n_${network.id}`;
}

/** The networks that need rules. What goes into a rule's text is looked at here, once more. */
function occupiedOf(tenant: TenantPolicy): readonly NetworkMembers[] {
  for (const { id, addresses } of tenant.networks) {
    if (/^[0-9A-Za-z]{1,64}$/.test(id) && addresses.every((address) => isIPv4(address))) continue;
    throw new EcluseError({
      code: 'ECLUSE_NETWORK_POLICY',
      source: 'internal',
      message: `network ${id} cannot be written as a packet rule: its id or one of its addresses is malformed`,
    });
  }
  return tenant.networks.filter(({ addresses }) => addresses.length > 0);
}

function localAddresses(
  network: HostNetwork,
  tenants: readonly TenantPolicy[],
  which: 'all' | 'with a way out',
): readonly string[] {
  const found = tenants.flatMap((tenant) =>
    occupiedOf(tenant)
      .filter(({ internal }) => which === 'all' || !internal)
      .flatMap(({ addresses }) => addresses.filter((address) => isOfHost(network.octet, address))),
  );
  return [...new Set(found)];
}

function stationOf(address: string): string {
  return `${address} . ${macAddressOf(address)}`;
}

/** The rules of a tenant's chain. It is entered by `goto`, so its end must decide. */
function tenantRules(family: Family, tenant: TenantPolicy): readonly string[] {
  const networks = occupiedOf(tenant).map((members) => setOf(members));
  const packets = networks.map((set) => `ip saddr @${set} ip daddr @${set} accept`);
  const questions = networks.map((set) => `arp saddr ip @${set} arp daddr ip @${set} accept`);
  return [...packets, ...(family === 'bridge' ? questions : []), 'drop'];
}

function setsAndTenantChains(family: Family, policy: HostPolicy): string {
  const sets = policy.tenants.flatMap((tenant) =>
    occupiedOf(tenant).map((members) => `  set ${setOf(members)} { type ipv4_addr; ${elementsOf(members.addresses)} }`),
  );
  const chains = policy.tenants.map(
    (tenant) => `  chain t${String(tenant.tenantNumber)} {\n    ${tenantRules(family, tenant).join('\n    ')}\n  }`,
  );
  return [...sets, ...chains].join('\n');
}

/** One rule that finds the tenant's chain by an address; nothing where there is no tenant, because nft knows no empty map. */
function toTenantBy(field: string, network: HostNetwork, policy: HostPolicy): string {
  if (policy.tenants.length === 0) return '';
  const chains = policy.tenants.map(
    ({ tenantNumber }) => `${tenantNetworkOf(network, tenantNumber).subnet} : goto t${String(tenantNumber)}`,
  );
  return `${field} vmap { ${chains.join(', ')} }`;
}

function isDynamic(network: HostNetwork, field: string): string {
  return `${field} & 255.255.3.192 == 10.${String(network.octet)}.3.192`;
}

function bridgeTable(network: HostNetwork, policy: HostPolicy): string {
  const octet = network.octet.toString(16).padStart(2, '0');
  const ours = `& ff:ff:ff:ff:00:00 == 02:42:0a:${octet}:00:00`;
  const own = rangeOf(network.octet);
  const isShared = network.namespace === undefined;
  return `table bridge ${tableOf(network)} {
  set stations { type ipv4_addr . ether_addr; ${elementsOf(localAddresses(network, policy.tenants, 'all').map((address) => stationOf(address)))} }
${setsAndTenantChains('bridge', policy)}
  chain source {
    ip saddr . ether saddr @stations return
    arp saddr ip . ether saddr @stations arp saddr ip . arp saddr ether @stations return
    ether saddr ${ours} ether saddr & 00:00:00:00:03:c0 != 00:00:00:00:03:c0 drop
    ${isDynamic(network, 'ip saddr')} return
    ${isDynamic(network, 'arp saddr ip')} return
    drop
  }
  chain prerouting {
    type filter hook prerouting priority ${String(PRIORITY_SOURCE)}; policy accept;
    ${isShared ? `ip saddr ${own} jump source\n    arp saddr ip ${own} jump source\n    ether saddr ${ours} jump source` : 'jump source'}
  }
  chain peers {
    ${toTenantBy('ip saddr', network, policy)}
    ${toTenantBy('arp saddr ip', network, policy)}
    drop
  }
  chain forward {
    type filter hook forward priority -200; policy accept;
    ${
      isShared
        ? `ip saddr ${own} goto peers
    ip daddr ${own} goto peers
    arp saddr ip ${own} goto peers
    arp daddr ip ${own} goto peers
    ether daddr ${ours} drop`
        : 'goto peers'
    }
  }
}
`;
}

/** Lets packets to the responder pass, behind the translation of its address; nothing where there is none. */
function acceptResponder(network: HostNetwork, policy: HostPolicy, from: string): string {
  if (policy.resolverPort === undefined) return '';
  return `iifname ${from} ip daddr ${linkAddressOf(network)} meta l4proto { tcp, udp } th dport ${String(policy.resolverPort)} accept`;
}

/** The link address is nobody's business but the machine's own and its hosts': the responder must not answer a neighbour of the machine. */
function closeLink(network: HostNetwork): string {
  return `ip daddr ${linkAddressOf(network)} iifname != "lo" iifname != ${nodePattern(network)} drop`;
}

function translateResolver(network: HostNetwork, policy: HostPolicy): string {
  if (policy.resolverPort === undefined) return '';
  const asked = `iifname ${bridgePattern(network)} ip daddr ${RESOLVER_ADDRESS} meta l4proto { tcp, udp } th dport 53`;
  return `${asked} dnat ip to ${linkAddressOf(network)}:${String(policy.resolverPort)}`;
}

function inetTable(network: HostNetwork, policy: HostPolicy): string {
  const ours = bridgePattern(network);
  const node = policy.octets.map((octet) => rangeOf(octet)).join(', ');
  const link = linkAddressOf(network);
  const isShared = network.namespace === undefined;
  const sources = policy.tenants.map(({ tenantNumber }) => {
    const { bridge, subnet } = tenantNetworkOf(network, tenantNumber);
    return `"${bridge}" . ${subnet}`;
  });
  return `table inet ${tableOf(network)} {
  set out { type ipv4_addr; ${elementsOf(localAddresses(network, policy.tenants, 'with a way out'))} }
  set sources { type ifname . ipv4_addr; flags interval; ${elementsOf(sources)} }
  set askers { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 1024; }
${setsAndTenantChains('inet', policy)}
  chain source {
    type filter hook prerouting priority ${String(PRIORITY_SOURCE)}; policy accept;
    iifname ${ours} meta nfproto ipv6 drop
    iifname ${ours} iifname . ip saddr != @sources drop
    iifname ${ours} ip daddr ${RESOLVER_ADDRESS} meta l4proto udp update @askers { ip saddr & 255.255.252.0 ${QUESTIONS} } counter drop
  }
  chain names {
    type nat hook prerouting priority -100; policy accept;
    ${translateResolver(network, policy)}
  }
  chain peers {
    ${toTenantBy('ip saddr', network, policy)}
    ${toTenantBy('ip daddr', network, policy)}
    drop
  }
  chain from_container {
    ${isShared ? '' : `ip daddr ${link} ct direction reply ct state established,related accept`}
    ${isShared ? '' : acceptResponder(network, policy, ours)}
    ip daddr { ${node} } goto peers
    ip daddr { ${NEVER_OUTSIDE} } drop
    ip saddr @out accept
    ${isDynamic(network, 'ip saddr')} accept
    drop
  }
  chain to_container {
    ${isShared ? '' : `iifname "${UPLINK}" ip saddr ${link} accept`}
    iifname ${isShared ? nodePattern(network) : `"${UPLINK}"`} ip saddr { ${node} } goto peers
    ct state established,related accept
    drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname ${ours} goto from_container
    oifname ${ours} goto to_container
  }
  chain input {
    type filter hook input priority -10; policy accept;
    ${isShared ? acceptResponder(network, policy, ours) : ''}
    iifname ${ours} ct direction reply ct state established,related accept
    iifname ${ours} drop
    ${isShared ? closeLink(network) : ''}
  }
  ${
    isShared
      ? `chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${rangeOf(network.octet)} oifname != ${nodePattern(network)} masquerade
  }`
      : ''
  }
}
`;
}

/** `delete` after a declaration is nft's idiom for "replace, whether it was there or not". */
function replaced(family: Family, network: HostNetwork): string {
  const table = `table ${family} ${tableOf(network)}`;
  return `${table}\ndelete ${table}\n`;
}

/** All rules inside one host's namespace, in place of what was there. One transaction. */
export function hostRules(network: HostNetwork, policy: HostPolicy): string {
  const text = FAMILIES.map((family) => replaced(family, network)).join('');
  return withoutBlankLines(`${text}${inetTable(network, policy)}${bridgeTable(network, policy)}`);
}

/** The rules in the root namespace for a host in a namespace of its own: the way out and to other hosts, whose own rules judge. */
export function uplinkRules(network: HostNetwork, policy: HostPolicy): string {
  const veth = vethOf(network);
  const own = rangeOf(network.octet);
  return withoutBlankLines(`${replaced('inet', network)}table inet ${tableOf(network)} {
  chain source {
    type filter hook prerouting priority ${String(PRIORITY_SOURCE)}; policy accept;
    iifname "${veth}" meta nfproto ipv6 drop
    iifname "${veth}" ip saddr != ${own} drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    oifname "${veth}" iifname ${nodePattern(network)} accept
    oifname "${veth}" ct state established,related accept
    oifname "${veth}" drop
  }
  chain input {
    type filter hook input priority -10; policy accept;
    ${acceptResponder(network, policy, `"${veth}"`)}
    iifname "${veth}" ip saddr ${engineAddressOf(network)} ip daddr ${linkAddressOf(network)} tcp dport ${String(RELAY_PORT)} accept
    iifname "${veth}" ct direction reply ct state established,related accept
    iifname "${veth}" drop
    ${closeLink(network)}
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${own} oifname != ${nodePattern(network)} masquerade
  }
}
`);
}

function withoutBlankLines(text: string): string {
  return text.replaceAll(/\n(?:\s*\n)+/g, '\n');
}

/** What a policy says besides addresses and networks: a change of it needs all rules anew. */
function frameOf(policy: HostPolicy): string {
  const numbers = policy.tenants.map(({ tenantNumber }) => tenantNumber).toSorted((one, other) => one - other);
  return JSON.stringify([policy.octets.toSorted((one, other) => one - other), policy.resolverPort ?? 0, numbers]);
}

/**
 * The commands between two policies with the same frame, for one transaction: empty where nothing changes; undefined where the frame does. It is on the
 * way of every start, so tenants of whom nothing changed cost a comparison. Tenants share no address.
 */
export function changeRules(network: HostNetwork, before: HostPolicy, after: HostPolicy): string | undefined {
  if (frameOf(before) !== frameOf(after)) return undefined;
  const old = new Map(before.tenants.map((tenant) => [tenant.tenantNumber, tenant]));
  const commands = after.tenants.flatMap((tenant) => {
    const known = old.get(tenant.tenantNumber);
    return known === undefined || isSame(known, tenant) ? [] : tenantChange(network, known, tenant);
  });
  return commands.map((command) => `${command}\n`).join('');
}

function isSame(one: TenantPolicy, other: TenantPolicy): boolean {
  return (
    one.networks.length === other.networks.length &&
    one.networks.every(({ id, internal, addresses }, index) => {
      const twin = other.networks[index];
      if (twin?.id !== id || twin.internal !== internal || twin.addresses.length !== addresses.length) return false;
      return twin.addresses.every((address, place) => address === addresses[place]);
    })
  );
}

function tenantChange(network: HostNetwork, before: TenantPolicy, after: TenantPolicy): readonly string[] {
  const old = new Map(occupiedOf(before).map((members) => [members.id, members]));
  const current = new Map(occupiedOf(after).map((members) => [members.id, members]));
  const added = [...current.values()].filter(({ id }) => !old.has(id));
  const removed = [...old.values()].filter(({ id }) => !current.has(id));
  const inFamilies = FAMILIES.flatMap((family) => {
    const table = `${family} ${tableOf(network)}`;
    const chain = `${table} t${String(after.tenantNumber)}`;
    const isChainNew = added.length > 0 || removed.length > 0;
    return [
      ...added.map((members) => `add set ${table} ${setOf(members)} { type ipv4_addr; ${elementsOf(members.addresses)} }`),
      ...(isChainNew ? [`flush chain ${chain}`, ...tenantRules(family, after).map((rule) => `add rule ${chain} ${rule}`)] : []),
      ...removed.map((members) => `delete set ${table} ${setOf(members)}`),
      ...[...current.values()].flatMap((members) => {
        const known = old.get(members.id);
        return known === undefined ? [] : elementChange(`${table} ${setOf(members)}`, known.addresses, members.addresses);
      }),
    ];
  });
  const table = tableOf(network);
  const stations = [before, after].map((tenant) => localAddresses(network, [tenant], 'all').map((address) => stationOf(address)));
  const out = [before, after].map((tenant) => localAddresses(network, [tenant], 'with a way out'));
  return [
    ...inFamilies,
    ...elementChange(`bridge ${table} stations`, stations[0] ?? [], stations[1] ?? []),
    ...elementChange(`inet ${table} out`, out[0] ?? [], out[1] ?? []),
  ];
}

function elementChange(set: string, before: readonly string[], after: readonly string[]): readonly string[] {
  const [old, current] = [new Set(before), new Set(after)];
  const added = [...current].filter((value) => !old.has(value));
  const removed = [...old].filter((value) => !current.has(value));
  return [
    ...(removed.length > 0 ? [`delete element ${set} { ${removed.join(', ')} }`] : []),
    ...(added.length > 0 ? [`add element ${set} { ${added.join(', ')} }`] : []),
  ];
}
