/**
 * Carries a plan out: one move after the other, because the hosts of a node share its processors and the memory that images are kept in, and two
 * moves at once would only pause longer. Containers that sleep are woken for their move and put to sleep again.
 */
import { reasonOf } from '#errors';
import type { MoveOrder } from '#caas/migration/move.ts';
import type { Migrations } from '#caas/migration/migration.ts';
import type { Containers } from '#caas/containers.ts';
import type { Sleepers } from '#caas/sleep/sleepers.ts';
import type { Move } from './move-plan.ts';

export interface ExecutionDeps {
  readonly containers: Containers;
  readonly migrations: Migrations;
  readonly sleepers: Sleepers;
  /** For the metrics. */
  readonly countMove: (outcome: 'done' | 'failed') => void;
}

/** What became of one move of a plan. */
export interface MoveOutcome {
  /** TENANT/NAME. */
  readonly container: string;
  readonly from: string;
  readonly to: string;
  readonly why: string;
  readonly outcome: 'planned' | 'moved' | 'failed';
  /** Of one that failed. */
  readonly reason?: string;
  readonly pausedMs?: number;
  readonly heldMs?: number;
}

/** A line for whoever waits. */
export type Say = (text: string) => void;

export function plannedOf(move: Move): MoveOutcome {
  const { tenant, name, from, to, why } = move;
  return { container: `${tenant}/${name}`, from, to, why: why.text, outcome: 'planned' };
}

export interface ExecutionOrder extends MoveOrder {
  /** Asked before each move: false ends the work with what is done. */
  readonly goOn: () => Promise<boolean>;
  readonly say: Say;
}

/** Makes the moves of a plan by its waves. One that fails leaves its container where it was, and the others are made all the same. */
export async function carryOut(
  deps: ExecutionDeps,
  moves: readonly Move[],
  { cause, endSessions, goOn, say }: ExecutionOrder,
): Promise<readonly MoveOutcome[]> {
  const outcomes: MoveOutcome[] = [];
  for (const move of moves.toSorted((one, other) => one.wave - other.wave)) {
    if (!(await goOn())) return outcomes;
    const planned = plannedOf(move);
    say(`${planned.container}: ${move.from} to ${move.to}: ${planned.why}`);
    try {
      const { pausedMs, heldMs } = await moveOne(deps, move, { cause, endSessions });
      deps.countMove('done');
      say(`${planned.container} is on ${move.to}, paused for ${String(pausedMs)} ms`);
      outcomes.push({ ...planned, outcome: 'moved', pausedMs, heldMs });
    } catch (error) {
      deps.countMove('failed');
      say(`${planned.container} stays: ${reasonOf(error)}`);
      outcomes.push({ ...planned, outcome: 'failed', reason: reasonOf(error) });
    }
  }
  return outcomes;
}

async function moveOne(
  { containers, migrations, sleepers }: ExecutionDeps,
  { container, to }: Move,
  order: MoveOrder,
): Promise<{ readonly pausedMs: number; readonly heldMs: number }> {
  const slept = (await containers.find(container))?.snapshot !== '';
  if (slept) await sleepers.wake(container);
  try {
    return await migrations.migrate(container, to, () => undefined, order);
  } finally {
    // One that is busy by now stays awake; its label or its operator puts it to sleep later.
    if (slept) await sleepers.suspend(container).catch(() => undefined);
  }
}
