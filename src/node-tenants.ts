/** Tenants as operators handle them: added, changed, and given what a Docker client needs to speak for them. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { checkPrecondition } from '#admin/entity-tag.ts';
import type { Precondition } from '#admin/entity-tag.ts';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import { probePort } from '#caas/ports/port-probe.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import { listContainersOf } from '#state/containers.ts';
import { dropImage, listImages } from '#state/images.ts';
import type { Sql } from '#state/sql.ts';
import { listVolumes } from '#state/volumes.ts';
import {
  addTenant,
  addTenantCertificate,
  findTenant,
  listTenants,
  removeTenant,
  tenantOfCertificate,
  updateTenant,
} from '#state/tenants.ts';
import type { Tenant, TenantQuota } from '#state/tenants.ts';
import type { Authority } from '#tls/authority.ts';
import type { ListenAddress } from './listen-address.ts';

export interface TenantDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly authority: Authority;
  readonly volumes: Volumes;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly events: Events;
  /** DATA/tenants. */
  readonly folder: string;
  /** Where the Docker endpoint listens; undefined: it is off. */
  readonly docker: ListenAddress | undefined;
  /** Addresses of tenants came or went: the endpoint listens there. */
  readonly onAddresses: () => Promise<void>;
}

/** A DNS label that leaves room for container names before it, and a cgroup and network name at once. */
const TENANT_NAME = /^[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?$/;
const DOMAIN = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export const QUOTA_DEFAULT: TenantQuota = {
  containersMax: 100,
  memoryBytesMax: 8 * 1024 ** 3,
  imagesMax: 100,
  networksMax: 20,
  volumesMax: 100,
  portsMax: 100,
  cpuMilliMax: 0,
};

/** What is absent or undefined stays as it is. */
interface TenantSettingsChange {
  readonly quota: Partial<TenantQuota>;
  readonly domains: readonly string[] | undefined;
  readonly state: Tenant['state'] | undefined;
  readonly address?: string | undefined;
  /** Tags of the tenant; undefined: whatever it is. */
  readonly ifMatch?: Precondition;
}

const CERTIFICATE_DAYS = 365;
const RENEW_BEFORE_MS = 30 * 86_400_000;

export class Tenants {
  readonly #deps: TenantDeps;
  readonly #locks = new KeyedLock();

  constructor(deps: TenantDeps) {
    this.#deps = deps;
  }

  async list(): Promise<readonly Tenant[]> {
    return await listTenants(this.#deps.sql);
  }

  async get(name: string): Promise<Tenant> {
    const tenant = await findTenant(this.#deps.sql, name);
    if (tenant === undefined) throw tenantError(404, `tenant ${name} does not exist`, 'see: ecluse tenant ls');
    return tenant;
  }

  async add(request: {
    readonly name: string;
    readonly quota: Partial<TenantQuota>;
    readonly domains: readonly string[];
    /** Absent or empty: that of the Docker endpoint. */
    readonly address?: string;
  }): Promise<Tenant> {
    if (!TENANT_NAME.test(request.name)) {
      throw tenantError(
        400,
        `"${request.name.slice(0, 60)}" is no tenant name`,
        'use up to 30 lower-case letters, digits and hyphens, beginning with a letter',
      );
    }
    const tenant: Tenant = {
      name: request.name,
      createdMs: this.#deps.clock.nowMs(),
      state: 'active',
      quota: { ...QUOTA_DEFAULT, ...request.quota },
      domains: request.domains.map(checkedDomain),
      address: await this.#checkedAddress(request.name, request.address ?? ''),
    };
    if ((await addTenant(this.#deps.sql, tenant)).kind === 'conflict')
      throw tenantError(409, `tenant ${tenant.name} exists already`, 'change it with: ecluse tenant set');
    if (tenant.address !== '') await this.#addressesChanged();
    return tenant;
  }

  async set(name: string, change: TenantSettingsChange): Promise<Tenant> {
    const { before, after } = await this.#locks.run(lockOf(name), async () => await this.#set(name, change));
    if (after.address !== before.address) await this.#addressesChanged();
    return after;
  }

  /** INVARIANT: under the tenant's lock, so that what is compared is what is changed, and changes at the same time do not undo each other. */
  async #set(name: string, change: TenantSettingsChange): Promise<{ readonly before: Tenant; readonly after: Tenant }> {
    const before = await this.get(name);
    checkPrecondition(change.ifMatch, before, `tenant ${name}`);
    const after: Tenant = {
      ...before,
      state: change.state ?? before.state,
      quota: { ...before.quota, ...change.quota },
      domains: change.domains?.map(checkedDomain) ?? before.domains,
      address: change.address === undefined ? before.address : await this.#checkedAddress(name, change.address),
    };
    await updateTenant(this.#deps.sql, after, this.#deps.clock.nowMs());
    return { before, after };
  }

  async remove(name: string, ifMatch?: Precondition): Promise<void> {
    const { address } = await this.#locks.run(lockOf(name), async () => await this.#remove(name, ifMatch));
    if (address !== '') await this.#addressesChanged();
  }

  /** INVARIANT: under the tenant's lock. */
  async #remove(name: string, ifMatch: Precondition): Promise<Tenant> {
    const tenant = await this.get(name);
    checkPrecondition(ifMatch, tenant, `tenant ${name}`);
    const containers = await listContainersOf(this.#deps.sql, name);
    if (containers.length > 0)
      throw tenantError(409, `tenant ${name} still has ${String(containers.length)} containers`, 'remove them first');
    const named = (await listVolumes(this.#deps.sql, name)).filter((volume) => !volume.anonymous);
    if (named.length > 0)
      throw tenantError(
        409,
        `tenant ${name} still has ${String(named.length)} volumes with data`,
        'remove them first, as the tenant: docker volume rm',
      );
    for (const image of await listImages(this.#deps.sql, name)) await dropImage(this.#deps.sql, name, image.imageId);
    await this.#deps.volumes.forgetTenant(name);
    for (const host of this.#deps.hosts.values()) await host.dropTenantNetwork(name);
    await removeTenant(this.#deps.sql, name, this.#deps.clock.nowMs());
    this.#deps.events.forget(name);
    return tenant;
  }

  /** One after the other: the last one sees all. */
  async #addressesChanged(): Promise<void> {
    await this.#locks.run('addresses', this.#deps.onAddresses);
  }

  /** An address of this machine that no other tenant has; containers that run keep their ports where they are. */
  async #checkedAddress(name: string, address: string): Promise<string> {
    if (address === '') return '';
    const mend = 'give it an IPv4 address of this machine, like 127.0.0.2 or 203.0.113.7';
    if (isIP(address) !== 4 || address === '0.0.0.0')
      throw tenantError(400, `"${address.slice(0, 60)}" is no address of a tenant`, mend);
    const { docker, sql } = this.#deps;
    if (docker !== undefined && docker.host === address)
      throw tenantError(
        409,
        `${address} is the address of the Docker endpoint, which tenants without one of their own share`,
        mend,
      );
    const other = (await listTenants(sql)).find((tenant) => tenant.address === address && tenant.name !== name);
    if (other !== undefined) throw tenantError(409, `${address} is the address of tenant ${other.name}`, mend);
    const isKept = (await findTenant(sql, name))?.address === address;
    const isEverywhere = docker === undefined || ['0.0.0.0', '::'].includes(docker.host);
    const answer = isKept ? 'free' : await probePort({ protocol: 'tcp', address, port: isEverywhere ? 0 : docker.port });
    if (answer === 'EADDRNOTAVAIL') throw tenantError(400, `${address} is no address of this machine`, mend);
    if (answer !== 'free')
      throw tenantError(409, `the Docker endpoint cannot listen on ${address}:${String(docker?.port ?? 0)} (${answer})`, mend);
    return address;
  }

  /** The directory with ca.pem, cert.pem and key.pem that makes a Docker client speak for the tenant; made or renewed where needed. */
  async certificateFolder(name: string): Promise<string> {
    const { clock, sql, authority } = this.#deps;
    await this.get(name);
    const folder = join(this.#deps.folder, name);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const kept = await readFile(join(folder, 'cert.pem'), 'utf8').catch(() => '');
    const untilMs = clock.nowMs() + RENEW_BEFORE_MS;
    if (kept !== '' && (await tenantOfCertificate(sql, fingerprintOf(kept), untilMs))?.name === name) return folder;
    const issued = await authority.issueClient({ commonName: name, days: CERTIFICATE_DAYS });
    await addTenantCertificate(sql, { fingerprint: issued.fingerprintSha256, tenant: name, notAfterMs: issued.notAfterMs });
    await writeFile(join(folder, 'key.pem'), issued.keyPem, { mode: 0o600 });
    await writeFile(join(folder, 'ca.pem'), authority.caPem);
    await writeFile(join(folder, 'cert.pem'), issued.certPem);
    return folder;
  }
}

function lockOf(tenant: string): string {
  return `tenant ${tenant}`;
}

function fingerprintOf(pem: string): string {
  try {
    return new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();
  } catch {
    return ''; // Damaged: it speaks for nobody and is replaced.
  }
}

function checkedDomain(domain: string): string {
  const bare = domain.toLowerCase().replace(/^\*\./, '');
  if (bare.length > 253 || !DOMAIN.test(bare))
    throw tenantError(400, `"${domain.slice(0, 80)}" is no domain`, 'write it like shop.example.com');
  return bare;
}

function tenantError(status: number, message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_TENANT_REFUSED', source: 'usage', status, message, mend });
}
