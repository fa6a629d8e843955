/**
 * Which endpoints are on the move. As for requests (`hold.ts`): open → frozen (who comes waits) → overdue (who comes is refused) → open, by `thaw`
 * alone.
 */
import type { Clock } from '#clock';

interface Freeze {
  readonly endMs: number;
  readonly timer: NodeJS.Timeout;
}

export class Freezes implements Disposable {
  readonly #clock: Clock;
  readonly #onChange: () => void;
  readonly #freezes = new Map<string, Freeze>();

  /** `onChange`: who waits may have to wait no longer. */
  constructor(clock: Clock, onChange: () => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  freeze(endpointIds: Iterable<string>, deadlineMs: number): void {
    const endMs = this.#clock.monotonicMs() + deadlineMs;
    for (const id of endpointIds) {
      clearTimeout(this.#freezes.get(id)?.timer);
      this.#freezes.set(id, { endMs, timer: setTimeout(this.#onChange, deadlineMs) });
    }
  }

  thaw(endpointIds: Iterable<string>): void {
    for (const id of endpointIds) {
      clearTimeout(this.#freezes.get(id)?.timer);
      this.#freezes.delete(id);
    }
    this.#onChange();
  }

  stateOf(endpointId: string): 'open' | 'frozen' | 'overdue' {
    const freeze = this.#freezes.get(endpointId);
    if (freeze === undefined) return 'open';
    // A timer can fire a fraction of a millisecond early; without the tolerance its round would find nothing overdue.
    return freeze.endMs > this.#clock.monotonicMs() + 2 ? 'frozen' : 'overdue';
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#freezes.values()) clearTimeout(timer);
    this.#freezes.clear();
  }
}
