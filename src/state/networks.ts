/** Tenants' networks: membership, not wires. Who shares a network may talk, on whatever host, and knows the other's names. */
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

export interface NetworkRow {
  /** 64 hex digits, ours. */
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly createdMs: number;
  /** Its members reach each other only, not the outside. */
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

export interface MemberRow {
  /** The id of a `NetworkRow`, or of a tenant's predefined `bridge`, or `pending:NAME`: joined at the start, if there is one of that name by then. */
  readonly network: string;
  readonly container: string;
  readonly tenant: string;
  /** 64 hex digits, ours: what Docker calls the endpoint id. */
  readonly endpoint: string;
  readonly aliases: readonly string[];
  /** `container:alias`, as asked for; the container part is a virtual id. */
  readonly links: readonly string[];
}

function wordsOf(row: SqlRow, column: string): readonly string[] {
  const parsed: unknown = JSON.parse(textOf(row, column));
  return Array.isArray(parsed) ? parsed.map(String) : [];
}

/** A JSON object of texts, as labels are kept. */
export function textMapOf(row: SqlRow, column: string): Readonly<Record<string, string>> {
  const parsed: unknown = JSON.parse(textOf(row, column));
  if (typeof parsed !== 'object' || parsed === null) return {};
  return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, String(value)]));
}

function networkOf(row: SqlRow): NetworkRow {
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    createdMs: integerOf(row, 'created_ms'),
    internal: integerOf(row, 'internal') === 1,
    attachable: integerOf(row, 'attachable') === 1,
    labels: textMapOf(row, 'labels'),
  };
}

function memberOf(row: SqlRow): MemberRow {
  return {
    network: textOf(row, 'network'),
    container: textOf(row, 'container'),
    tenant: textOf(row, 'tenant'),
    endpoint: textOf(row, 'endpoint'),
    aliases: wordsOf(row, 'aliases'),
    links: wordsOf(row, 'links'),
  };
}

/** Adds a network; conflict where the tenant has one of that name. */
export async function insertNetwork(sql: Sql, network: NetworkRow): Promise<WriteOutcome> {
  const { id, tenant, name, createdMs, internal, attachable, labels } = network;
  return await sql.write([
    {
      sql: 'INSERT INTO network (id, tenant, name, created_ms, internal, attachable, labels) VALUES (?, ?, ?, ?, ?, ?, ?)',
      values: [id, tenant, name, createdMs, internal ? 1 : 0, attachable ? 1 : 0, JSON.stringify(labels)],
    },
  ]);
}

/** Removes a network. Memberships of containers that do not run stay, as in Docker: such a container does not start any more. */
export async function deleteNetwork(sql: Sql, id: string): Promise<WriteOutcome> {
  return await sql.write([{ sql: 'DELETE FROM network WHERE id = ?', values: [id], expectRows: 1 }]);
}

export async function listNetworks(sql: Sql, tenant: string): Promise<readonly NetworkRow[]> {
  return (await sql.read('SELECT * FROM network WHERE tenant = ? ORDER BY created_ms, id', [tenant])).map(networkOf);
}

export async function listAllNetworks(sql: Sql): Promise<readonly NetworkRow[]> {
  return (await sql.read('SELECT * FROM network ORDER BY created_ms, id', [])).map(networkOf);
}

/** The write that makes a container a member; `position` orders a container's networks. */
export function memberWrite(member: MemberRow, position: number): SqlWrite {
  return {
    sql: 'INSERT INTO network_member (network, container, tenant, endpoint, aliases, links, position) VALUES (?, ?, ?, ?, ?, ?, ?)',
    values: [
      member.network,
      member.container,
      member.tenant,
      member.endpoint,
      JSON.stringify(member.aliases),
      JSON.stringify(member.links),
      position,
    ],
  };
}

export async function addMember(sql: Sql, member: MemberRow, position: number): Promise<WriteOutcome> {
  return await sql.write([memberWrite(member, position)]);
}

export async function removeMember(sql: Sql, network: string, container: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM network_member WHERE network = ? AND container = ?', values: [network, container], expectRows: 1 },
  ]);
}

/** Memberships of a tenant's containers, each container's in the order they were made. */
export async function listMembers(sql: Sql, tenant: string): Promise<readonly MemberRow[]> {
  return (await sql.read('SELECT * FROM network_member WHERE tenant = ? ORDER BY container, position', [tenant])).map(memberOf);
}

/** A network that was awaited is there: the membership is of it from now on. */
export async function settleMember(sql: Sql, member: MemberRow, network: string): Promise<void> {
  await sql.write([
    {
      sql: 'UPDATE network_member SET network = ? WHERE network = ? AND container = ?',
      values: [network, member.network, member.container],
    },
  ]);
}

export async function listMembersOf(sql: Sql, container: string): Promise<readonly MemberRow[]> {
  return (await sql.read('SELECT * FROM network_member WHERE container = ? ORDER BY position', [container])).map(memberOf);
}

export async function listAllMembers(sql: Sql): Promise<readonly MemberRow[]> {
  return (await sql.read('SELECT * FROM network_member ORDER BY container, position', [])).map(memberOf);
}

/** What packet policy and names need of a container: all that have an address. */
export interface LanContainer {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly address: string;
  readonly isRunning: boolean;
  /** Its address on the host that it is being moved to. */
  readonly isTarget: boolean;
}

/** Containers with an address, of one tenant or of all. One that is being moved is there twice: it has two. */
export async function listLanContainers(sql: Sql, tenant?: string): Promise<readonly LanContainer[]> {
  const mine = tenant === undefined ? '' : ' AND container.tenant = ?';
  const values = tenant === undefined ? [] : [tenant];
  const rows = await sql.read(
    `SELECT id, tenant, name, state, lan_address, 0 AS is_target FROM container WHERE lan_address <> ''${mine}
     UNION ALL SELECT container.id, tenant, name, container.state, target_address AS lan_address, 1 AS is_target
     FROM migration JOIN container ON container.id = migration.container
     WHERE target_address <> '' AND migration.state IN ('preparing', 'paused')${mine}`,
    [...values, ...values],
  );
  return rows.map((row) => ({
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    address: textOf(row, 'lan_address'),
    isRunning: ['running', 'paused'].includes(textOf(row, 'state')),
    isTarget: integerOf(row, 'is_target') === 1,
  }));
}
