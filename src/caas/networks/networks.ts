/**
 * Tenants' networks. A network is membership: its members reach each other on whatever hosts they are, and know each other's names. The wires are
 * the tenant's one bridge a host, the packet policy (isolation/) and the name service (dns/), which follow from what is kept here.
 */
import { createHash, randomBytes } from 'node:crypto';
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { ContainerRow } from '#state/containers.ts';
import { findContainer, listContainersOf } from '#state/containers.ts';
import {
  addMember,
  deleteNetwork,
  insertNetwork,
  listMembers,
  listMembersOf,
  listNetworks,
  removeMember,
  settleMember,
} from '#state/networks.ts';
import type { MemberRow, NetworkRow } from '#state/networks.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { Events } from '#caas/events.ts';
import type { NetworkingSpec } from '#caas/spec/spec-networks.ts';

export interface NetworksDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly events: Events;
  /** Brings packet policy and names to what the store says by now. */
  readonly apply: (tenant: string) => Promise<void>;
}

/** `own`: made by the tenant. The others are there for everybody, as in Docker; nothing can join `host`. */
export type NetworkKind = 'own' | 'bridge' | 'host' | 'none';

export interface TenantNetwork extends NetworkRow {
  readonly kind: NetworkKind;
}

const PREDEFINED = ['bridge', 'host', 'none'] as const;
const LABELS_MAX = 200;
/** Before the name of a network that did not exist when a container was made. */
export const PENDING = 'pending:';
const RUNNING = new Set(['running', 'paused', 'restarting']);

/** The id of a predefined network: the tenant's own, and always the same. */
export function predefinedId(tenant: string, kind: NetworkKind): string {
  return createHash('sha256').update(`${tenant}\0network\0${kind}`).digest('hex');
}

const bodySchema = z.object({
  Name: z.string(),
  Driver: z.enum(['', 'default', 'bridge']).default('bridge'),
  Internal: z.boolean().default(false),
  Attachable: z.boolean().default(false),
  CheckDuplicate: z.boolean().default(true),
  Scope: z.enum(['', 'local']).default('local'),
  EnableIPv4: z.literal(true).nullish(),
  Labels: z
    .record(z.string().max(1024), z.string().max(16 * 1024))
    .nullable()
    .default({}),
});

const REASONS: Readonly<Record<string, string>> = {
  Ingress: 'there is no swarm',
  ConfigOnly: 'there is no swarm',
  ConfigFrom: 'there is no swarm',
  EnableIPv6: 'networks are IPv4 only',
  Options: 'a network here has no driver with options',
};
const ADDRESS_REASON = 'addresses are assigned by the platform';

/** Checks the body of `POST /networks/create`. Pure. */
export function parseNetworkCreate(body: unknown): z.infer<typeof bodySchema> {
  const outer = foldFields(body, '', [...Object.keys(bodySchema.shape), 'IPAM'], REASONS);
  if (outer.kind === 'refused') throw dockerError(403, `ecluse: ${outer.reason}`);
  const { IPAM, ...rest } = outer.fields;
  const ipam = foldFields(IPAM, 'IPAM', ['Driver'], { Config: ADDRESS_REASON, Options: ADDRESS_REASON });
  if (ipam.kind === 'refused') throw dockerError(403, `ecluse: ${ipam.reason}`);
  const ipamDriver = ipam.fields['Driver'] ?? '';
  if (ipamDriver !== '' && ipamDriver !== 'default') {
    throw dockerError(403, `ecluse: IPAM.Driver: ${ADDRESS_REASON}`);
  }
  const driver = rest['Driver'];
  if (typeof driver === 'string' && !['', 'default', 'bridge'].includes(driver)) {
    throw dockerError(403, `ecluse: the network driver "${driver.slice(0, 40)}" is not available; only bridge is`);
  }
  const parsed = bodySchema.safeParse(rest);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw dockerError(400, `${(issue?.path ?? []).map(String).join('.')}: ${issue?.message ?? 'invalid'}`);
  }
  return parsed.data;
}

function checkName(name: string): void {
  if (PREDEFINED.some((known) => known === name) || name === 'default') {
    throw dockerError(403, `operation is not permitted on predefined ${name} network `);
  }
  if (name === '' || name.length > 255 || !/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(name)) {
    throw dockerError(
      400,
      `${name.slice(0, 128)} includes invalid characters for a local network name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`,
    );
  }
}

export class Networks {
  readonly #deps: NetworksDeps;
  /** By tenant: two requests must not both pass the quota, or join what the other removes. */
  readonly #locks = new KeyedLock();

  constructor(deps: NetworksDeps) {
    this.#deps = deps;
  }

