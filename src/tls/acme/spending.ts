/** The ledger over the store: what several nodes ask of a CA is decided one after the other, and written down before it is asked. */
import type { AcmeStore, StoredSpent } from './acme-store.ts';
import { CERTIFICATE_LIMITS, RateLedger, failureRowOf, isLimitName, rowsOf } from './rate-ledger.ts';
import type { CaLimits, Intent, LedgerRow, Verdict } from './rate-ledger.ts';

export interface SpentOrder {
  readonly id: string;
  readonly intent: Intent & { readonly kind: 'order' };
}

/** Each time somebody else has spent something meanwhile; more in a row is a fault. */
const ATTEMPTS_MAX = 50;
/**
 * The limit of a row that takes back what the order of its id has spent on certificates. One more row, and not one less: other nodes have read what is to
 * be taken back, and read this in its turn.
 */
const GIVEN_BACK = 'given-back';

export class Spending {
  readonly #store: AcmeStore;
  readonly #limitsOf: (ca: string) => CaLimits;
  readonly #ledger = new RateLedger();
  /** What orders have spent on certificates, by their ids. */
  readonly #ofOrders = new Map<string, LedgerRow[]>();
  #seq = 0;
  #reading: Promise<void> = Promise.resolve();

  constructor(store: AcmeStore, limitsOf: (ca: string) => CaLimits) {
    this.#store = store;
    this.#limitsOf = limitsOf;
  }

  /** What is known here. */
  verdict(intent: Intent, nowMs: number): Verdict {
    return this.#ledger.verdict(intent, this.#limitsOf(intent.ca), nowMs);
  }

  /** Reads what others spent. One reading after the other: two at once would count the same rows twice. */
  async catchUp(): Promise<void> {
    const read = async (): Promise<void> => {
      for (const row of await this.#store.spentAfter(this.#seq)) this.#take(row);
    };
    this.#reading = this.#reading.then(read, read);
    await this.#reading;
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
  async failed({ id, intent }: SpentOrder, failedHost: string | undefined, nowMs: number): Promise<void> {
    const { ca, account } = intent;
    const limits = this.#limitsOf(ca);
    const back = certificateRows(intent, limits, { id, nowMs }).length === 0 ? [] : [givenBack(id, ca, nowMs)];
    const failures = failedHost === undefined ? [] : failureRowOf({ ca, account, host: failedHost }, limits, { id, nowMs });
    await this.#write([...back, ...failures]);
  }

  /** An order came to a certificate. CAs count that when they make it, which may be days after it was ordered: what was spent counts from now. */
  async issued({ id, intent }: SpentOrder, nowMs: number): Promise<void> {
    const rows = certificateRows(intent, this.#limitsOf(intent.ca), { id: `${id} ${String(nowMs)}`, nowMs });
    if (rows.length > 0) await this.#write([givenBack(id, intent.ca, nowMs), ...rows]);
  }

  /** Forgets what no limit counts. */
  async forget(cas: readonly string[], nowMs: number): Promise<void> {
    const limits = new Map(cas.map((ca) => [ca, this.#limitsOf(ca)]));
    const beforeMs = this.#ledger.forget(limits, nowMs);
    for (const [id, rows] of this.#ofOrders) if (rows.every(({ atMs }) => atMs < beforeMs)) this.#ofOrders.delete(id);
    await this.#store.forgetSpent(beforeMs);
  }

  #take(row: StoredSpent): void {
    this.#seq = Math.max(this.#seq, row.seq);
    const { limit, id } = row;
    if (limit === GIVEN_BACK) {
      this.#ledger.remove(this.#ofOrders.get(id) ?? []);
      this.#ofOrders.delete(id);
    }
    if (!isLimitName(limit)) return;
    const taken = { ...row, limit };
    this.#ledger.add([taken]);
    if (CERTIFICATE_LIMITS.includes(limit)) this.#ofOrders.set(id, [...(this.#ofOrders.get(id) ?? []), taken]);
  }

  /** What has happened is written down whatever the limits say. */
  async #write(rows: readonly Omit<StoredSpent, 'seq'>[]): Promise<void> {
    if (rows.length === 0) return;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      if (await this.#store.addSpent(rows, await this.#store.spentHead())) break;
    }
    await this.catchUp();
  }
}

function certificateRows(
  intent: Intent,
  limits: CaLimits,
  at: { readonly id: string; readonly nowMs: number },
): readonly LedgerRow[] {
  return rowsOf(intent, limits, at).filter(({ limit }) => CERTIFICATE_LIMITS.includes(limit));
}

function givenBack(id: string, ca: string, atMs: number): Omit<StoredSpent, 'seq'> {
  return { id, ca, limit: GIVEN_BACK, subject: '', atMs };
}
