/** What the workers serve, as the primary keeps it: compiled, so that a change costs what it changes, and whole, so that a new worker can boot with it. */
import { compileRoutes, configOf } from '#routing/compile.ts';
import type { PublishedPort, RouteConfig, RouteTable } from '#routing/route-table.ts';
import type { Coverage } from '#tls/certificate.ts';
import type { CertificateIndex } from '#tls/certificate-index.ts';
import { EcluseError } from '#errors';
import type { EdgeChange } from './protocol.ts';
import { asleepAmong } from './wakes.ts';

/** What all workers serve, or are to serve. */
export interface Committed {
  readonly table: RouteTable;
  readonly ports: readonly PublishedPort[];
  readonly certificates: CertificateIndex<Coverage>;
}

/** What a pool begins with. */
export interface EdgeStart {
  readonly config: RouteConfig;
  /** A bare one goes with a stock. */
  readonly certificates: CertificateIndex<Coverage>;
}

export function committedOf({ config, certificates }: EdgeStart): Committed {
  const compiled = compileRoutes(config);
  if (compiled.kind === 'rejected') throw configRefused(config.version, compiled.reason);
  return { table: compiled.table, ports: config.ports ?? [], certificates };
}

export function committedWith(before: Committed, table: RouteTable, change: Omit<EdgeChange, 'routes'>): Committed {
  const certificates = before.certificates.with(change.certificates, change.removedCertificates);
  return { table, ports: change.ports ?? before.ports, certificates };
}

/** What a worker boots with, beside certificates. */
export function routeConfigOf({ table, ports }: Committed): RouteConfig {
  return { ...configOf(table), ports };
}

export function configRefused(version: number, reason: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CONFIG_REFUSED',
    source: 'config',
    message: `config version ${String(version)} was refused: ${reason}`,
    status: 400,
  });
}

/** Questions about the endpoints of what is committed, for whoever forgets those that are gone. */
export function endpointsOf({ table, ports }: Committed): {
  readonly isThere: (endpointId: string) => boolean;
  readonly isAsleep: (endpointId: string) => boolean;
} {
  const published = ports.map(({ endpoint }) => endpoint);
  const asleep = asleepAmong(published);
  const ids = new Set(published.map(({ id }) => id));
  return {
    isThere: (id) => ids.has(id) || table.endpoints.get(id) !== undefined,
    isAsleep: (id) => asleep.has(id) || table.endpoints.get(id)?.some(({ state }) => state === 'asleep') === true,
  };
}
