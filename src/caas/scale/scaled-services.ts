/** Which containers are one service to the scaler: an original that asks for it by labels, and its copies. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { SCALE_OF_LABEL } from './scale-labels.ts';

export interface ScaledService {
  /** The original's. */
  readonly id: string;
  readonly tenant: string;
  /** Undefined: it was removed, and copies of it are left. */
  readonly original: ContainerRow | undefined;
  /** All that stand behind it, those included that people made. */
  readonly copies: readonly ContainerRow[];
  /** Those that the scaler made, oldest first. */
  readonly made: readonly ContainerRow[];
}

type Gathered = ScaledService & { readonly copies: ContainerRow[]; readonly made: ContainerRow[] };

function isCopy(labels: Readonly<Record<string, string>>): boolean {
  return labels[SCALE_OF_LABEL] !== undefined || labels['ecluse.clone.of'] !== undefined;
}

/** Services by the id of their original. */
export function servicesOf(rows: readonly ContainerRow[]): ReadonlyMap<string, ScaledService> {
  const known = rows
    .filter(({ state }) => state !== 'creating')
    .map((row) => ({ row, labels: parseStoredSpec(row.spec).config.Labels ?? {} }));
  const services = new Map<string, Gathered>();
  const open = (id: string, tenant: string, original: ContainerRow | undefined): Gathered => {
    const service = services.get(id) ?? { id, tenant, original, copies: [], made: [] };
    services.set(id, service);
    return service;
  };
  for (const { row, labels } of known) {
    const asks = labels['ecluse.scale.max'] !== undefined || labels['ecluse.scale.memory.max'] !== undefined;
    if (asks && !isCopy(labels)) open(row.id, row.tenant, row);
  }
  const byName = new Map(
    [...services.values()].map((service) => [`${service.tenant}\n${service.original?.name ?? ''}`, service]),
  );
  for (const { row, labels } of known.toSorted((one, other) => one.row.createdMs - other.row.createdMs)) {
    const of = labels[SCALE_OF_LABEL];
    if (of !== undefined) {
      const service = open(of, row.tenant, undefined);
      service.copies.push(row);
      service.made.push(row);
    } else if (labels['ecluse.clone.of'] !== undefined)
      byName.get(`${row.tenant}\n${labels['ecluse.clone.of']}`)?.copies.push(row);
  }
  return services;
}
