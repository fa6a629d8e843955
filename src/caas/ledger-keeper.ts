/**
 * Keeps the ledger's books: rows are summed up soon after they were written, each day's chains are signed when the day is over, and rows that are both are
 * dropped when they are old enough. Answers what was used, from the sums and from the rows that are not in them yet.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { KeyedLock, startLoop } from '#lifecycle';
import type { Log } from '#log';
import { hourOf } from '#metering/hour-pieces.ts';
import { signHead } from '#metering/ledger-head.ts';
import type { LedgerKey } from '#metering/ledger-head.ts';
import type { PricedHour } from '#metering/usage-lines.ts';
import {
  dropRows,
  findChain,
  insertHead,
  lastHead,
  lastHeadBefore,
  readChainRows,
  tenantsToRoll,
  tenantsToSeal,
  tenantsWithRows,
} from '#state/ledger-heads.ts';
import type { ChainState } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import { bucketOf, dropMinutes, GRAIN_MS, readRowSums, readSums, rollUp } from '#state/usage-rollups.ts';
import type { HoursQuery } from '#state/usage-rollups.ts';
import { ClockTrust } from './clock-trust.ts';
import { eachContainer, hoursOfTenant } from './ledger-hours.ts';
import { SnapshotMeter } from './snapshots/snapshot-meter.ts';
import { coverOf } from './usage-cover.ts';
import { totalsOfSums } from './usage.ts';
import type { UsageGrouping, UsageTotal } from './usage.ts';

export interface KeeperOptions {
  readonly periodMs: number;
  /** How long rows are kept at least. */
  readonly keepRowsMs: number;
  /** How long use is known by the minute; older than that by the hour. */
  readonly keepMinutesMs: number;
  /** After a start nothing is signed or dropped for so long: a machine's clock may not be right yet. */
  readonly startWaitMs: number;
}

/** Two months' rows can be exported when the second month's bill is there, and its tenant took a week. */
export const KEEPER_OPTIONS: KeeperOptions = {
  periodMs: 15_000,
  keepRowsMs: 40 * GRAIN_MS.day,
  keepMinutesMs: 2 * GRAIN_MS.day,
  startWaitMs: 600_000,
};

/** Rows of one batch. They take some 20 ms, in which nothing else is done. */
const ROLL_ROWS_MAX = 1000;
const DROP_ROWS_MAX = 2000;
const DROP_SUBJECTS_MAX = 1000;
/** The last intervals of a day are written within it: every container's at least each ten seconds. */
const SEAL_AFTER_MS = 60_000;
/** Of rows without a head: so many at the front are looked at for one of a day that is over. */
const SEAL_LOOK_MAX = 50;
const RETENTION_PERIOD_MS = GRAIN_MS.hour;
const BOOKS = 'books';

export interface UsageRequest {
  readonly tenant: string | undefined;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly by: UsageGrouping;
}

interface KeeperDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly key: LedgerKey;
}

export class LedgerKeeper implements AsyncDisposable {
  readonly #deps: KeeperDeps;
  readonly #options: KeeperOptions;
  /** Sums and rows are read and written in turns: an answer is of one moment. */
  readonly #locks = new KeyedLock();
  readonly #snapshots: SnapshotMeter;
  readonly #trust: ClockTrust;
  #retainedAtMs: number | undefined;
  #loop: AsyncDisposable | undefined;

  constructor(deps: KeeperDeps, options: KeeperOptions = KEEPER_OPTIONS) {
    this.#deps = deps;
    this.#options = options;
    this.#snapshots = new SnapshotMeter({ ...deps, writer: new LedgerWriter(deps.sql) });
    this.#trust = new ClockTrust(deps, options.startWaitMs);
  }

