/** How far a move is, told as it happens and kept for its report. */
import type { Clock } from '#clock';

export interface MigrationProgress {
  readonly phase: string;
  readonly detail: string;
  readonly elapsedMs: number;
}

export interface PhaseTime {
  readonly phase: string;
  readonly tookMs: number;
}

export class MoveTimes {
  readonly #clock: Clock;
  readonly #tell: (progress: MigrationProgress) => void;
  readonly #startMs: number;
  readonly #phases: { readonly phase: string; readonly fromMs: number }[] = [];

  constructor(clock: Clock, tell: (progress: MigrationProgress) => void) {
    this.#clock = clock;
    this.#tell = tell;
    this.#startMs = clock.monotonicMs();
  }

  /** Ends the phase before and begins the next. */
  phase(phase: string, detail: string): void {
    this.#phases.push({ phase, fromMs: this.#clock.monotonicMs() });
    this.#tell({ phase, detail, elapsedMs: this.totalMs() });
  }

  /** Says more about the phase under way. */
  detail(detail: string): void {
    const phase = this.#phases.at(-1)?.phase ?? '';
    this.#tell({ phase, detail, elapsedMs: this.totalMs() });
  }

  totalMs(): number {
    return Math.round(this.#clock.monotonicMs() - this.#startMs);
  }

  /** The phases up to now with the time that each took. */
  phases(): readonly PhaseTime[] {
    const endMs = this.#clock.monotonicMs();
    return this.#phases.map(({ phase, fromMs }, index) => ({
      phase,
      tookMs: Math.round((this.#phases[index + 1]?.fromMs ?? endMs) - fromMs),
    }));
  }
}
