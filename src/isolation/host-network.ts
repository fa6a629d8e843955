/**
 * The network of one host: its namespace (or the machine's own), the tenants' bridges in it, and the nftables table that keeps them
 * apart. dockerd's own iptables rules are off, so that a Docker of the machine's user is never touched.
 *
 * Policy: a container talks to its tenant's containers on the same bridge and to the outside (masqueraded); never to another tenant,
 * to the host, to link-local or metadata addresses, or to other hosts' containers. Only the edge (the root namespace itself) connects in.
 *
 * Addresses: host networks are 10.OCTET.0.0/16; 10.OCTET.0.0/30 links a namespace to the root one; 10.OCTET.N.0/24 is tenant network N.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { runCommand, tryCommand } from '#command';
import { EcluseError } from '#errors';

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
}

const UPLINK = 'uplink';
/** Second octets that private networks of users and clouds rarely have; each host takes one. */
const OCTET_MIN = 64;
const OCTET_MAX = 223;
const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

/** The names and addresses of tenant network `number` on a host. Pure. */
export function tenantNetworkOf(network: HostNetwork, number: number): TenantNetwork {
  return {
    bridge: `e${network.scope}h${String(network.index)}t${String(number)}`,
    subnet: `10.${String(network.octet)}.${String(number)}.0/24`,
    gateway: `10.${String(network.octet)}.${String(number)}.1`,
  };
}

function bridgePattern(network: HostNetwork): string {
  return `"e${network.scope}h${String(network.index)}t*"`;
}

function vethOf(network: HostNetwork): string {
  return `e${network.scope}v${String(network.index)}`;
}

/** The arguments that run a program inside the host's network namespace. `nsenter`, because `ip netns exec` remounts /sys. */
export function inNamespace(
  network: HostNetwork,
  program: string,
  args: readonly string[],
): readonly [string, readonly string[]] {
  return network.namespace === undefined
    ? [program, args]
    : ['nsenter', [`--net=/run/netns/${network.namespace}`, program, ...args]];
}

async function run(network: HostNetwork, program: string, args: readonly string[], input = ''): Promise<string> {
  const [command, rest] = inNamespace(network, program, args);
  return await runCommand(command, rest, { input });
}

/** The rules inside one host's namespace. `delete` after a declaration is nft's idiom for "replace, whether it was there or not". Pure. */
export function hostRules(network: HostNetwork, bridges: readonly string[]): string {
  const table = `inet ecluse_${network.scope}_${String(network.index)}`;
  const ours = bridgePattern(network);
  const own = `10.${String(network.octet)}`;
  const fromEdge = network.namespace === undefined ? '' : `iifname "${UPLINK}" ip saddr ${own}.0.1 accept`;
  const pairs = bridges.map((bridge) => `"${bridge}" . "${bridge}"`).join(', ');
  return `table ${table}
delete table ${table}
table ${table} {
  set same_bridge { type ifname . ifname; ${pairs === '' ? '' : `elements = { ${pairs} }`} }
  chain forward {
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    iifname . oifname @same_bridge accept
    ${fromEdge}
    oifname ${ours} drop
    iifname ${ours} ip daddr { 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/4, ${own}.0.0/16 } drop
    iifname ${ours} meta nfproto ipv6 drop
  }
  chain input {
    type filter hook input priority -10; policy accept;
    iifname ${ours} ct state established,related accept
    iifname ${ours} drop
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${own}.0.0/16 oifname != ${ours} ${network.namespace === undefined ? 'masquerade' : 'accept'}
  }
}
`;
}

/** The rules in the root namespace for a host in a namespace of its own: the way out, and nothing else. Pure. */
export function uplinkRules(network: HostNetwork): string {
  const table = `inet ecluse_${network.scope}_${String(network.index)}`;
  const veth = vethOf(network);
  return `table ${table}
delete table ${table}
table ${table} {
  chain forward {
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    oifname "${veth}" drop
    iifname "${veth}" oifname "e${network.scope}*" drop
  }
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "${veth}" ct state established,related accept
    iifname "${veth}" drop
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 10.${String(network.octet)}.0.0/16 oifname != "${veth}" masquerade
  }
}
`;
}

