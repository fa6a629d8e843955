/** Hosts and the numbers of tenants' networks on them. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

/** `draining`: it is being emptied. `drained`: nothing runs on it any more. Neither is given containers. */
export type HostState = 'active' | 'draining' | 'drained';

export interface HostRow {
  readonly name: string;
  readonly engine: string;
  /** Containers of this host live in 10.OCTET.0.0/16. */
  readonly networkOctet: number;
  /** Part of the names of its interfaces and rules, and its for good: the order in the configuration may change. 0 to 9. */
  readonly position: number;
  readonly createdMs: number;
  readonly state: HostState;
}

const STATES: readonly HostState[] = ['active', 'draining', 'drained'];

/** Networks of tenants on one host: 10.OCTET.4.0/22 to 10.OCTET.252.0/22; number 0 links the host itself. */
export const HOST_NETWORKS_MAX = 63;

function hostOf(row: SqlRow): HostRow {
  const text = textOf(row, 'state');
  const state = STATES.find((known) => known === text);
  if (state === undefined) throw new TypeError(`state: unknown host state ${text}`);
  return {
    state,
    name: textOf(row, 'name'),
    engine: textOf(row, 'engine'),
    networkOctet: integerOf(row, 'network_octet'),
    position: integerOf(row, 'position'),
    createdMs: integerOf(row, 'created_ms'),
  };
}

export async function listHosts(sql: Sql): Promise<readonly HostRow[]> {
  return (await sql.read('SELECT * FROM host ORDER BY created_ms, name', [])).map(hostOf);
}

/** Adds a host, or replaces engine and network of a known one. */
export async function putHost(sql: Sql, host: HostRow): Promise<void> {
  await sql.write([
    { sql: 'DELETE FROM host WHERE name = ?', values: [host.name] },
    {
      sql: 'INSERT INTO host (name, engine, network_octet, position, created_ms, state) VALUES (?, ?, ?, ?, ?, ?)',
      values: [host.name, host.engine, host.networkOctet, host.position, host.createdMs, host.state],
      expectRows: 1,
    },
    changeWrite(host.createdMs, 'host.put', host.name),
  ]);
}

/** Changes a host's state, where it is still `from`; conflict where somebody else changed it. */
export async function setHostState(
  sql: Sql,
  name: string,
  change: { readonly from: HostState; readonly to: HostState },
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'UPDATE host SET state = ? WHERE name = ? AND state = ?',
      values: [change.to, name, change.from],
      expectRows: 1,
    },
    changeWrite(nowMs, `host.${change.to}`, name, { from: change.from }),
  ]);
}

/** The number of the tenant's network on the host, taken now if it has none; undefined when all are taken. */
export async function takeHostNetwork(sql: Sql, host: string, tenant: string): Promise<number | undefined> {
  for (;;) {
    const rows = await sql.read('SELECT tenant, number FROM host_network WHERE host = ?', [host]);
    const mine = rows.find((row) => textOf(row, 'tenant') === tenant);
    if (mine !== undefined) return integerOf(mine, 'number');
    const taken = new Set(rows.map((row) => integerOf(row, 'number')));
    let number = 1;
    while (taken.has(number)) number += 1;
    if (number > HOST_NETWORKS_MAX) return undefined;
    // A conflict means that another caller took it meanwhile: look again.
    await sql.write([
      { sql: 'INSERT INTO host_network (host, tenant, number) VALUES (?, ?, ?)', values: [host, tenant, number] },
    ]);
  }
}

export async function listHostNetworks(
  sql: Sql,
  host: string,
): Promise<readonly { readonly tenant: string; readonly number: number }[]> {
  const rows = await sql.read('SELECT tenant, number FROM host_network WHERE host = ? ORDER BY number', [host]);
  return rows.map((row) => ({ tenant: textOf(row, 'tenant'), number: integerOf(row, 'number') }));
}
