/** The ledger over the store: what several nodes ask of a CA is decided one after the other, and written down before it is asked. */
import type { AcmeStore } from './acme-store.ts';
import { CERTIFICATE_LIMITS, RateLedger, failureRowOf, isLimitName, rowsOf } from './rate-ledger.ts';
import type { CaLimits, Intent, LedgerRow, Verdict } from './rate-ledger.ts';

export interface SpentOrder {
  readonly id: string;
  readonly intent: Intent & { readonly kind: 'order' };
  readonly spentMs: number;
}

/** Each time somebody else has spent something meanwhile; more in a row is a fault. */
const ATTEMPTS_MAX = 50;

export class Spending {
  readonly #store: AcmeStore;
  readonly #limitsOf: (ca: string) => CaLimits;
  readonly #ledger = new RateLedger();
  #seq = 0;

  constructor(store: AcmeStore, limitsOf: (ca: string) => CaLimits) {
    this.#store = store;
    this.#limitsOf = limitsOf;
  }

  /** What is known here. */
  verdict(intent: Intent, nowMs: number): Verdict {
    return this.#ledger.verdict(intent, this.#limitsOf(intent.ca), nowMs);
  }

  /** Reads what others spent. */
  async catchUp(): Promise<void> {
    for (const row of await this.#store.spentAfter(this.#seq)) {
      this.#seq = Math.max(this.#seq, row.seq);
      const { limit } = row;
      if (isLimitName(limit)) this.#ledger.add([{ ...row, limit }]);
    }
  }

  /** Spends what an intent costs, where every node together has room for it. */
  async spend(intent: Intent, id: string, nowMs: number): Promise<Verdict> {
    const limits = this.#limitsOf(intent.ca);
    const rows = rowsOf(intent, limits, { id, nowMs });
    if (rows.length === 0) return this.verdict(intent, nowMs);
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const head = await this.#store.spentHead();
      await this.catchUp();
      const verdict = this.verdict(intent, nowMs);
      if (verdict.kind === 'wait') return verdict;
      // Read back, and not only added: so that each row is counted once, whoever wrote it.
      if (await this.#store.addSpent(rows, head)) {
        await this.catchUp();
        return verdict;
      }
    }
    throw new Error('what is asked of CAs could not be written down: others write all the time');
  }

  /** An order came to no certificate: what counts certificates is given back, and the host that failed is counted. */
  async failed({ id, intent, spentMs }: SpentOrder, failedHost: string | undefined, nowMs: number): Promise<void> {
    const { ca, account } = intent;
    const limits = this.#limitsOf(ca);
    const back = rowsOf(intent, limits, { id, nowMs: spentMs }).filter(({ limit }) => CERTIFICATE_LIMITS.includes(limit));
    if (back.length > 0) {
      await this.#store.removeSpent(id, CERTIFICATE_LIMITS);
      this.#ledger.remove(back);
    }
    if (failedHost !== undefined) await this.#write(failureRowOf({ ca, account, host: failedHost }, limits, { id, nowMs }));
  }

  /** Forgets what no limit counts. */
  async forget(cas: readonly string[], nowMs: number): Promise<void> {
    const limits = new Map(cas.map((ca) => [ca, this.#limitsOf(ca)]));
    await this.#store.forgetSpent(this.#ledger.forget(limits, nowMs));
  }

  /** What has happened is written down whatever the limits say. */
  async #write(rows: readonly LedgerRow[]): Promise<void> {
    if (rows.length === 0) return;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      if (await this.#store.addSpent(rows, await this.#store.spentHead())) break;
    }
    await this.catchUp();
  }
}
