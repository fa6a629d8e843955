/** The hosts of a node: brought up together, each with a private network that nothing else on the machine uses. */
import { join } from 'node:path';
import type { Clock } from '#clock';
import { tryCommand } from '#command';
import { EcluseError } from '#errors';
import { reasonOf } from '#errors';
import { Host, scopeOf } from '#caas/host.ts';
import type { HostDeps } from '#caas/host.ts';
import { chooseOctet, disableForwarding, enableForwarding } from '#isolation/host-network.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { listHosts, putHost } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { readSetting, writeSetting } from '#state/settings.ts';

export interface HostWish {
  readonly name: string;
  readonly engine: string;
}

/** One digit of an interface's name, which has 15 characters. */
const POSITION_MAX = 9;
const FORWARDING_KEY = 'forwarding_was_off';

/** The lowest position that no host has, or ever had: a removed host's data may still be there. */
function firstFree(positions: ReadonlySet<number>): number {
  let position = 0;
  while (positions.has(position)) position += 1;
  if (position > POSITION_MAX) {
    throw new EcluseError({
      code: 'ECLUSE_HOSTS_EXHAUSTED',
      source: 'config',
      message: `this node has had ${String(positions.size)} hosts, which is as many as it can tell apart`,
      mend: 'use the name of a host that is gone for the new one',
    });
  }
  return position;
}

async function networksOf(
  sql: Sql,
  clock: Clock,
  dataDir: string,
  wishes: readonly HostWish[],
): Promise<ReadonlyMap<string, HostNetwork>> {
  const scope = scopeOf(dataDir);
  const known = new Map((await listHosts(sql)).map((host) => [host.name, host]));
  const octets = new Set([...known.values()].map((host) => host.networkOctet));
  const positions = new Set([...known.values()].map((host) => host.position));
  const networks = new Map<string, HostNetwork>();
  for (const [order, { name, engine }] of wishes.entries()) {
    const position = known.get(name)?.position ?? firstFree(positions);
    const octet = known.get(name)?.networkOctet ?? (await chooseOctet(Number.parseInt(scope, 16) + position * 7, octets));
    octets.add(octet);
    positions.add(position);
    if (!known.has(name))
      await putHost(sql, { name, engine, networkOctet: octet, position, createdMs: clock.nowMs() + order, state: 'active' });
    // The first host lives in the machine's own network; each further managed one is a machine of its own as far as the network goes.
    const isOwnMachine = position > 0 && engine === 'managed';
    networks.set(name, { scope, index: position, octet, namespace: isOwnMachine ? `ecluse-${scope}-${name}` : undefined });
  }
  return networks;
}

/** Brings all hosts up, beside each other. Those that came up are let go again where one fails. */
export async function openHosts(
  deps: HostDeps,
  options: { readonly dataDir: string; readonly wishes: readonly HostWish[] },
): Promise<ReadonlyMap<string, Host>> {
  const networks = await networksOf(deps.sql, deps.clock, options.dataDir, options.wishes);
  if (await enableForwarding()) await writeSetting(deps.sql, FORWARDING_KEY, '1');
  const outcomes = await Promise.allSettled(
    options.wishes.map(async ({ name, engine }) => {
      const network = networks.get(name);
      if (network === undefined) throw new Error(`host ${name} has no network`);
      return await Host.open(deps, { name, engine, dir: join(options.dataDir, 'hosts', name), network });
    }),
  );
  const hosts = outcomes.filter((outcome) => outcome.status === 'fulfilled').map((outcome) => outcome.value);
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) {
    await Promise.all(hosts.map(async (host) => await letGo(deps, host)));
    await restoreForwarding(deps.sql);
    throw failure.reason;
  }
  return new Map(hosts.map((host) => [host.name, host]));
}

/** An engine that only now came up is ended again; with containers of an earlier daemon on it it is left alone. */
async function letGo(deps: HostDeps, host: Host): Promise<void> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['containers', 'json'] });
    await (Array.isArray(json) && json.length > 0 ? host.release() : host.close());
  } catch (error) {
    deps.log.error({ host: host.name, reason: reasonOf(error) }, 'a host could not be let go');
  }
}

/** Takes all hosts off the machine; their data stays. */
export async function closeHosts(sql: Sql, hosts: ReadonlyMap<string, Host>): Promise<void> {
  const outcomes = await Promise.allSettled([...hosts.values()].map(async (host) => await host.close()));
  await restoreForwarding(sql);
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
}

async function restoreForwarding(sql: Sql): Promise<void> {
  if ((await readSetting(sql, FORWARDING_KEY)) !== '1') return;
  const tables = await tryCommand('nft', ['list', 'tables']);
  // Another node on this machine may rely on forwarding by now.
  if (/\secluse_/.test(tables.stdout)) return;
  await disableForwarding();
  await writeSetting(sql, FORWARDING_KEY, '0');
}
