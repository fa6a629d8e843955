/** Takes snapshots of containers by themselves, as often as their label `ecluse.snapshot` says. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Containers } from '#caas/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { isDue, snapshotWishOf } from './snapshot-check.ts';
import type { Snapshots } from './snapshots.ts';

export interface SnapshotWatchDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly containers: Containers;
  readonly snapshots: Snapshots;
}

const PERIOD_MS = 1_000;

/** Begins to watch; disposing ends it. One after the other: each needs the disk and a processor for itself. */
export function watchSnapshots(deps: SnapshotWatchDeps): AsyncDisposable {
  const { clock, containers } = deps;
  /** By container that runs: when the last one was tried, or when it was first seen. */
  const last = new Map<string, number>();
  return startLoop(deps, {
    name: 'snapshots',
    periodMs: PERIOD_MS,
    round: async (signal) => {
      const running = (await containers.list()).filter((row) => row.state === 'running' && row.snapshot === '');
      const ids = new Set(running.map(({ id }) => id));
      for (const id of last.keys()) if (!ids.has(id)) last.delete(id);
      for (const { id, spec } of running) {
        const wish = snapshotWishOf(parseStoredSpec(spec).config.Labels ?? {});
        if (wish.kind !== 'every' || signal.aborted) continue;
        const lastMs = last.get(id) ?? (await newestMs(deps, id)) ?? clock.nowMs();
        last.set(id, lastMs);
        // What holds its lock is a move, a sleep or an order of its tenant: the next round asks again.
        if (!isDue(lastMs, clock.nowMs(), wish.intervalMs) || containers.locks.held(id)) continue;
        last.set(id, clock.nowMs());
        await take(deps, id);
      }
    },
  });
}

/** A restart of the node is no reason to wait for a whole interval again. */
async function newestMs({ snapshots }: SnapshotWatchDeps, id: string): Promise<number | undefined> {
  return (await snapshots.listOf(id)).findLast(({ kind }) => kind === 'automatic')?.createdMs;
}

async function take({ snapshots, log }: SnapshotWatchDeps, id: string): Promise<void> {
  try {
    await snapshots.take(id, 'automatic');
  } catch (error) {
    log.warn({ container: id, reason: reasonOf(error) }, 'an automatic snapshot was not taken');
  }
}