/** A second octet whose /16 nothing on this machine routes yet. */
export async function chooseOctet(seed: number, taken: ReadonlySet<number>): Promise<number> {
  const routes = await runCommand('ip', ['-4', 'route', 'show', 'table', 'all']);
  const span = OCTET_MAX - OCTET_MIN + 1;
  for (let step = 0; step < span; step += 1) {
    const octet = OCTET_MIN + ((seed + step) % span);
    if (!taken.has(octet) && !new RegExp(`(?:^|\\s)10\\.${String(octet)}\\.`, 'm').test(routes)) return octet;
  }
  throw new EcluseError({
    code: 'ECLUSE_NETWORK_EXHAUSTED',
    source: 'runtime',
    message: 'no free private network 10.64.0.0/16 to 10.223.0.0/16 is left on this machine',
    mend: 'remove unused routes or hosts',
  });
}

/** Whether the host's rules are on the machine: an earlier daemon that was killed left them, maybe with containers behind them. */
export async function isHostNetworkOpen(network: HostNetwork): Promise<boolean> {
  const table = `ecluse_${network.scope}_${String(network.index)}`;
  return (await tryCommand('nft', ['list', 'table', 'inet', table])).exitCode === 0;
}

/** Makes the host's namespace with its link, if it has one, and its rules. Safe to repeat. */
export async function openHostNetwork(network: HostNetwork, bridges: readonly string[]): Promise<void> {
  if (network.namespace !== undefined) await openNamespace(network, network.namespace);
  await applyHostRules(network, bridges);
}

async function openNamespace(network: HostNetwork, namespace: string): Promise<void> {
  const veth = vethOf(network);
  const own = `10.${String(network.octet)}`;
  if (!existsSync(`/run/netns/${namespace}`)) await runCommand('ip', ['netns', 'add', namespace]);
  if ((await tryCommand('ip', ['link', 'show', veth])).exitCode !== 0) {
    await runCommand('ip', ['link', 'add', veth, 'type', 'veth', 'peer', 'name', UPLINK, 'netns', namespace]);
  }
  await runCommand('ip', ['address', 'replace', `${own}.0.1/30`, 'dev', veth]);
  await runCommand('ip', ['link', 'set', veth, 'up']);
  await runCommand('ip', ['-n', namespace, 'address', 'replace', `${own}.0.2/30`, 'dev', UPLINK]);
  await runCommand('ip', ['-n', namespace, 'link', 'set', UPLINK, 'up']);
  await runCommand('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
  await runCommand('ip', ['-n', namespace, 'route', 'replace', 'default', 'via', `${own}.0.1`]);
  await runCommand('ip', ['route', 'replace', `${own}.0.0/16`, 'via', `${own}.0.2`]);
  await run(network, 'sh', ['-c', `echo 1 > ${IP_FORWARD}`]);
  await runCommand('nft', ['-f', '-'], { input: uplinkRules(network) });
}

/** Replaces the host's rules in one atomic step. */
export async function applyHostRules(network: HostNetwork, bridges: readonly string[]): Promise<void> {
  await run(network, 'nft', ['-f', '-'], hostRules(network, bridges));
}

/**
 * Lets the machine forward packets (containers' way out). Returns whether it was off before: who switched it on switches it off again.
 */
export async function enableForwarding(): Promise<boolean> {
  const wasOff = (await readFile(IP_FORWARD, 'utf8')).trim() === '0';
  if (wasOff) await writeFile(IP_FORWARD, '1');
  return wasOff;
}

export async function disableForwarding(): Promise<void> {
  await writeFile(IP_FORWARD, '0');
}

/** Removes everything that `openHostNetwork` and the engine made for this host: rules, bridges, link, namespace. Safe to repeat. */
export async function closeHostNetwork(network: HostNetwork, extent: 'with-bridges' | 'rules-only'): Promise<void> {
  await tryCommand('nft', ['delete', 'table', 'inet', `ecluse_${network.scope}_${String(network.index)}`]);
  if (network.namespace === undefined && extent === 'rules-only') return;
  if (network.namespace === undefined) {
    for (const name of await readdir('/sys/class/net')) {
      if (name.startsWith(`e${network.scope}h${String(network.index)}t`)) await tryCommand('ip', ['link', 'delete', name]);
    }
    return;
  }
  await tryCommand('ip', ['link', 'delete', vethOf(network)]);
  if (existsSync(`/run/netns/${network.namespace}`)) await runCommand('ip', ['netns', 'delete', network.namespace]);
  // `ip netns add` makes /run/netns a mount point; the last one out takes it along.
  const left = await readdir('/run/netns').catch(() => ['?']);
  if (left.length === 0) await tryCommand('umount', ['/run/netns']);
}
