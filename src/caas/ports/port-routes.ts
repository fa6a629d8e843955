/** Ports that containers hold become entries of the route table. Pure. */
import type { Endpoint, PublishedPort } from '#routing/route-table.ts';
import type { ContainerRow, ContainerState } from '#state/containers.ts';
import type { PublishedPortRow } from '#state/published-ports.ts';
import type { Tenant } from '#state/tenants.ts';

/** A paused container keeps its connections, and who comes waits for it as long as a connection may take. */
const REACHABLE: ReadonlySet<ContainerState> = new Set(['running', 'paused']);

/** Ports whose container runs: for the others nothing is listened on, as in Docker. */
export function publishedOf(
  ports: readonly PublishedPortRow[],
  containers: Iterable<ContainerRow>,
  tenants: ReadonlyMap<string, Tenant>,
): readonly PublishedPort[] {
  const rows = new Map(Array.from(containers, (row) => [row.id, row]));
  return ports.flatMap(({ protocol, address, port, tenant, container, containerPort }): readonly PublishedPort[] => {
    const row = rows.get(container);
    if (row === undefined || !REACHABLE.has(row.state) || row.address === '' || tenants.get(tenant)?.state !== 'active')
      return [];
    const { id, host, incarnation } = row;
    const at = { id, address: row.address, port: containerPort, hostName: host, generation: incarnation };
    const endpoint: Endpoint = row.snapshot === '' ? at : { ...at, state: 'asleep' };
    return [{ protocol, address, port, tenant, endpoint }];
  });
}
