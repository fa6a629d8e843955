/** Ports that containers hold on tenants' addresses while they run. The key makes a port one container's. */
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export type PortProtocol = 'tcp' | 'udp';

export interface PublishedPortRow {
  /** An IP address of the node. */
  readonly address: string;
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly tenant: string;
  readonly container: string;
  readonly containerPort: number;
}

function portOf(row: SqlRow): PublishedPortRow {
  return {
    address: textOf(row, 'address'),
    protocol: textOf(row, 'protocol') === 'udp' ? 'udp' : 'tcp',
    port: integerOf(row, 'port'),
    tenant: textOf(row, 'tenant'),
    container: textOf(row, 'container'),
    containerPort: integerOf(row, 'container_port'),
  };
}

/** Takes all of them or none; conflict where one is taken. */
export async function takePorts(sql: Sql, ports: readonly PublishedPortRow[]): Promise<WriteOutcome> {
  return await sql.write(
    ports.map(({ address, protocol, port, tenant, container, containerPort }) => ({
      sql: 'INSERT INTO published_port (address, protocol, port, tenant, container, container_port) VALUES (?, ?, ?, ?, ?, ?)',
      values: [address, protocol, port, tenant, container, containerPort],
    })),
  );
}

/** Gives back what a container holds. */
export async function releasePorts(sql: Sql, container: string): Promise<void> {
  await sql.write([{ sql: 'DELETE FROM published_port WHERE container = ?', values: [container] }]);
}

export async function listPortsOf(sql: Sql, container: string): Promise<readonly PublishedPortRow[]> {
  const rows = await sql.read('SELECT * FROM published_port WHERE container = ? ORDER BY container_port, protocol, port', [
    container,
  ]);
  return rows.map(portOf);
}

export async function listPortsOfTenant(sql: Sql, tenant: string): Promise<readonly PublishedPortRow[]> {
  const rows = await sql.read(
    'SELECT * FROM published_port WHERE tenant = ? ORDER BY container, container_port, protocol, port',
    [tenant],
  );
  return rows.map(portOf);
}

export async function listAllPorts(sql: Sql): Promise<readonly PublishedPortRow[]> {
  return (await sql.read('SELECT * FROM published_port ORDER BY address, port, protocol', [])).map(portOf);
}
