/** Puts containers to sleep that nobody asked for longer than their label `ecluse.idle` says. */
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { EndpointUse } from '#routing/activator.ts';
import type { Containers } from '#caas/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { idleWishOf } from './sleep-check.ts';
import type { Sleepers } from './sleepers.ts';

export interface IdleWatchDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly containers: Containers;
  readonly sleepers: Sleepers;
  /** What is under way at a container, over all workers. */
  readonly useOf: (containerId: string) => EndpointUse;
}

const PERIOD_MS = 1_000;
/** What cannot sleep now (an open session, no room) is asked again after this. */
const REFUSED_PAUSE_MS = 60_000;

/** Whether a container has been quiet for long enough. `watchedMs`: for how long it has been seen to run. Pure. */
export function isIdle(use: EndpointUse, watchedMs: number, idleMs: number): boolean {
  if (use.inFlight > 0 || use.held > 0) return false;
  return Math.min(use.quietMs ?? watchedMs, watchedMs) >= idleMs;
}

/** Begins to watch; disposing ends it. */
export function watchIdle(deps: IdleWatchDeps): AsyncDisposable {
  /** By container: since when it runs, and until when it is left alone. */
  const seen = new Map<string, { readonly sinceMs: number; notBeforeMs: number }>();
  return startLoop(deps, {
    name: 'idle',
    periodMs: PERIOD_MS,
    round: async () => {
      const nowMs = deps.clock.monotonicMs();
      const running = (await deps.containers.list()).filter((row) => row.state === 'running');
      const ids = new Set(running.map(({ id }) => id));
      for (const id of seen.keys()) if (!ids.has(id)) seen.delete(id);
      for (const row of running) {
        const wish = idleWishOf(parseStoredSpec(row.spec).config.Labels ?? {});
        if (wish.kind !== 'after') continue;
        const one = seen.get(row.id) ?? { sinceMs: nowMs, notBeforeMs: 0 };
        seen.set(row.id, one);
        if (nowMs < one.notBeforeMs || !isIdle(deps.useOf(row.id), nowMs - one.sinceMs, wish.idleMs)) continue;
        one.notBeforeMs = nowMs + REFUSED_PAUSE_MS;
        await suspend(deps, row.id);
      }
    },
  });
}

async function suspend({ sleepers, log }: IdleWatchDeps, id: string): Promise<void> {
  try {
    await sleepers.suspend(id);
  } catch (error) {
    const isRefusal = error instanceof EcluseError && error.code === 'ECLUSE_SLEEP_REFUSED';
    log[isRefusal ? 'info' : 'warn']({ container: id, reason: reasonOf(error) }, 'an idle container was not put to sleep');
  }
}