  /** The tenant's networks, the predefined ones first. */
  async list(tenant: Tenant): Promise<readonly TenantNetwork[]> {
    const predefined = PREDEFINED.map((kind) => ({
      id: predefinedId(tenant.name, kind),
      tenant: tenant.name,
      name: kind,
      createdMs: tenant.createdMs,
      internal: false,
      attachable: false,
      labels: {},
      kind,
    }));
    return [...predefined, ...(await listNetworks(this.#deps.sql, tenant.name)).map((row) => ({ ...row, kind: 'own' as const }))];
  }

  async members(tenant: string): Promise<readonly MemberRow[]> {
    return await listMembers(this.#deps.sql, tenant);
  }

  async membersOf(container: string): Promise<readonly MemberRow[]> {
    return await listMembersOf(this.#deps.sql, container);
  }

  /** Id, then name, then prefix of an id (moby `network.FindNetwork`). */
  async resolve(tenant: Tenant, reference: string): Promise<TenantNetwork> {
    const all = await this.list(tenant);
    const exact = all.find((network) => network.id === reference) ?? all.find((network) => network.name === reference);
    if (exact !== undefined) return exact;
    const found = /^[0-9a-f]+$/.test(reference) ? all.filter((network) => network.id.startsWith(reference)) : [];
    const [first, second] = found;
    if (second !== undefined) {
      throw dockerError(400, `network ${reference} is ambiguous (${String(found.length)} matches found based on ID prefix)`);
    }
    if (first === undefined) throw noSuchNetwork(reference);
    return first;
  }

  async create(tenant: Tenant, body: unknown): Promise<TenantNetwork> {
    const wanted = parseNetworkCreate(body);
    checkName(wanted.Name);
    const labels = wanted.Labels ?? {};
    if (Object.keys(labels).length > LABELS_MAX) throw dockerError(400, `more than ${String(LABELS_MAX)} labels`);
    return await this.#locks.run(tenant.name, async () => {
      const own = await listNetworks(this.#deps.sql, tenant.name);
      if (own.some((network) => network.name === wanted.Name)) throw nameTaken(wanted.Name);
      if (own.length >= tenant.quota.networksMax) {
        throw dockerError(
          403,
          `ecluse: tenant ${tenant.name} has ${String(own.length)} networks, its quota is ${String(tenant.quota.networksMax)}`,
        );
      }
      const row: NetworkRow = {
        id: randomBytes(32).toString('hex'),
        tenant: tenant.name,
        name: wanted.Name,
        createdMs: this.#deps.clock.nowMs(),
        internal: wanted.Internal,
        attachable: wanted.Attachable,
        labels,
      };
      if ((await insertNetwork(this.#deps.sql, row)).kind === 'conflict') throw nameTaken(wanted.Name);
      this.#announce(row, 'create');
      return { ...row, kind: 'own' };
    });
  }

  /** Whether a running container is in it: then it stays. */
  async isInUse(network: TenantNetwork): Promise<boolean> {
    const members = (await this.members(network.tenant)).filter((member) => member.network === network.id);
    if (members.length === 0) return false;
    const rows = new Map((await listContainersOf(this.#deps.sql, network.tenant)).map((row) => [row.id, row]));
    return members.some((member) => RUNNING.has(rows.get(member.container)?.state ?? ''));
  }

  /** Whether any container is in it, running or not: a prune leaves those. */
  async hasMembers(network: TenantNetwork): Promise<boolean> {
    return (await this.members(network.tenant)).some((member) => member.network === network.id);
  }

  async remove(tenant: Tenant, reference: string): Promise<void> {
    await this.#locks.run(tenant.name, async () => {
      const network = await this.resolve(tenant, reference);
      if (network.kind !== 'own') throw dockerError(403, `${network.name} is a pre-defined network and cannot be removed`);
      if (await this.isInUse(network)) {
        throw dockerError(403, `error while removing network: network ${network.name} id ${network.id} has active endpoints`);
      }
      await deleteNetwork(this.#deps.sql, network.id);
      this.#announce(network, 'destroy');
    });
    await this.#deps.apply(tenant.name);
  }

  /** What memberships a container gets when it is made. A network that does not exist is an error at the start, as in Docker. */
  async membershipsOf(tenant: Tenant, networking: NetworkingSpec, container: string): Promise<readonly MemberRow[]> {
    const members: MemberRow[] = [];
    for (const wish of networking.wishes) {
      const network = await this.#resolveLater(tenant, wish.network);
      if (network.kind === 'none' || network.kind === 'host') throw noMixing(network.name);
      if (network.kind === 'bridge' && wish.aliases.length > 0) {
        throw dockerError(400, 'network-scoped alias is supported only for containers in user defined networks');
      }
      if (members.some((member) => member.network === network.id)) continue;
      const links = await this.#linkIds(tenant, wish.links);
      members.push({ network: network.id, container, tenant: tenant.name, endpoint: endpointId(), aliases: wish.aliases, links });
    }
    return members;
  }

  /** The network that a reference means, or one that is still to come. */
  async #resolveLater(tenant: Tenant, reference: string): Promise<Pick<TenantNetwork, 'id' | 'name' | 'kind'>> {
    try {
      return await this.resolve(tenant, reference);
    } catch (error) {
      if (error instanceof EcluseError && error.status === 404)
        return { id: `${PENDING}${reference}`, name: reference, kind: 'own' };
      throw error;
    }
  }

  /** `web:alias` with the container's id in place of what the client wrote. */
  async #linkIds(tenant: Tenant, links: readonly string[]): Promise<readonly string[]> {
    if (links.length === 0) return [];
    const rows = await listContainersOf(this.#deps.sql, tenant.name);
    return links.map((link) => {
      const [source = '', alias = source] = link.split(':');
      const bare = source.replace(/^\//, '');
      const row =
        rows.find((one) => one.name === bare) ?? rows.find((one) => one.id.startsWith(bare) && /^[0-9a-f]+$/.test(bare));
      if (row === undefined) throw dockerError(400, `could not get container for ${bare}: No such container: ${bare}`);
      return `${row.id}:${alias.replace(/^\//, '').split('/').at(-1) ?? row.name}`;
    });
  }

  /** Before a start: every network that the container is a member of must still be there. */
  async checkStart(tenant: Tenant, container: string): Promise<void> {
    const known = new Set((await this.list(tenant)).map((network) => network.id));
    let settled = false;
    for (const member of await this.membersOf(container)) {
      if (known.has(member.network)) continue;
      if (!member.network.startsWith(PENDING)) throw noSuchNetwork(member.network);
      await settleMember(this.#deps.sql, member, (await this.resolve(tenant, member.network.slice(PENDING.length))).id);
      settled = true;
    }
    if (settled) await this.#deps.apply(tenant.name);
  }

  async connect(
    tenant: Tenant,
    place: { readonly network: TenantNetwork; readonly row: ContainerRow },
    endpoint: { readonly aliases: readonly string[]; readonly links: readonly string[] },
  ): Promise<void> {
    const { network, row } = place;
    await this.#locks.run(tenant.name, async () => {
      if (network.kind === 'host') throw dockerError(403, 'container cannot be connected to host network');
      const members = await this.membersOf(row.id);
      if (network.kind === 'none' || row.lanAddress === '') throw noMixing(network.name);
      if (members.some((member) => member.network === network.id)) {
        throw dockerError(403, `endpoint with name ${row.name} already exists in network ${network.name}`);
      }
      if (network.kind === 'bridge' && endpoint.aliases.length > 0) {
        throw dockerError(400, 'network-scoped alias is supported only for containers in user defined networks');
      }
      const member: MemberRow = {
        network: network.id,
        container: row.id,
        tenant: tenant.name,
        endpoint: endpointId(),
        aliases: endpoint.aliases,
        links: await this.#linkIds(tenant, endpoint.links),
      };
      if ((await findContainer(this.#deps.sql, row.id)) === undefined) throw dockerError(404, `No such container: ${row.id}`);
      await addMember(this.#deps.sql, member, members.length === 0 ? 0 : this.#deps.clock.nowMs());
    });
    await this.#deps.apply(tenant.name);
    if (RUNNING.has(row.state)) this.announceMember(network, row.id, 'connect');
  }

  async disconnect(
    tenant: Tenant,
    place: { readonly network: TenantNetwork; readonly row: ContainerRow },
    force: boolean,
  ): Promise<void> {
    const { network, row } = place;
    await this.#locks.run(tenant.name, async () => {
      if ((await removeMember(this.#deps.sql, network.id, row.id)).kind === 'done' || force) return;
      throw dockerError(403, `container ${row.id} is not connected to network ${network.name}`);
    });
    await this.#deps.apply(tenant.name);
    if (RUNNING.has(row.state)) this.announceMember(network, row.id, 'disconnect');
  }

  /** Docker tells of a container's networks when it starts and when it ends. */
  async announceMembersOf(row: ContainerRow, action: 'connect' | 'disconnect'): Promise<void> {
    const own = new Map((await listNetworks(this.#deps.sql, row.tenant)).map((network) => [network.id, network.name]));
    for (const { network } of await this.membersOf(row.id)) {
      const name = own.get(network) ?? 'bridge';
      this.announceMember({ id: network, name, tenant: row.tenant }, row.id, action);
    }
  }

  announceMember(
    network: Pick<TenantNetwork, 'id' | 'name' | 'tenant'>,
    container: string,
    action: 'connect' | 'disconnect',
  ): void {
    const attributes = { container, name: network.name, type: 'bridge' };
    this.#deps.events.publish(network.tenant, 'network', action, { id: network.id, attributes });
  }

  #announce(network: NetworkRow, action: 'create' | 'destroy'): void {
    const attributes = { name: network.name, type: 'bridge' };
    this.#deps.events.publish(network.tenant, 'network', action, { id: network.id, attributes });
  }
}

function endpointId(): string {
  return randomBytes(32).toString('hex');
}

function noSuchNetwork(reference: string): Error {
  return dockerError(404, `network ${reference} not found`);
}

function nameTaken(name: string): Error {
  return dockerError(409, `network with name ${name} already exists`);
}

function noMixing(name: string): Error {
  return dockerError(
    403,
    name === 'none'
      ? 'container cannot be connected to multiple networks with one of the networks in private (none) mode'
      : `container cannot be connected to network ${name}: it was made without a network (--network none)`,
  );
}
