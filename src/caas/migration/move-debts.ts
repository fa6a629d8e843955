/**
 * What moves left that is not in order yet: an engine was away, the disk was full, a daemon died. Their journals are open, and are tried again every
 * second until they can be closed. Before that the container does not move again.
 */
import { startLoop } from '#lifecycle';
import type { Activator } from '#routing/activator.ts';
import { listOpenMigrations } from '#state/migrations.ts';
import { recoverMove } from './migration-recovery.ts';
import type { MigrationRecoveryDeps } from './migration-recovery.ts';

/** An engine that died is there again within seconds. */
const PERIOD_MS = 1_000;

export class MoveDebts implements AsyncDisposable {
  readonly #deps: MigrationRecoveryDeps & { readonly activator: Activator };
  /** Containers. */
  readonly #owed = new Set<string>();
  #loop: AsyncDisposable | undefined;

  constructor(deps: MigrationRecoveryDeps & { readonly activator: Activator }) {
    this.#deps = deps;
  }

  owe(container: string): void {
    this.#owed.add(container);
  }

  isOwed(container: string): boolean {
    return this.#owed.has(container);
  }

  /** Puts in order what a move of this container left, for who holds its lock. Returns whether nothing is owed any more. */
  async settle(container: string): Promise<boolean> {
    if (!this.#owed.has(container)) return true;
    let isDone = true;
    for (const journal of await listOpenMigrations(this.#deps.sql)) {
      if (journal.container === container) isDone = (await recoverMove(this.#deps, journal)) && isDone;
    }
    if (!isDone) return false;
    await this.#deps.activator.publish();
    this.#owed.delete(container);
    return true;
  }

  /** Takes up what an earlier daemon left, and goes on trying. Called before anything serves. */
  async start(): Promise<void> {
    const { log, clock, sql, containers } = this.#deps;
    for (const journal of await listOpenMigrations(sql)) {
      log.warn({ container: journal.container, state: journal.state }, 'a migration was interrupted');
      this.#owed.add(journal.container);
    }
    for (const id of this.#owed) await this.settle(id);
    const round = async (): Promise<void> => {
      for (const id of this.#owed) {
        if (!containers.locks.held(id)) await containers.locks.run(id, async () => await this.settle(id));
      }
    };
    this.#loop = startLoop({ log, clock }, { name: 'moves', periodMs: PERIOD_MS, round });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
    this.#loop = undefined;
  }
}
