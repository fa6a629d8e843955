/**
 * Which registries, and which addresses, the node speaks to for tenants. Pure, but for the machine's own addresses.
 *
 * A registry that the operator named is reached wherever it is. Any other is reached at public addresses only, and by TLS only: neither a tenant's
 * `docker pull 10.0.0.1/x`, nor a name that resolves to a private address, nor a redirect of a public registry opens a way into the operator's
 * networks. Names are read by the same parser as the connection's (WHATWG URL), so that 0x7f.1 and 2130706433 are 127.0.0.1 here too.
 */
import { BlockList, isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { dockerError } from '#caas/docker-api/docker-error.ts';

const HTTPS_PORT = 443;
/** Docker's name for its hub, and where that is. */
const HUB = 'docker.io';
const HUB_HOST = 'registry-1.docker.io';

interface NamedRegistry {
  readonly isPlain: boolean;
}

export interface RegistryPolicy {
  readonly isAnyPublic: boolean;
  /** By `host:port`. */
  readonly named: ReadonlyMap<string, NamedRegistry>;
}

/** Where a registry is, when it may be spoken to. */
export interface RegistryPlace {
  /** As in a URL: an address of version 6 stands in brackets. */
  readonly host: string;
  readonly port: number;
  /** The operator named it: private addresses are meant. */
  readonly isNamed: boolean;
  /** HTTP, or TLS with any certificate, is taken too: on the loopback interface, as Docker does, and where the operator says so. */
  readonly isInsecure: boolean;
}

function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** What `registries` of ecluse.yaml says: `*`, `registry.example.com`, `10.0.0.5:5000`, `http://10.0.0.5:5000`. */
export function parseRegistries(entries: readonly string[]): RegistryPolicy {
  const named = new Map<string, NamedRegistry>();
  for (const entry of entries) {
    if (entry === '*') continue;
    const isPlain = entry.startsWith('http://');
    const url = urlOf(isPlain ? entry.slice('http://'.length) : entry);
    if (url !== undefined) named.set(keyOf(url), { isPlain });
  }
  return { isAnyPublic: entries.includes('*'), named };
}

function urlOf(domain: string): URL | undefined {
  return URL.parse(`https://${domain}/`) ?? undefined;
}

function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port);
  return url.protocol === 'http:' ? 80 : HTTPS_PORT;
}

function keyOf(url: URL): string {
  return `${url.hostname}:${String(portOf(url))}`;
}

/** Networks that are not the public Internet (IANA special-purpose address registries), and what leads into them by translation. */
const SPECIAL_V4 = blockListOf(
  'ipv4',
  `0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16
   198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3`,
);
/** All but 2000::/3, and in it: Teredo and other protocol assignments, documentation, 6to4. */
const SPECIAL_V6 = blockListOf('ipv6', '::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 3fff::/20');

function blockListOf(family: 'ipv4' | 'ipv6', networks: string): BlockList {
  const list = new BlockList();
  for (const network of networks.split(/\s+/)) {
    const [address = '', bits = ''] = network.split('/');
    list.addSubnet(address, Number(bits), family);
  }
  return list;
}

export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return false;
  return family === 4 ? !SPECIAL_V4.check(address, 'ipv4') : !SPECIAL_V6.check(address, 'ipv6');
}

/** Public, and none of this machine's: a service here that is bound to its public address is not for tenants through the back door. */
export function isForeignAddress(address: string): boolean {
  const own = Object.values(networkInterfaces()).flatMap((addresses) => (addresses ?? []).map((one) => one.address));
  return isPublicAddress(address) && !own.includes(address);
}

/** Whether a URL's host is one that must not be spoken to whatever it resolves to. */
function isForbiddenHost(host: string): boolean {
  const literal = host.replace(/^\[|\]$/g, '');
  return isLoopbackHost(host) || (isIP(literal) !== 0 && !isForeignAddress(literal));
}

function placeAt(policy: RegistryPolicy, url: URL): RegistryPlace | undefined {
  const named = policy.named.get(keyOf(url));
  const place = { host: url.hostname, port: portOf(url) };
  if (named !== undefined) return { ...place, isNamed: true, isInsecure: named.isPlain || isLoopbackHost(url.hostname) };
  if (isForbiddenHost(url.hostname)) return undefined;
  return { ...place, isNamed: false, isInsecure: false };
}

/** The registry of an image name (`docker.io`, `host:port`). Throws for one that this node does not speak to. */
export function registryAt(policy: RegistryPolicy, domain: string): RegistryPlace {
  const url = urlOf(domain);
  const named = url === undefined ? undefined : policy.named.get(keyOf(url));
  const place = url === undefined || (named === undefined && !policy.isAnyPublic) ? undefined : placeAt(policy, url);
  if (place === undefined) throw registryRefused(domain);
  return domain === HUB ? { ...place, host: HUB_HOST } : place;
}

/** Where a registry sends a client on to (a redirect, a token server, an upload). Throws for what is not to be reached. */
export function hopTo(policy: RegistryPolicy, url: URL): RegistryPlace {
  const isHttp = url.protocol === 'https:' || url.protocol === 'http:';
  const place = isHttp && url.username === '' && url.password === '' ? placeAt(policy, url) : undefined;
  if (place === undefined || (url.protocol === 'http:' && !place.isInsecure)) throw registryRefused(url.host);
  return place;
}

export function registryRefused(domain: string): Error {
  return dockerError(
    403,
    `ecluse: the registry ${domain.slice(0, 200)} is not reached from this node: it is no public one and the operator did not name it under "registries"`,
  );
}
