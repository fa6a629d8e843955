/** Tenants: accounts with quotas, and the client certificates that speak for them. */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, WriteOutcome } from './sql.ts';

export interface TenantQuota {
  readonly containersMax: number;
  /** The sum of the memory limits of the tenant's containers. */
  readonly memoryBytesMax: number;
  readonly imagesMax: number;
}

export interface Tenant {
  readonly name: string;
  readonly createdMs: number;
  readonly state: 'active' | 'suspended';
  readonly quota: TenantQuota;
  /** Host suffixes that its routes may use beside NAME-TENANT.DOMAIN. */
  readonly domains: readonly string[];
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
    },
    domains: wordsOf(textOf(row, 'domains')),
  };
}

/** Adds a tenant; conflict where the name is taken. */
export async function addTenant(sql: Sql, tenant: Tenant): Promise<WriteOutcome> {
  const { name, createdMs, state, quota, domains } = tenant;
  return await sql.write([
    {
      sql: `INSERT INTO tenant (name, created_ms, state, containers_max, memory_bytes_max, images_max, domains) VALUES (?, ?, ?, ?, ?, ?, ?)`,
      values: [name, createdMs, state, quota.containersMax, quota.memoryBytesMax, quota.imagesMax, JSON.stringify(domains)],
    },
    changeWrite(createdMs, 'tenant.added', name),
  ]);
}

/** Replaces quota, state and domains of a tenant. */
export async function updateTenant(sql: Sql, tenant: Tenant, nowMs: number): Promise<WriteOutcome> {
  const { name, state, quota, domains } = tenant;
  return await sql.write([
    {
      sql: `UPDATE tenant SET state = ?, containers_max = ?, memory_bytes_max = ?, images_max = ?, domains = ? WHERE name = ?`,
      values: [state, quota.containersMax, quota.memoryBytesMax, quota.imagesMax, JSON.stringify(domains), name],
      expectRows: 1,
    },
    changeWrite(nowMs, 'tenant.changed', name),
  ]);
}

/** Removes a tenant that owns nothing any more. Its ledger stays. */
export async function removeTenant(sql: Sql, name: string, nowMs: number): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM host_network WHERE tenant = ?', values: [name] },
    { sql: 'DELETE FROM tenant WHERE name = ?', values: [name], expectRows: 1 },
    changeWrite(nowMs, 'tenant.removed', name),
  ]);
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
