/** A container's memory and files of one moment, from which it goes on. */
import type { Clock } from '#clock';
import type { Activator } from '#routing/activator.ts';
import { bothDone } from './both-done.ts';
import type { MoveSource } from './move-source.ts';

/** How long the edge holds requests for a container that is saved; requests in flight get 2 s to end by themselves before they are cut. */
export const SAVE_HOLD = { deadlineMs: 30_000, drainMs: 2_000 } as const;

export interface SavedBeside {
  readonly pausedMs: number;
  readonly imageBytes: number;
}

/**
 * Saves it while `finishFiles` copies what changed last. It goes on and its requests are let go in any case, even where one of the two fails.
 *
 * Errors: what the pause, the save, the copy or going on threw.
 */
export async function saveBeside(
  { clock, activator }: { readonly clock: Clock; readonly activator: Activator },
  source: MoveSource,
  work: { readonly id: string; readonly imageDir: string; readonly finishFiles: () => Promise<void> },
): Promise<SavedBeside> {
  await using save = await source.prepareSave(work.imageDir);
  try {
    // A save cuts its connections: the edge must have none that it would use again.
    await activator.freeze([work.id], SAVE_HOLD);
    const fromMs = clock.monotonicMs();
    try {
      const { paused, saved } = source.pauseAndSave(save);
      const [imageBytes] = await bothDone(saved, paused.then(work.finishFiles));
      return { imageBytes, pausedMs: Math.round(clock.monotonicMs() - fromMs) };
    } finally {
      await source.goOn();
    }
  } finally {
    await activator.thaw([work.id]);
  }
}
