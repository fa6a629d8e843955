/**
 * Whose word about a client's address is believed: compiled from the operator's list, asked for each request. Pure.
 *
 * SECURITY: `X-Forwarded-For` is whatever its senders wrote. Only what a trusted proxy appended counts, so it is read from the right, and no
 * further than the first address that is not trusted: that one is the client, as far as anybody can know.
 */
import { ADDRESS_BYTES, IPV4_OFFSET, addressText, canonicalAddress, isMapped, readAddress } from './ip-address.ts';

interface Network {
  readonly address: Uint8Array;
  /** Of the 16 bytes. */
  readonly prefixBits: number;
  /** IPv4 addresses are in IPv4 networks only: `::/0` is every IPv6 address. */
  readonly isFour: boolean;
}

export interface TrustedProxies {
  readonly networks: readonly Network[];
}

export type ParsedTrustedProxies =
  | { readonly kind: 'trusted'; readonly trusted: TrustedProxies }
  | { readonly kind: 'invalid'; /** Of the list. */ readonly index: number; /** One line. */ readonly why: string };

/** Longer than any chain of proxies; what is left of it is then told by the last one. */
const HOPS_MAX = 32;
const EXAMPLES = '"192.0.2.1", "10.0.0.0/8" or "2001:db8::/32"';

/** Compiles addresses and networks (CIDR) of IPv4 and IPv6. A network whose address is not its first is a fault: a typo would trust strangers. */
export function parseTrustedProxies(list: readonly string[]): ParsedTrustedProxies {
  const networks: Network[] = [];
  for (const [index, entry] of list.entries()) {
    const parsed = parseNetwork(entry);
    if (typeof parsed === 'string') return { kind: 'invalid', index, why: parsed };
    networks.push(parsed);
  }
  return { kind: 'trusted', trusted: { networks } };
}

const scratch = new Uint8Array(ADDRESS_BYTES);

/** Whether an address is in the set; what is no address is not. IPv4-mapped addresses are IPv4. Allocates nothing for IPv4. */
export function isTrusted(trusted: TrustedProxies, address: string): boolean {
  if (trusted.networks.length === 0 || !readAddress(address, scratch)) return false;
  const isFour = isMapped(scratch);
  for (const network of trusted.networks) if (network.isFour === isFour && isWithin(scratch, network)) return true;
  return false;
}

/**
 * The client's address: `peer`, unless that is trusted and `forwardedFor` (all of a request's `X-Forwarded-For`, joined with commas) tells of
 * another. Ports and brackets (`[2001:db8::1]:443`) are taken off. Entries that are no address end the walk: what is left of them came from whom
 * nobody vouches for. In: at most as long as a head. Out: in one spelling (RFC 5952); a `peer` that is no address as it is.
 */
export function clientOf(trusted: TrustedProxies, peer: string, forwardedFor: string | undefined): string {
  // IPv4 has one spelling.
  let client = peer.includes(':') ? (canonicalAddress(peer) ?? peer) : peer;
  if (forwardedFor === undefined) return client;
  let end = forwardedFor.length;
  for (let hops = 0; hops < HOPS_MAX && end >= 0 && isTrusted(trusted, client); hops += 1) {
    const comma = end === 0 ? -1 : forwardedFor.lastIndexOf(',', end - 1);
    const told = canonicalAddress(withoutPort(forwardedFor.slice(comma + 1, end).trim()));
    if (told === undefined) return client;
    client = told;
    end = comma;
  }
  return client;
}

/** `192.0.2.1:80`, `[2001:db8::1]:80` and `[2001:db8::1]` without port and brackets; anything else as it is. */
function withoutPort(text: string): string {
  return /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(text)?.[1] ?? text;
}

function parseNetwork(entry: string): Network | string {
  const slash = entry.indexOf('/');
  const written = slash === -1 ? entry : entry.slice(0, slash);
  const address = new Uint8Array(ADDRESS_BYTES);
  if (written.includes('%') || !readAddress(written, address))
    return `${JSON.stringify(entry)} is neither an address nor a network; write it like ${EXAMPLES}`;
  const isDotted = !written.includes(':');
  const bits = isDotted ? 32 : 128;
  const suffix = slash === -1 ? String(bits) : entry.slice(slash + 1);
  if (!/^(?:0|[1-9]\d{0,2})$/.test(suffix) || Number(suffix) > bits)
    return `the prefix of "${entry}" is not a number from 0 to ${String(bits)}`;
  const prefixBits = Number(suffix) + (isDotted ? 8 * IPV4_OFFSET : 0);
  const network = address.map((octet, index) => octet & maskOf(prefixBits, index));
  if (network.some((octet, index) => octet !== address[index]))
    return `"${entry}" is an address inside of a network; write "${addressText(network)}/${suffix}" for the network, or "${written}" for the address alone`;
  return { address: network, prefixBits, isFour: isMapped(network) && prefixBits >= 8 * IPV4_OFFSET };
}

/** The octet at `index` of a mask with `prefixBits` ones. */
function maskOf(prefixBits: number, index: number): number {
  const ones = Math.min(8, Math.max(0, prefixBits - 8 * index));
  return (0xff << (8 - ones)) & 0xff;
}

function isWithin(address: Uint8Array, network: Network): boolean {
  const whole = network.prefixBits >> 3;
  for (let index = 0; index < whole; index += 1) if (address[index] !== network.address[index]) return false;
  const rest = maskOf(network.prefixBits, whole);
  return rest === 0 || ((address[whole] ?? 0) & rest) === network.address[whole];
}

/** Nobody, where it cannot be read: the primary has checked it. */
export function trustedOf({ trustedProxies }: { readonly trustedProxies: readonly string[] }): TrustedProxies {
  const parsed = parseTrustedProxies(trustedProxies);
  return parsed.kind === 'trusted' ? parsed.trusted : { networks: [] };
}
