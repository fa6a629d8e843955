/**
 * Which names that clients call get a certificate: those of a route, and where the operator names somebody to ask, those that it allows. Nobody else's:
 * who may have any name ordered spends the limits of all.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { isPublicName } from './registered-domain.ts';

export interface OnDemandDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Whether a route has the name, and nothing serves it yet. */
  readonly isOpen: (name: string) => boolean;
  /** Asks the operator's service; undefined: routes decide. */
  readonly ask: ((name: string, signal: AbortSignal) => Promise<boolean>) | undefined;
  /** Has it ordered. */
  readonly want: (name: string) => Promise<void>;
}

/** What was decided of a name holds for a while; clients call again and again. */
const KEPT_MAX = 10_000;
const YES_MS = 60_000;
const NO_MS = 300_000;
const ASKS_MAX = 16;
const ASK_TIMEOUT_MS = 10_000;
/** New names in an hour: more is an attack, or wants a wildcard. */
const NAMES_MAX = 500;
const SPAN_MS = 3_600_000;

export class OnDemand {
  readonly #deps: OnDemandDeps;
  readonly #decided = new LRUCache<string, number>({ max: KEPT_MAX });
  #asking = 0;
  #spanFromMs = Number.NEGATIVE_INFINITY;
  #inSpan = 0;

  constructor(deps: OnDemandDeps) {
    this.#deps = deps;
  }

  /** Clients have called these. */
  async called(names: readonly string[]): Promise<void> {
    await Promise.all(names.map(async (name) => await this.#calledOne(name)));
  }

  async #calledOne(name: string): Promise<void> {
    const { clock, log, isOpen, want } = this.#deps;
    if ((this.#decided.get(name) ?? 0) > clock.monotonicMs()) return;
    if (this.#asking >= ASKS_MAX || !isPublicName(name) || name.startsWith('*') || !isOpen(name)) return;
    this.#decided.set(name, clock.monotonicMs() + YES_MS);
    this.#asking += 1;
    try {
      if ((await this.#isAllowed(name)) && this.#hasRoom()) await want(name);
      else this.#decided.set(name, clock.monotonicMs() + NO_MS);
    } catch (error) {
      // It is asked again when the name is called again.
      log.warn({ host: name, reason: reasonOf(error) }, 'whether a name may have a certificate could not be found out');
    } finally {
      this.#asking -= 1;
    }
  }

  async #isAllowed(name: string): Promise<boolean> {
    const { ask } = this.#deps;
    return ask === undefined || (await ask(name, AbortSignal.timeout(ASK_TIMEOUT_MS)));
  }

  #hasRoom(): boolean {
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - this.#spanFromMs >= SPAN_MS) {
      this.#spanFromMs = nowMs;
      this.#inSpan = 0;
    }
    this.#inSpan += 1;
    return this.#inSpan <= NAMES_MAX;
  }
}

/** A GET of `url` with `domain=NAME`: 200 allows, all else does not; what does not answer decides nothing. */
export function askByHttp(url: string): (name: string, signal: AbortSignal) => Promise<boolean> {
  return async (name, signal) => {
    const asked = new URL(url);
    asked.searchParams.set('domain', name);
    const answer = await fetch(asked, { signal, redirect: 'manual' });
    await answer.body?.cancel();
    if (answer.status >= 500) throw new Error(`${asked.origin} answered ${String(answer.status)}`);
    return answer.status === 200;
  };
}
