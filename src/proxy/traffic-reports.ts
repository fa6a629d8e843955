/**
 * What a worker tells of what moved, so that each byte is counted once whatever becomes of the primary: reports are numbered, one is under way at a time,
 * and it is told again until the primary says that it is kept. What moves meanwhile is gathered for the next one: there are never more entries than
 * endpoints that something moved at.
 */
import { randomUUID } from 'node:crypto';
import type { TrafficDelta, TrafficReport } from './protocol.ts';

/** A primary that could not write it down (a full disk) hears of it again. */
const AGAIN_MS = 5_000;

type Amounts = Omit<TrafficDelta, 'tenant' | 'endpointId'>;
type Gathered = Pick<TrafficDelta, 'tenant' | 'endpointId'> & { -readonly [K in keyof Amounts]: number };

export class TrafficReports {
  /** Tells this worker from all others that ever were. */
  readonly #epoch = randomUUID();
  readonly #gathered = new Map<string, Gathered>();
  #number = 0;
  #underWay: { readonly report: TrafficReport; sentMs: number } | undefined;
  #settled: PromiseWithResolvers<undefined> | undefined;

  /** What moved since this was called last. */
  add(deltas: readonly TrafficDelta[]): void {
    for (const delta of deltas) {
      const key = `${delta.tenant}\n${delta.endpointId ?? ''}`;
      const known = this.#gathered.get(key);
      if (known === undefined) this.#gathered.set(key, { ...delta });
      else addTo(known, delta);
    }
  }

  /** What is to be sent now; undefined: nothing. */
  next(nowMs: number): TrafficReport | undefined {
    if (this.#underWay !== undefined) {
      if (nowMs - this.#underWay.sentMs < AGAIN_MS) return undefined;
      this.#underWay.sentMs = nowMs;
      return this.#underWay.report;
    }
    if (this.#gathered.size === 0) return undefined;
    this.#number += 1;
    const report = { epoch: this.#epoch, number: this.#number, deltas: [...this.#gathered.values()] };
    this.#gathered.clear();
    this.#underWay = { report, sentMs: nowMs };
    return report;
  }

  /** A report is kept by the primary: there may be a next one. */
  kept(number: number): void {
    if (this.#underWay?.report.number !== number) return;
    this.#underWay = undefined;
    if (this.#gathered.size > 0) return;
    this.#settled?.resolve(undefined);
    this.#settled = undefined;
  }

  /** Who was told is gone: what it did not say to have kept is told the next one at once. */
  forgotten(): void {
    if (this.#underWay !== undefined) this.#underWay.sentMs = Number.NEGATIVE_INFINITY;
  }

  /** Resolves when everything is kept. */
  async settled(): Promise<void> {
    if (this.#underWay === undefined && this.#gathered.size === 0) return;
    this.#settled ??= Promise.withResolvers();
    await this.#settled.promise;
  }
}

function addTo(sum: Gathered, delta: Amounts): void {
  sum.requests += delta.requests;
  sum.heldMs += delta.heldMs;
  sum.streamMs = (sum.streamMs ?? 0) + (delta.streamMs ?? 0);
  sum.downstreamInBytes += delta.downstreamInBytes;
  sum.downstreamOutBytes += delta.downstreamOutBytes;
  sum.upstreamInBytes += delta.upstreamInBytes;
  sum.upstreamOutBytes += delta.upstreamOutBytes;
}
