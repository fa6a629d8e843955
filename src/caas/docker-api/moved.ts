/** Streams that go on after a migration, or after a sleep. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';

/** How often a stream of a container that sleeps looks whether it woke. */
const AWAKE_LOOK_MS = 250;

/**
 * The container under its new circumstances, if its engine's stream ended because it moved or slept: waits for a migration that is under way, and for as long
 * as the container sleeps. Undefined: it ended for good, or nobody listens any more.
 */
export async function movedTo(
  deps: { readonly containers: Containers },
  row: ContainerRow,
  signal: AbortSignal,
): Promise<ContainerRow | undefined> {
  while (!signal.aborted) {
    const now = await deps.containers.locks.run(row.id, async () => await deps.containers.find(row.id));
    if (now === undefined) return undefined;
    if (now.snapshot === '') {
      const isSame = now.engineId === row.engineId && now.carriedStart === row.carriedStart;
      return isSame ? undefined : now;
    }
    await delay(AWAKE_LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
  return undefined;
}
