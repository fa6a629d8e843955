/**
 * Caps on what a tenant's month of use may cost: at four fifths of it there is a warning in the change log, and when it is reached the tenant's containers
 * are put to sleep, with their memory, instead of being killed. Requests do not wake them until the cap is higher or the month is over.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import { invoiceOf, monthSpan, sumOf } from '#metering/invoice.ts';
import { microsText } from '#metering/money.ts';
import { bookAt, microsOf, planOf } from '#metering/price-book.ts';
import type { BookVersion } from '#metering/price-book.ts';
import { changeWrite } from '#state/change-log.ts';
import { readSetting, settingWrites } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { dayOf } from './ledger-keeper.ts';
import type { LedgerKeeper } from './ledger-keeper.ts';

export interface SpendWatchDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly keeper: Pick<LedgerKeeper, 'tenantHours'>;
  readonly books: () => Promise<readonly BookVersion[]>;
  /** Containers that are there, and whether they run. */
  readonly containers: () => Promise<readonly SpendingContainer[]>;
  /** Puts one to sleep. What cannot sleep is thrown, and goes on. */
  readonly suspend: (id: string) => Promise<unknown>;
}

export interface SpendingContainer {
  readonly id: string;
  readonly tenant: string;
  readonly isAwake: boolean;
}

/** A month's use is summed for each tenant with a cap: so much can be spent beyond it. */
const PERIOD_MS = 300_000;
/** How late it may be for a new price book. */
const TURN_MS = 1_000;
/** After a look that failed. */
const RETRY_MS = 10_000;
const WARN_PERCENT = 80n;

export type SpendState = 'within' | 'warned' | 'reached';

/** Pure. */
export function spendState(spentMicros: bigint, capMicros: bigint): SpendState {
  if (spentMicros >= capMicros) return 'reached';
  return spentMicros * 100n >= capMicros * WARN_PERCENT ? 'warned' : 'within';
}

export class SpendWatch {
  readonly #deps: SpendWatchDeps;
  /** Containers of tenants whose cap is reached. */
  #held: ReadonlySet<string> = new Set();
  /** When it is looked next, by the monotonic clock. */
  #dueMs = Number.NEGATIVE_INFINITY;

  constructor(deps: SpendWatchDeps) {
    this.#deps = deps;
  }

  start(): AsyncDisposable {
    const { clock } = this.#deps;
    const round = async (): Promise<void> => {
      if (clock.monotonicMs() < this.#dueMs) return;
      this.#dueMs = clock.monotonicMs() + PERIOD_MS;
      try {
        await this.round();
      } catch (error) {
        this.#dueMs = clock.monotonicMs() + RETRY_MS;
        throw error;
      }
    };
    return startLoop(this.#deps, { name: 'spend', periodMs: TURN_MS, round });
  }

  /** There are other prices and caps: they are looked at soon. */
  booksChanged(): void {
    this.#dueMs = Number.NEGATIVE_INFINITY;
  }

  /** Whether requests may wake a container. */
  mayWake(id: string): boolean {
    return !this.#held.has(id);
  }

  async round(): Promise<void> {
    const nowMs = this.#deps.clock.nowMs();
    const books = await this.#deps.books();
    const book = bookAt(books, nowMs)?.book;
    // With the hour in which other caps begin.
    const changes = books.map(({ fromMs }) => fromMs).filter((fromMs) => fromMs > nowMs);
    this.#dueMs = Math.min(this.#dueMs, this.#deps.clock.monotonicMs() + Math.min(...changes) - nowMs);
    const held = new Set<string>();
    const containers = await this.#deps.containers();
    for (const tenant of new Set(containers.map((one) => one.tenant))) {
      const cap = book === undefined ? undefined : planOf(book, tenant)?.cap;
      if (cap === undefined) continue;
      const state = await this.#look(tenant, { books, nowMs, capMicros: microsOf(cap) });
      if (state === 'reached') for (const { id } of containers.filter((one) => one.tenant === tenant)) held.add(id);
    }
    this.#held = held; // Before any of them sleeps: none is woken meanwhile.
    for (const { id, isAwake } of containers) if (isAwake && held.has(id)) await this.#suspend(id);
  }

  /**
   * By what all of its containers used together: a month of them is too much to be read each five minutes. An invoice rounds the lines of each container, so
   * its use can cost more or less than this, by half a millionth a line and one for each kind with free units; this is the one nearer to what was used.
   */
  async #look(
    tenant: string,
    { books, nowMs, capMicros }: { readonly books: readonly BookVersion[]; readonly nowMs: number; readonly capMicros: bigint },
  ): Promise<SpendState> {
    const month = dayOf(nowMs).slice(0, 7);
    const { fromMs, toMs } = monthSpan(month) ?? { fromMs: nowMs, toMs: nowMs };
    await new Promise(setImmediate); // Between tenants requests are answered.
    const hours = await this.#deps.keeper.tenantHours({ tenant, fromMs, untilMs: toMs });
    const invoice = invoiceOf({ tenant, fromMs, toMs, month, books, hours });
    const ofUse = invoice?.lines.filter(({ kind }) => kind === 'usage' || kind === 'allowance') ?? [];
    const spentMicros = sumOf(ofUse);
    const state = spendState(spentMicros, capMicros);
    if (state !== 'within') await this.#tell(tenant, `${month} ${state}`, { spentMicros, capMicros, nowMs, state });
    return state;
  }

  /** Once a month for each. */
  async #tell(
    tenant: string,
    told: string,
    what: { readonly spentMicros: bigint; readonly capMicros: bigint; readonly nowMs: number; readonly state: SpendState },
  ): Promise<void> {
    const { sql, log } = this.#deps;
    const key = `spend.${tenant}`;
    const before = await readSetting(sql, key);
    if (before === told || before === told.replace('warned', 'reached')) return;
    const data = { spent: microsText(what.spentMicros), cap: microsText(what.capMicros) };
    await sql.write([...settingWrites(key, told), changeWrite(what.nowMs, `spend.${what.state}`, tenant, data)]);
    log.warn(
      { tenant, ...data },
      what.state === 'reached' ? 'a tenant has spent what its plan allows' : 'a tenant has spent most of what its plan allows',
    );
  }

  async #suspend(id: string): Promise<void> {
    try {
      await this.#deps.suspend(id);
    } catch (error) {
      this.#deps.log.warn(
        { container: id, reason: reasonOf(error) },
        'a container whose tenant has spent its cap cannot sleep, and goes on',
      );
    }
  }
}
