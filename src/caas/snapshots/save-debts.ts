/**
 * What a save left of its way back, because an engine was away or the disk was full: after a sleep that did not come about, a snapshot, a copy. It is
 * tried again every second until all of it is done, and until then the container is not saved again. A daemon that dies meanwhile finds the snapshot
 * still being made (`sleep-recovery.ts`).
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { startLoop } from '#lifecycle';
import type { KeyedLock } from '#lifecycle';
import { findContainer } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';

export type Step = () => Promise<unknown>;

interface Debt {
  readonly row: ContainerRow;
  /** On the container as it was then. */
  steps: readonly Step[];
  /** Afterwards, whatever became of the container. */
  last: readonly Step[];
}

export interface SaveDebtsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  /** By container. */
  readonly locks: KeyedLock;
}

/** An engine that died is there again within seconds. */
const PERIOD_MS = 1_000;

export class SaveDebts implements AsyncDisposable {
  readonly #deps: SaveDebtsDeps;
  /** By container. */
  readonly #debts = new Map<string, Debt>();
  #loop: AsyncDisposable | undefined;
  /** The node stops: a loop would keep its process alive, and its store is closed. */
  #isOver = false;

  constructor(deps: SaveDebtsDeps) {
    this.#deps = deps;
  }

  /**
   * Takes the steps, each whatever becomes of the others, and the last one when all of them are taken. They come after those that are owed already.
   * Never rejects. The caller holds the container's lock.
   */
  async take(row: ContainerRow, steps: readonly Step[], last?: Step): Promise<void> {
    const owed = this.#debts.get(row.id);
    const lasts = [...(owed?.last ?? []), ...(last === undefined ? [] : [last])];
    this.#debts.set(row.id, { row, steps: [...(owed?.steps ?? []), ...steps], last: lasts });
    if (await this.settle(row.id)) return;
    if (this.#isOver) return; // The next start finds what is left.
    this.#loop ??= startLoop(this.#deps, { name: 'saves', periodMs: PERIOD_MS, round: async () => await this.#round() });
  }

  /** Whether nothing is owed any more; tries it again first. The caller holds the container's lock. */
  async settle(id: string): Promise<boolean> {
    const debt = this.#debts.get(id);
    if (debt === undefined) return true;
    try {
      debt.steps = await this.#failing(debt);
      if (debt.steps.length > 0) return false;
      for (const last of debt.last) await last();
    } catch (error) {
      this.#tell(id, error);
      return false;
    }
    this.#debts.delete(id);
    return true;
  }

  async #failing({ row, steps }: Debt): Promise<readonly Step[]> {
    const now = await findContainer(this.#deps.sql, row.id);
    // It is gone, was moved or made anew: nothing of that save is left on it.
    if (now?.engineId !== row.engineId) return [];
    const failing: Step[] = [];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        this.#tell(row.id, error);
        failing.push(step);
      }
    }
    return failing;
  }

  #tell(container: string, error: unknown): void {
    const level = this.#loop === undefined ? 'error' : 'debug';
    this.#deps.log[level]({ container, reason: reasonOf(error) }, 'a step back from a save failed, and is tried again');
  }

  async #round(): Promise<void> {
    const { locks } = this.#deps;
    for (const id of this.#debts.keys()) if (!locks.held(id)) await locks.run(id, async () => await this.settle(id));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#loop?.[Symbol.asyncDispose]();
    this.#loop = undefined;
  }
}
