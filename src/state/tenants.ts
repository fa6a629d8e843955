/** Tenants: accounts with quotas, and the client certificates that speak for them. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface TenantQuota {
  readonly containersMax: number;
  /** The sum of the memory limits of the tenant's containers. */
  readonly memoryBytesMax: number;
  readonly imagesMax: number;
  readonly networksMax: number;
  readonly volumesMax: number;
  /** Ports published at one time. */
  readonly portsMax: number;
  /** The sum of `--cpus` of its containers, in thousandths; 0: no limit. */
  readonly cpuMilliMax: number;
}

export interface Tenant {
  readonly name: string;
  readonly createdMs: number;
  readonly state: 'active' | 'suspended';
  readonly quota: TenantQuota;
  /** Host suffixes that its routes may use beside NAME-TENANT.DOMAIN. */
  readonly domains: readonly string[];
  /** Where its published ports are; empty: the address of the Docker endpoint. */
  readonly address: string;
}

function wordsOf(json: string): readonly string[] {
  const parsed: unknown = JSON.parse(json);
  return Array.isArray(parsed) ? parsed.map(String) : [];
}

function tenantOf(row: SqlRow): Tenant {
  return {
    name: textOf(row, 'name'),
    createdMs: integerOf(row, 'created_ms'),
    state: textOf(row, 'state') === 'suspended' ? 'suspended' : 'active',
    quota: {
      containersMax: integerOf(row, 'containers_max'),
      memoryBytesMax: integerOf(row, 'memory_bytes_max'),
      imagesMax: integerOf(row, 'images_max'),
      networksMax: integerOf(row, 'networks_max'),
      volumesMax: integerOf(row, 'volumes_max'),
      portsMax: integerOf(row, 'ports_max'),
      cpuMilliMax: integerOf(row, 'cpu_milli_max'),
    },
    domains: wordsOf(textOf(row, 'domains')),
    address: textOf(row, 'address'),
  };
}

const QUOTA_COLUMNS: readonly (readonly [string, keyof TenantQuota])[] = [
  ['containers_max', 'containersMax'],
  ['memory_bytes_max', 'memoryBytesMax'],
  ['images_max', 'imagesMax'],
  ['networks_max', 'networksMax'],
  ['volumes_max', 'volumesMax'],
  ['ports_max', 'portsMax'],
  ['cpu_milli_max', 'cpuMilliMax'],
];

/** Adds a tenant; conflict where the name is taken. */
export async function addTenant(sql: Sql, tenant: Tenant): Promise<WriteOutcome> {
  const { name, createdMs, state, quota, domains, address } = tenant;
  const columns = QUOTA_COLUMNS.map(([column]) => column).join(', ');
  const marks = QUOTA_COLUMNS.map(() => '?').join(', ');
  return await sql.write([
    {
      sql: `INSERT INTO tenant (name, created_ms, state, domains, address, ${columns}) VALUES (?, ?, ?, ?, ?, ${marks})`,
      values: [name, createdMs, state, JSON.stringify(domains), address, ...QUOTA_COLUMNS.map(([, key]) => quota[key])],
    },
    changeWrite(createdMs, 'tenant.added', name),
  ]);
}

/** Replaces quota, state, domains and address of a tenant. */
export async function updateTenant(sql: Sql, tenant: Tenant, nowMs: number): Promise<WriteOutcome> {
  const { name, state, quota, domains, address } = tenant;
  const columns = QUOTA_COLUMNS.map(([column]) => `${column} = ?`).join(', ');
  return await sql.write([
    {
      sql: `UPDATE tenant SET state = ?, domains = ?, address = ?, ${columns} WHERE name = ?`,
      values: [state, JSON.stringify(domains), address, ...QUOTA_COLUMNS.map(([, key]) => quota[key]), name],
      expectRows: 1,
    },
    changeWrite(nowMs, 'tenant.changed', name),
  ]);
}

/** Removes a tenant that owns nothing any more. Its ledger stays. */
export async function removeTenant(sql: Sql, name: string, nowMs: number): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM host_network WHERE tenant = ?', values: [name] },
    { sql: 'DELETE FROM network WHERE tenant = ?', values: [name] },
    { sql: 'DELETE FROM image_digest WHERE tenant = ?', values: [name] },
    { sql: 'DELETE FROM tenant WHERE name = ?', values: [name], expectRows: 1 },
    changeWrite(nowMs, 'tenant.removed', name),
  ]);
}

/** Names of all tenants that there ever were. */
export async function everyTenant(sql: Sql): Promise<readonly string[]> {
  const rows = await sql.read(`SELECT DISTINCT key FROM change WHERE kind IN ('tenant.added', 'tenant.removed')`, []);
  return rows.map((row) => textOf(row, 'key'));
}

/** Whether there was a tenant of this name at any time in a span: tenants of earlier days have gone, and others have their names. */
export async function wasTenant(sql: Sql, name: string, fromMs: number, toMs: number): Promise<boolean> {
  const rows = await sql.read(
    `SELECT at_ms, kind FROM change WHERE key = ? AND kind IN ('tenant.added', 'tenant.removed') AND at_ms < ? ORDER BY seq`,
    [name, toMs],
  );
  let isThere = false;
  for (const row of rows) {
    const isAdded = textOf(row, 'kind') === 'tenant.added';
    if (isThere && !isAdded && integerOf(row, 'at_ms') > fromMs) return true;
    isThere = isAdded;
  }
  return isThere;
}

export async function findTenant(sql: Sql, name: string): Promise<Tenant | undefined> {
  const [row] = await sql.read('SELECT * FROM tenant WHERE name = ?', [name]);
  return row === undefined ? undefined : tenantOf(row);
}

export async function listTenants(sql: Sql): Promise<readonly Tenant[]> {
  const rows = await sql.read('SELECT * FROM tenant ORDER BY name', []);
  return rows.map(tenantOf);
}

/** Lets a client certificate speak for a tenant until it expires or the row goes. */
export async function addTenantCertificate(
  sql: Sql,
  certificate: { readonly fingerprint: string; readonly tenant: string; readonly notAfterMs: number },
): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'INSERT INTO tenant_certificate (fingerprint, tenant, not_after_ms) VALUES (?, ?, ?)',
      values: [certificate.fingerprint, certificate.tenant, certificate.notAfterMs],
    },
  ]);
}

/** The active tenant that a certificate speaks for, or undefined. */
export async function tenantOfCertificate(sql: Sql, fingerprint: string, nowMs: number): Promise<Tenant | undefined> {
  const [row] = await sql.read(
    `SELECT tenant.* FROM tenant JOIN tenant_certificate ON tenant_certificate.tenant = tenant.name
     WHERE fingerprint = ? AND not_after_ms > ? AND state = 'active'`,
    [fingerprint, nowMs],
  );
  return row === undefined ? undefined : tenantOf(row);
}
