/** The hosts of a node: brought up together, each with a private network that nothing else on the machine uses. */
import { join } from 'node:path';
import type { Clock } from '#clock';
import { tryCommand } from '#command';
import { Host, scopeOf } from '#caas/host.ts';
import type { HostDeps } from '#caas/host.ts';
import { chooseOctet, disableForwarding, enableForwarding } from '#isolation/host-network.ts';
import type { HostNetwork } from '#isolation/host-network.ts';
import { listHosts, putHost } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { readSetting, writeSetting } from '#state/settings.ts';

export interface HostWish {
  readonly name: string;
  readonly engine: string;
}

const FORWARDING_KEY = 'forwarding_was_off';

async function networksOf(
  sql: Sql,
  clock: Clock,
  dataDir: string,
  wishes: readonly HostWish[],
): Promise<ReadonlyMap<string, HostNetwork>> {
  const scope = scopeOf(dataDir);
  const known = new Map((await listHosts(sql)).map((host) => [host.name, host]));
  const taken = new Set([...known.values()].map((host) => host.networkOctet));
  const networks = new Map<string, HostNetwork>();
  for (const [index, wish] of wishes.entries()) {
    const octet = known.get(wish.name)?.networkOctet ?? (await chooseOctet(Number.parseInt(scope, 16) + index * 7, taken));
    taken.add(octet);
    if (!known.has(wish.name)) {
      await putHost(sql, { name: wish.name, engine: wish.engine, networkOctet: octet, createdMs: clock.nowMs() + index });
    }
    // The first managed host lives in the machine's own network; each further one is a machine of its own as far as the network goes.
    const isOwnMachine = index > 0 && wish.engine === 'managed';
    networks.set(wish.name, { scope, index, octet, namespace: isOwnMachine ? `ecluse-${scope}-${wish.name}` : undefined });
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
    // Engines that only now came up are ended again; with containers of an earlier daemon on them they are left alone.
    await Promise.all(
      hosts.map(async (host) => {
        const { json } = await host.client.call({ method: 'GET', path: ['containers', 'json'] });
        await (Array.isArray(json) && json.length > 0 ? host.release() : host.close());
      }),
    );
    throw failure.reason;
  }
  return new Map(hosts.map((host) => [host.name, host]));
}

/** Takes all hosts off the machine; their data stays. */
export async function closeHosts(sql: Sql, hosts: ReadonlyMap<string, Host>): Promise<void> {
  await Promise.all([...hosts.values()].map(async (host) => await host.close()));
  if ((await readSetting(sql, FORWARDING_KEY)) !== '1') return;
  const tables = await tryCommand('nft', ['list', 'tables']);
  // Another node on this machine may rely on forwarding by now.
  if (/\secluse_/.test(tables.stdout)) return;
  await disableForwarding();
  await writeSetting(sql, FORWARDING_KEY, '0');
}
