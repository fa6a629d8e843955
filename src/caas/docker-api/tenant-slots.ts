/** A bound on what one tenant does at once of a costly kind: more waits its turn, and the other tenants do not notice. */

interface Waiter {
  readonly go: () => void;
}

export class TenantSlots {
  readonly #max: number;
  readonly #taken = new Map<string, number>();
  readonly #waiting = new Map<string, Waiter[]>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Runs `work` when there is room; not at all where `signal` aborted before. */
  async run(tenant: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    await this.#take(tenant);
    try {
      if (!signal.aborted) await work();
    } finally {
      this.#give(tenant);
    }
  }

  async #take(tenant: string): Promise<void> {
    const taken = this.#taken.get(tenant) ?? 0;
    if (taken < this.#max) {
      this.#taken.set(tenant, taken + 1);
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const queue = this.#waiting.get(tenant) ?? [];
    this.#waiting.set(tenant, queue);
    queue.push({ go: resolve });
    await promise;
  }

  /** The slot goes to who waits, or is free. */
  #give(tenant: string): void {
    const queue = this.#waiting.get(tenant);
    const next = queue?.shift();
    if (queue?.length === 0) this.#waiting.delete(tenant);
    if (next !== undefined) {
      next.go();
      return;
    }
    const left = (this.#taken.get(tenant) ?? 1) - 1;
    if (left === 0) this.#taken.delete(tenant);
    else this.#taken.set(tenant, left);
  }
}
