/** Names that clients call and no certificate is for, as a worker tells its primary, which may have one made. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';

/** A name is told again after so long: the primary may have said no, or be another one. */
const AGAIN_MS = 30_000;
const KEPT_MAX = 10_000;
/** Clients may call any name: this is what telling them may cost, and much more than are worth a certificate. */
const TOLD_MAX = 50;
const SPAN_MS = 1000;
/** Of a DNS name. */
const NAME_CHARS_MAX = 253;

export class CalledNames {
  readonly #clock: Clock;
  readonly #tell: (names: readonly string[]) => void;
  readonly #told = new LRUCache<string, number>({ max: KEPT_MAX });
  #spanFromMs = 0;
  #inSpan = 0;

  constructor(clock: Clock, tell: (names: readonly string[]) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** `name`: in lower case, as a client wrote it. */
  called(name: string): void {
    if (name === '' || name.length > NAME_CHARS_MAX) return;
    const nowMs = this.#clock.monotonicMs();
    const beforeMs = this.#told.get(name);
    if (beforeMs !== undefined && nowMs - beforeMs < AGAIN_MS) return;
    if (nowMs - this.#spanFromMs >= SPAN_MS) {
      this.#spanFromMs = nowMs;
      this.#inSpan = 0;
    }
    if (this.#inSpan >= TOLD_MAX) return;
    this.#inSpan += 1;
    this.#told.set(name, nowMs);
    this.#tell([name]);
  }
}
