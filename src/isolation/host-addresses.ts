/**
 * Who has which address and name on a host. Pure.
 *
 * A host has 10.OCTET.0.0/16. In it 10.OCTET.0.0/22 links the host itself; 10.OCTET.(4N).0/22 is tenant network N (1 to 63): its first
 * address is the gateway, its last /26 is the engine's to give (containers of builds), and what is between is ours to give.
 */
import { isIPv4 } from 'node:net';

export interface HostNetwork {
  /** Six hex digits that tell this node's objects from others' on the machine. */
  readonly scope: string;
  /** Position of the host among the node's hosts, 0 to 9: part of interface names, which have 15 characters. */
  readonly index: number;
  readonly octet: number;
  /** Name of the network namespace; undefined: the machine's own. */
  readonly namespace: string | undefined;
}

export interface TenantNetwork {
  readonly bridge: string;
  readonly subnet: string;
  readonly gateway: string;
  /** What the engine may give by itself. */
  readonly dynamicRange: string;
}

/**
 * Where containers ask for names: the same on every host and for every tenant, so that it stays right when a container moves. TEST-NET-1
 * (RFC 5737) is assigned to nobody and in no routing table; link-local is what our own rules drop, 100.64/10 and 198.18/15 are what overlay
 * networks and fake-IP proxies take. No packet to it leaves a host: the host's rules lead it to the node's responder.
 */
export const RESOLVER_ADDRESS = '192.0.2.53';

/** Addresses of a tenant network that are ours to give: .2 of the first /24 up to .191 of the last. */
export const STATIC_ADDRESSES = 4 * 256 - 64 - 2;

/** The names and addresses of tenant network `number` on a host. */
export function tenantNetworkOf(network: HostNetwork, number: number): TenantNetwork {
  const first = `10.${String(network.octet)}.${String(number * 4)}`;
  return {
    bridge: `e${network.scope}h${String(network.index)}t${String(number)}`,
    subnet: `${first}.0/22`,
    gateway: `${first}.1`,
    dynamicRange: `10.${String(network.octet)}.${String(number * 4 + 3)}.192/26`,
  };
}

/** The address number `place` (0 to STATIC_ADDRESSES - 1) of tenant network `number` that is ours to give. */
export function staticAddressOf(network: HostNetwork, number: number, place: number): string {
  if (place < 0 || place >= STATIC_ADDRESSES) throw new RangeError(`a tenant network has no static address ${String(place)}`);
  const offset = place + 2;
  return `10.${String(network.octet)}.${String(number * 4 + Math.floor(offset / 256))}.${String(offset % 256)}`;
}

export function isOfHost(octet: number, address: string): boolean {
  return isIPv4(address) && address.startsWith(`10.${String(octet)}.`);
}

/**
 * The MAC that a container with this address must have: rules hold every container to its pair of both, so that none can speak for another.
 * It is the one that Docker Engine before 28 derives by itself.
 */
export function macAddressOf(address: string): string {
  const bytes = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  return `02:42:${bytes.join(':')}`;
}

/** The host's own address in the root namespace: the edge connects from it, and the node's responder listens on it. */
export function linkAddressOf(network: HostNetwork): string {
  return `10.${String(network.octet)}.0.1`;
}

/** Where the engine of a host in a namespace finds the node's way to registries, on the host's link address. */
export const RELAY_PORT = 20_117;

/** The other end of the link: the namespace itself, which is the engine. */
export function engineAddressOf(network: HostNetwork): string {
  return `10.${String(network.octet)}.0.2`;
}

export const UPLINK = 'uplink';

/** nft's pattern for the host's bridges. */
export function bridgePattern(network: HostNetwork): string {
  return `"e${network.scope}h${String(network.index)}t*"`;
}

/** nft's pattern for every interface of this node in a namespace: bridges, and links to hosts. */
export function nodePattern(network: HostNetwork): string {
  return `"e${network.scope}*"`;
}

export function vethOf(network: HostNetwork): string {
  return `e${network.scope}v${String(network.index)}`;
}

/** Tells the link address of a host in the machine's own namespace from the other addresses on `lo`. */
export function loopbackLabelOf(network: HostNetwork): string {
  return `lo:e${network.scope}${String(network.index)}`;
}

export function tableOf(network: HostNetwork): string {
  return `ecluse_${network.scope}_${String(network.index)}`;
}
