/** Whose incarnation it is, and where its counters are. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { Incarnation } from '#state/ledger.ts';
import type { Host } from './host.ts';

export type IncarnationBase = Pick<Incarnation, 'container' | 'incarnation' | 'tenant' | 'host' | 'name' | 'cgroup'>;

export function incarnationBaseOf(
  { id: container, incarnation, tenant, name }: ContainerRow,
  host: Pick<Host, 'name' | 'cgroupOf'>,
): IncarnationBase {
  return { container, incarnation, tenant, host: host.name, name, cgroup: host.cgroupOf(tenant, container) };
}
