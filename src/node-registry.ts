/** The way to registries: the relay that the hosts' engines pull from and push to, on an address that only they reach. */
import { randomBytes } from 'node:crypto';
import type { Host } from '#caas/host.ts';
import type { RegistryParts } from '#caas/images/image-registry.ts';
import { parseRegistries } from '#caas/registry/registry-access.ts';
import { RegistryRelay } from '#caas/registry/registry-relay.ts';
import { codeOf, reasonOf } from '#errors';
import { linkAddressOf, RELAY_PORT } from '#isolation/host-addresses.ts';
import type { Log } from '#log';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';

const KEY_SETTING = 'registry_names_key';
const PORT_SETTING = 'registry_relay_port';
const LOOPBACK = '127.0.0.1';

export interface RegistryDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
}

/** The secret that names of repositories on engines follow from. */
async function namesKey(sql: Sql): Promise<string> {
  const known = await readSetting(sql, KEY_SETTING);
  if (known !== undefined) return known;
  const key = randomBytes(32).toString('hex');
  await writeSetting(sql, KEY_SETTING, key);
  return key;
}

/** The same port as before where it is free: engines remember by it which layers a repository has. */
async function listenOnLoopback(relay: RegistryRelay, sql: Sql): Promise<number> {
  const before = Number((await readSetting(sql, PORT_SETTING)) ?? 0);
  const port = await relay.listen(LOOPBACK, before).catch(async (error: unknown) => {
    if (before === 0 || codeOf(error) !== 'EADDRINUSE') throw error;
    return await relay.listen(LOOPBACK, 0);
  });
  if (port !== before) await writeSetting(sql, PORT_SETTING, String(port));
  return port;
}

/** Opens the relay for all hosts. Engines take a registry on 127.0.0.0/8 without TLS; those of hosts in a namespace are told to take theirs so too. */
export async function openRegistry(
  { log, sql, hosts }: RegistryDeps,
  registries: readonly string[],
): Promise<RegistryParts & AsyncDisposable> {
  const policy = parseRegistries(registries);
  const relay = new RegistryRelay(log, { policy, key: await namesKey(sql) });
  const addresses = new Map<string, string>();
  try {
    const port = await listenOnLoopback(relay, sql);
    for (const host of hosts.values()) {
      if (host.network.namespace === undefined) {
        addresses.set(host.name, `${LOOPBACK}:${String(port)}`);
        continue;
      }
      const own = linkAddressOf(host.network);
      try {
        await relay.listen(own, RELAY_PORT);
        addresses.set(host.name, `${own}:${String(RELAY_PORT)}`);
      } catch (error) {
        if (codeOf(error) !== 'EADDRINUSE') throw error;
        log.warn(
          { host: host.name, address: own, port: RELAY_PORT, reason: reasonOf(error) },
          'images are not pulled on this host: something else listens there',
        );
      }
    }
  } catch (error) {
    await relay[Symbol.asyncDispose]();
    throw error;
  }
  return {
    policy,
    relay,
    relayOf: ({ name }) => addresses.get(name),
    [Symbol.asyncDispose]: async () => {
      await relay[Symbol.asyncDispose]();
    },
  };
}
