/**
 * The network of one host on the machine: its namespace (or the machine's own), its link to the root namespace, and the end of both. dockerd's
 * own iptables rules are off, so that a Docker of the machine's user is never touched; the rules that stand in their place are in packet-rules.ts.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { runCommand, tryCommand } from '#command';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { linkAddressOf, loopbackLabelOf, tableOf, UPLINK, vethOf } from './host-addresses.ts';
import type { HostNetwork } from './host-addresses.ts';
import { hostRules, uplinkRules } from './packet-rules.ts';
import type { HostPolicy } from './packet-rules.ts';

/** Second octets that private networks of users and clouds rarely have; each host takes one. */
const OCTET_MIN = 64;
const OCTET_MAX = 223;
const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

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

/** Runs a program to its end inside the host's network namespace. */
export async function runInNamespace(
  network: HostNetwork,
  program: string,
  args: readonly string[],
  input = '',
): Promise<string> {
  const [command, rest] = inNamespace(network, program, args);
  return await runCommand(command, rest, { input });
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
  return (await tryCommand('nft', ['list', 'table', 'inet', tableOf(network)])).exitCode === 0;
}

/**
 * Makes the host's namespace with its link, if it has one, and shuts it: nothing passes until a policy is applied. Where an earlier daemon's
 * rules stand, they stay until then, because its containers live on. Safe to repeat.
 */
export async function openHostNetwork(network: HostNetwork): Promise<void> {
  const wasOpen = await isHostNetworkOpen(network);
  if (network.namespace !== undefined) await openNamespace(network, network.namespace);
  // In a namespace of its own the link has this address.
  else {
    const own = ['dev', 'lo', 'scope', 'host', 'label', loopbackLabelOf(network)];
    await runCommand('ip', ['address', 'replace', `${linkAddressOf(network)}/32`, ...own]);
  }
  if (!wasOpen) await applyPolicy(network, { octets: [network.octet], resolverPort: undefined, tenants: [] });
}

/** Replaces all rules of a host, whatever they were, in one transaction a namespace. */
export async function applyPolicy(network: HostNetwork, policy: HostPolicy): Promise<void> {
  if (network.namespace !== undefined) await runCommand('nft', ['-f', '-'], { input: uplinkRules(network, policy) });
  await runInNamespace(network, 'nft', ['-f', '-'], hostRules(network, policy));
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
  await runInNamespace(network, 'sh', ['-c', `echo 1 > ${IP_FORWARD}`]);
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
  for (const family of ['inet', 'bridge']) await tryCommand('nft', ['delete', 'table', family, tableOf(network)]);
  if (network.namespace === undefined) await tryCommand('ip', ['address', 'delete', `${linkAddressOf(network)}/32`, 'dev', 'lo']);
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

const MIGRATE_REQUESTS_FILE = '/proc/sys/net/ipv4/tcp_migrate_req';

/**
 * Lets connections that nobody has accepted yet go from a listener that closes to another on the same port (Linux 5.14): without it each worker that
 * ends resets those in its queue. For the whole machine; it changes nothing for programs that do not share ports, and stays on.
 */
export async function allowMigratingRequests(log: Log): Promise<void> {
  try {
    await writeFile(MIGRATE_REQUESTS_FILE, '1\n');
  } catch (error) {
    log.warn(
      { reason: reasonOf(error) },
      'connections that wait for a worker that ends will be reset: net.ipv4.tcp_migrate_req cannot be set',
    );
  }
}
