/** Streams that go on after a migration. */
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';

/** Where a container is now, if it moved away from where `row` says; waits for a migration that is under way. */
export async function movedTo(deps: { readonly containers: Containers }, row: ContainerRow): Promise<ContainerRow | undefined> {
  return await deps.containers.locks.run(row.id, async () => {
    const now = await deps.containers.find(row.id);
    return now === undefined || now.engineId === row.engineId ? undefined : now;
  });
}
