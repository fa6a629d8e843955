/** A container's memory and files of one moment, from which it goes on. */
import { rm } from 'node:fs/promises';
import type { Clock } from '#clock';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { SaveDebts, Step } from '#caas/snapshots/save-debts.ts';
import { bothDone } from './both-done.ts';
import type { MoveSource } from './move-source.ts';

/** How long the edge holds requests for a container that is saved; requests in flight get 2 s to end by themselves before they are cut. */
export const SAVE_HOLD = { deadlineMs: 30_000, drainMs: 2_000 } as const;

export interface SavedBeside {
  readonly pausedMs: number;
  readonly imageBytes: number;
}

export interface SaveBesideDeps {
  readonly clock: Clock;
  readonly activator: Activator;
  readonly debts: SaveDebts;
}

interface SaveBesideWork {
  readonly row: ContainerRow;
  readonly imageDir: string;
  readonly finishFiles: () => Promise<void>;
}

/**
 * Saves it while `finishFiles` copies what changed last. It goes on and its requests are let go in any case, even where one of the two fails.
 *
 * Errors: what the pause, the save or the copy threw.
 */
export async function saveBeside(
  { clock, activator, debts }: SaveBesideDeps,
  source: MoveSource,
  { row, imageDir, finishFiles }: SaveBesideWork,
): Promise<SavedBeside> {
  await using save = await source.prepareSave(imageDir);
  try {
    // A save cuts its connections: the edge must have none that it would use again.
    await activator.freeze([row.id], SAVE_HOLD);
    const fromMs = clock.monotonicMs();
    const { paused, saved } = source.pauseAndSave(save);
    const [imageBytes] = await bothDone(saved, paused.then(finishFiles));
    return { imageBytes, pausedMs: Math.round(clock.monotonicMs() - fromMs) };
  } finally {
    await debts.take(row, [async () => await source.goOn(), async () => await activator.thaw([row.id])]);
  }
}

/** What is to be done when its image is of no use any more, whatever became of the save. The memory limit comes back after the image, whose pages count. */
export function stepsAfterSave(source: MoveSource, folders: readonly string[]): readonly Step[] {
  return [
    async () => {
      for (const folder of folders) await rm(folder, { recursive: true, force: true });
      await source.limitAgain();
    },
    async () => {
      await source.correctEngine();
    },
  ];
}
