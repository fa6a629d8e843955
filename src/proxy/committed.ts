/** What the workers serve, as the primary keeps it: compiled, so that a change costs what it changes, and whole, so that a new worker can boot with it. */
import { compileRoutes, configOf } from '#routing/compile.ts';
import type { PublishedPort, RouteTable } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { EcluseError } from '#errors';
import { ShardedMap } from '#sharded-map';
import type { EdgeChange, EdgeConfig } from './protocol.ts';

/** What all workers serve, or are to serve. */
export interface Committed {
  readonly table: RouteTable;
  readonly ports: readonly PublishedPort[];
  /** By name. */
  readonly certificates: ShardedMap<EdgeCertificate>;
}

export function committedOf({ config, certificates }: EdgeConfig): Committed {
  const compiled = compileRoutes(config);
  if (compiled.kind === 'rejected') throw configRefused(config.version, compiled.reason);
  const nothing = { table: compiled.table, ports: [], certificates: ShardedMap.empty<EdgeCertificate>() };
  return committedWith(nothing, compiled.table, { ports: config.ports, certificates, removedCertificates: [] });
}

export function committedWith(before: Committed, table: RouteTable, change: Omit<EdgeChange, 'routes'>): Committed {
  const certificates = new Map<string, EdgeCertificate | undefined>(change.removedCertificates.map((name) => [name, undefined]));
  for (const certificate of change.certificates) certificates.set(certificate.name, certificate);
  return { table, ports: change.ports ?? before.ports, certificates: before.certificates.with(certificates) };
}

/** What a worker boots with. */
export function edgeConfigOf({ table, ports, certificates }: Committed): EdgeConfig {
  return { config: { ...configOf(table), ports }, certificates: [...certificates.values()] };
}

export function configRefused(version: number, reason: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CONFIG_REFUSED',
    source: 'config',
    message: `config version ${String(version)} was refused: ${reason}`,
    status: 400,
  });
}
