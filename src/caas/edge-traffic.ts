/**
 * What the edge moved for containers: workers' reports are written down before they are said to be kept, and each once, whoever says it again. What is
 * written down waits here for the container's next interval, over restarts of the node, too.
 */
import type { Clock } from '#clock';
import { addTraffic, forgetTraffic, readEpochs, readPendingTraffic } from '#state/edge-traffic.ts';
import type { KeptReport, Traffic } from '#state/edge-traffic.ts';
import type { Sql } from '#state/sql.ts';

export const NO_TRAFFIC: Traffic = { requests: 0, ingressBytes: 0, egressBytes: 0, heldMs: 0, streamMs: 0 };

interface Waiting {
  readonly report: KeptReport;
  readonly done: PromiseWithResolvers<undefined>;
}

/** A worker that has said nothing for so long is gone. One that could not be heard for longer counts twice what it says again. */
const EPOCH_KEPT_MS = 7 * 86_400_000;
/** What is written at a time: more would hold up other writers. */
const BATCH_MAX = 64;

export class EdgeTraffic {
  readonly #sql: Sql;
  readonly #clock: Clock;
  #numbers = new Map<string, number>();
  #pending = new Map<string, Traffic>();
  readonly #waiting: Waiting[] = [];
  #isWriting = false;

  private constructor(sql: Sql, clock: Clock) {
    this.#sql = sql;
    this.#clock = clock;
  }

  static async open(sql: Sql, clock: Clock): Promise<EdgeTraffic> {
    await forgetTraffic(sql, clock.nowMs() - EPOCH_KEPT_MS);
    const traffic = new EdgeTraffic(sql, clock);
    await traffic.reread();
    return traffic;
  }

  /** Takes what the store has for what there is: something else was written there. */
  async reread(): Promise<void> {
    this.#numbers = new Map(await readEpochs(this.#sql));
    const pending = await readPendingTraffic(this.#sql);
    this.#pending = new Map(pending.map(({ container, ...traffic }) => [container, traffic]));
  }

  /** Resolves when a report is written down, now or before. Errors: those of the store. */
  async keep(report: KeptReport): Promise<void> {
    const done = Promise.withResolvers<undefined>();
    this.#waiting.push({ report, done });
    if (!this.#isWriting) void this.#drain();
    await done.promise;
  }

  /** What is not in the ledger yet. */
  of(container: string): Traffic {
    return this.#pending.get(container) ?? NO_TRAFFIC;
  }

  /** Containers that have something that is not in the ledger. */
  containers(): readonly string[] {
    return [...this.#pending.keys()];
  }

  /** This much of it is in the ledger now. */
  taken(container: string, traffic: Traffic): void {
    const left = sumOf(this.of(container), traffic, -1);
    if (Object.values(left).every((amount) => amount === 0)) this.#pending.delete(container);
    else this.#pending.set(container, left);
  }

  async #drain(): Promise<void> {
    this.#isWriting = true;
    await new Promise(setImmediate); // What the workers say in this turn is written together.
    while (this.#waiting.length > 0) {
      const some = this.#waiting.splice(0, BATCH_MAX);
      try {
        await this.#write(some.map(({ report }) => report));
        for (const { done } of some) done.resolve(undefined);
      } catch (error) {
        for (const { done } of some) done.reject(error);
      }
    }
    this.#isWriting = false;
  }

  async #write(reports: readonly KeptReport[]): Promise<void> {
    const fresh = new Map<string, KeptReport>();
    for (const report of reports) {
      // The same again, while the first waited: a worker has one report under way.
      if (report.number > (this.#numbers.get(report.epoch) ?? 0)) fresh.set(report.epoch, report);
    }
    if (fresh.size === 0) return;
    const outcome = await addTraffic(this.#sql, [...fresh.values()], this.#numbers, this.#clock.nowMs());
    if (outcome.kind === 'conflict') {
      await this.reread();
      throw new Error('another process writes down what the edge moves');
    }
    for (const { epoch, number, traffic } of fresh.values()) {
      this.#numbers.set(epoch, number);
      for (const { container, ...moved } of traffic) this.#pending.set(container, sumOf(this.of(container), moved, 1));
    }
  }
}

function sumOf(one: Traffic, other: Traffic, sign: 1 | -1): Traffic {
  return {
    requests: one.requests + sign * other.requests,
    ingressBytes: one.ingressBytes + sign * other.ingressBytes,
    egressBytes: one.egressBytes + sign * other.egressBytes,
    heldMs: one.heldMs + sign * other.heldMs,
    streamMs: one.streamMs + sign * other.streamMs,
  };
}