  start(): this {
    this.#loop ??= startLoop(this.#deps, {
      name: 'ledger',
      periodMs: this.#options.periodMs,
      round: async (signal) => {
        await this.round(signal);
      },
    });
    return this;
  }

  /** Everything that is due. */
  async round(signal?: AbortSignal): Promise<void> {
    await this.#snapshots.round();
    await this.roll(signal);
    // What is signed or dropped stays so: not by a clock that says something else than a moment ago.
    if (!this.#trust.isTrusted()) return;
    await this.#seal(signal);
    const atMs = this.#deps.clock.monotonicMs();
    if (this.#retainedAtMs !== undefined && atMs - this.#retainedAtMs < RETENTION_PERIOD_MS) return;
    this.#retainedAtMs = atMs;
    await this.#retain(this.#deps.clock.nowMs(), signal);
  }

  /** Adds all rows to the sums. */
  async roll(signal?: AbortSignal): Promise<void> {
    for (const tenant of await tenantsToRoll(this.#deps.sql)) {
      for (let more = true; more;) {
        if (isOver(signal)) return;
        more = await this.#perhaps(tenant, 'summed up', async () => await this.#rollOf(tenant));
        await new Promise(setImmediate); // Requests are answered between batches.
      }
    }
  }

  /** What cannot be done with one tenant's chain keeps nobody else's from it. False: it could not. */
  async #perhaps(tenant: string, what: string, step: () => Promise<boolean>): Promise<boolean> {
    try {
      return await step();
    } catch (error) {
      this.#deps.log.error({ tenant, reason: reasonOf(error) }, `the ledger of a tenant could not be ${what}`);
      return false;
    }
  }

  async #rollOf(tenant: string): Promise<boolean> {
    return await this.#locks.run(BOOKS, async () => await this.#rollSome(tenant));
  }

  /** Whether there is more. */
  async #rollSome(tenant: string): Promise<boolean> {
    const { sql, log } = this.#deps;
    const chain = await findChain(sql, tenant);
    if (chain === undefined || chain.rolled >= chain.number) return false;
    const rows = await readChainRows(sql, tenant, chain.rolled, ROLL_ROWS_MAX);
    if (rows.length === 0) {
      log.error({ tenant, after: chain.rolled }, 'rows of the ledger are missing; see: ecluse ledger verify');
      return false;
    }
    return (await rollUp(sql, chain, rows)).kind === 'done' && rows.length === ROLL_ROWS_MAX;
  }

  /** Signs the chains of days that are over and have none yet. */
  async #seal(signal: AbortSignal | undefined): Promise<void> {
    const { sql, clock } = this.#deps;
    const nowMs = clock.nowMs();
    const todayMs = bucketOf(nowMs, 'day');
    if (nowMs < todayMs + SEAL_AFTER_MS) return;
    for (const tenant of await tenantsToSeal(sql, dayOf(todayMs - 1))) {
      if (isOver(signal)) return;
      await new Promise(setImmediate);
      await this.#perhaps(tenant, 'signed', async () => await this.#sealOf(tenant, todayMs));
    }
  }

  async #sealOf(tenant: string, todayMs: number): Promise<boolean> {
    const { sql, clock, key } = this.#deps;
    const [chain, last] = [await findChain(sql, tenant), await lastHead(sql, tenant)];
    // Rows are in the order in which they were written, which corrections may not be of.
    const first = await readChainRows(sql, tenant, last?.number ?? 0, SEAL_LOOK_MAX);
    if (chain === undefined || first.every(({ fromMs }) => fromMs >= todayMs)) return false;
    const { number, hash, totals, heads } = chain;
    const said = { tenant, day: dayOf(todayMs - 1), sequence: heads + 1, number, hash, totals, signedMs: clock.nowMs() };
    return (await insertHead(sql, signHead(said, key))).kind === 'done';
  }

  async #retain(nowMs: number, signal: AbortSignal | undefined): Promise<void> {
    const { sql } = this.#deps;
    for (const tenant of await tenantsWithRows(sql)) {
      await new Promise(setImmediate);
      await this.#perhaps(tenant, 'rid of old rows', async () => {
        const chain = await findChain(sql, tenant);
        if (chain !== undefined) await this.#dropOf(chain, nowMs - this.#options.keepRowsMs, signal);
        return chain !== undefined;
      });
    }
    const beforeMs = bucketOf(nowMs - this.#options.keepMinutesMs, 'minute');
    for (let subject: number | undefined = 0; subject !== undefined && !isOver(signal);) {
      subject = await dropMinutes(sql, beforeMs, subject, DROP_SUBJECTS_MAX);
      await new Promise(setImmediate);
    }
  }

  /** Drops rows of days that ended before `beforeMs`: summed up, and under a head. */
  async #dropOf(chain: ChainState, beforeMs: number, signal: AbortSignal | undefined): Promise<void> {
    const head = await lastHeadBefore(this.#deps.sql, chain.tenant, dayOf(bucketOf(beforeMs, 'day')));
    const last = Math.min(head?.number ?? 0, chain.rolled);
    for (let from = chain.dropped; from < last && !isOver(signal);) {
      const to = Math.min(last, from + DROP_ROWS_MAX);
      const outcome = await this.#locks.run(BOOKS, async () => await dropRows(this.#deps.sql, chain.tenant, { from, to }));
      if (outcome.kind === 'conflict') return;
      from = to;
      await new Promise(setImmediate);
    }
  }

  /** What was used, by the minute (older than two days by the hour) in which it began, up to the last row that was written. */
  async usage(request: UsageRequest): Promise<readonly UsageTotal[]> {
    return await this.#locks.run(BOOKS, async () => {
      const { sql, clock } = this.#deps;
      const { sinceMs, by, tenant = '' } = request;
      const nowMs = clock.nowMs();
      // No row begins later than now: what is under way is not cut.
      const untilMs = request.untilMs >= nowMs ? bucketOf(request.untilMs, 'day') + GRAIN_MS.day : request.untilMs;
      const minutesFromMs = hourOf(nowMs - this.#options.keepMinutesMs) + GRAIN_MS.hour;
      const cover = coverOf({ fromMs: sinceMs, untilMs }, minutesFromMs, by === 'hour' ? 'hour' : 'day');
      const sums = await Promise.all(cover.sums.map(async (part) => await readSums(sql, { ...part, tenant, by })));
      const rows = await Promise.all(cover.rows.map(async (span) => await readRowSums(sql, { ...span, tenant, by }, 'summed')));
      const tail = await readRowSums(sql, { fromMs: sinceMs, untilMs, tenant, by }, 'not-summed');
      const totals = totalsOfSums([...sums, ...rows, tail].flat());
      return by === 'hour' ? totals.map((total) => ({ ...total, tenant })) : totals;
    });
  }

  /** Gives all hours of one of a tenant's containers at a time. Nothing is summed up meanwhile, but the node goes on; whoever takes them asks nothing here. */
  async hours(query: HoursQuery, take: (hours: readonly PricedHour[]) => void): Promise<void> {
    await this.#locks.run(BOOKS, async () => {
      await eachContainer(this.#deps.sql, query, take);
    });
  }

  /** Hours of all containers of a tenant together. */
  async tenantHours(query: HoursQuery): Promise<readonly PricedHour[]> {
    return await this.#locks.run(BOOKS, async () => await hoursOfTenant(this.#deps.sql, query));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
    this.#loop = undefined;
  }
}

function isOver(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** `2026-11-30`, by UTC. */
export function dayOf(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}
