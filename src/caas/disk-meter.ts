/**
 * What containers and volumes have on disk, into the ledger: the directories that engines keep for them are walked, one at a time and behind everything else.
 * What a walk found counts until the next one, about ten minutes later. Images are no tenant's: layers are shared.
 *
 * The cursor is in the store: what was on disk while the node was not there counts, once. Rows are written where the size changed and at each full hour.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { DiskWalk, WalkOptions } from '#isolation/disk-walk.ts';
import { HOUR_MS, hourOf } from '#metering/hour-pieces.ts';
import { beginDiskUse, listDiskUse, listGoneDiskUse, listNewDiskUse, moveDiskUseWrite } from '#state/disk-use.ts';
import type { DiskMove, DiskUse } from '#state/disk-use.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';

/** Where something is on disk. Undefined: nowhere. `unknown`: it cannot be asked and nothing changes it, or it is gone. */
export type DiskPlace = DirectoryPlace | 'unknown' | undefined;
interface DirectoryPlace {
  readonly host: string;
  readonly directory: string;
}

export interface DiskMeterDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly places: {
    /** `anew`: what it said before is not there. Throws where that cannot be known now. */
    readonly find: (id: string, how: 'as-known' | 'anew') => Promise<DiskPlace>;
  };
  readonly walk: (directory: string, options: WalkOptions) => Promise<DiskWalk | undefined>;
}

/** How often each is walked; by chance half as long, or half as long again, so that no program can be in step with it. */
const LOOK_PERIOD_MS = 600_000;
/** What has just been made is soon looked at for the first time. */
const FIRST_LOOK_MS = 20_000;
const JITTER = 1;
/** Longer than a walk of a million files takes. What was found so far is then taken for the least that there is, and the next walk may take twice as long. */
const WALK_MS = 60_000;
const WALK_MS_MAX = 240_000;
/** How long an engine is waited for: one that holds a start does not answer about it. */
const ASK_MS_MAX = 5_000;
/** A walk is followed by as long without one, so that others of the machine are not held up by many small ones. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 1_000;
/** A tenant's walks take at most a tenth of the time: who has millions of files waits for himself. */
const TENANT_PAUSE = 9;
const IDLE_MS = 1_000;
/** How often it is looked what was made and removed. */
const LIST_PERIOD_MS = 10_000;
/** How many rows are written together: a few milliseconds in which nothing else is done. */
const COUNTS_AT_ONCE = 100;
/** How far the clock may go from the monotonic one before it was set: what is counted is then the time that really went by. */
const CLOCK_SLACK_MS = 2_000;

interface Thing {
  use: DiskUse;
  /** By the monotonic clock, as all. */
  nextLookMs: number;
  /** The instant of `use.meteredMs`; undefined: only the wall clock knows. */
  meteredAtMs: number | undefined;
  walkMs: number;
  /** It was said that it cannot be walked. */
  isTold: boolean;
}

const FRESH = { walkMs: WALK_MS, isTold: false } as const;

export class DiskMeter implements AsyncDisposable {
  readonly #deps: DiskMeterDeps;
  readonly #ledger: LedgerWriter;
  #things: Map<string, Thing> | undefined;
  #listedMs = Number.NEGATIVE_INFINITY;
  #listedHourMs = Number.NaN;
  #pauseMs = IDLE_MS;
  /** When something of a tenant was walked last, and when the next may be: whose was walked the longest ago is next. */
  readonly #walked = new Map<string, { readonly endedMs: number; readonly againMs: number }>();
  #loop: AsyncDisposable | undefined;

  constructor(deps: DiskMeterDeps) {
    this.#deps = deps;
    this.#ledger = new LedgerWriter(deps.sql);
  }

  start(): this {
    this.#loop ??= startLoop(this.#deps, {
      name: 'disk',
      periodMs: () => this.#pauseMs,
      round: async (signal) => {
        await this.round(signal);
      },
    });
    return this;
  }

  /** What is due, and one walk at most. */
  async round(signal: AbortSignal): Promise<void> {
    this.#pauseMs = IDLE_MS;
    const things = (this.#things ??= await this.#takeUp());
    const { clock } = this.#deps;
    const [nowMs, hourMs] = [clock.monotonicMs(), hourOf(clock.nowMs())];
    // What is gone is not to be counted up to a full hour that has just begun.
    if (nowMs - this.#listedMs >= LIST_PERIOD_MS || hourMs !== this.#listedHourMs) {
      await this.#list(things);
      [this.#listedMs, this.#listedHourMs] = [nowMs, hourMs];
    }
    const failed = await this.#countHour(things, signal);
    const thing = this.#next(things);
    if (thing !== undefined) await this.#look(thing, signal);
    if (failed !== undefined) throw failed.reason; // What one of them did keeps none of the others from being looked at.
  }

  async #takeUp(): Promise<Map<string, Thing>> {
    const nowMs = this.#deps.clock.monotonicMs();
    const uses = await listDiskUse(this.#deps.sql);
    // Not all at once: what is known of them still counts.
    return new Map(
      uses.map((use) => {
        // Of what has nothing nothing may be known yet.
        const nextLookMs = nowMs + (use.bytes === 0 ? FIRST_LOOK_MS : Math.random() * LOOK_PERIOD_MS);
        return [use.id, { ...FRESH, use, nextLookMs, meteredAtMs: undefined }];
      }),
    );
  }

  /** Begins with what is new, and ends what is gone. */
  async #list(things: Map<string, Thing>): Promise<void> {
    const { sql, clock } = this.#deps;
    const fresh = (await listNewDiskUse(sql)).map((one) => ({ ...one, bytes: 0, meteredMs: clock.nowMs() }));
    this.#things = undefined; // What is written and not known here is read anew.
    if (fresh.length > 0 && (await beginDiskUse(sql, fresh)).kind === 'conflict') return;
    this.#things = things;
    const nowMs = clock.monotonicMs();
    for (const use of fresh) things.set(use.id, { ...FRESH, use, nextLookMs: nowMs + FIRST_LOOK_MS, meteredAtMs: nowMs });
    for (const [tenant, { endedMs, againMs }] of this.#walked)
      if (Math.max(againMs, endedMs + 2 * LOOK_PERIOD_MS) < nowMs) this.#walked.delete(tenant);
    for (const { id, goneMs } of await listGoneDiskUse(sql)) {
      const thing = things.get(id);
      if (thing === undefined) continue;
      const { bytes, host } = thing.use;
      if (await this.#count(thing, goneMs ?? clock.nowMs(), { bytes, host, isGone: true })) things.delete(id);
    }
  }

  /** At a full hour, whatever was not counted in it: what is invoiced then is whole. Also where the clock was set back and is not there yet. */
  async #countHour(things: ReadonlyMap<string, Thing>, signal: AbortSignal): Promise<PromiseRejectedResult | undefined> {
    const { clock } = this.#deps;
    const [hourMs, longAgoMs] = [hourOf(clock.nowMs()), clock.monotonicMs() - HOUR_MS - CLOCK_SLACK_MS];
    const isDue = ({ use, meteredAtMs }: Thing): boolean =>
      use.meteredMs < hourMs || (meteredAtMs !== undefined && meteredAtMs < longAgoMs);
    const due = [...things.values()].filter(isDue);
    let failed: PromiseRejectedResult | undefined;
    // Those of one turn are one write to the disk.
    for (let from = 0; from < due.length && !signal.aborted; from += COUNTS_AT_ONCE) {
      const some = due.slice(from, from + COUNTS_AT_ONCE);
      const counted = await Promise.allSettled(
        some.map(async (thing) => {
          const { bytes, host } = thing.use;
          await this.#count(thing, hourMs, { bytes, host, isGone: false });
        }),
      );
      failed ??= counted.find((one) => one.status === 'rejected');
    }
    return failed;
  }

  /** Of those that are due, one of the tenant of which nothing was walked for the longest: who has many waits for himself. */
  #next(things: ReadonlyMap<string, Thing>): Thing | undefined {
    const nowMs = this.#deps.clock.monotonicMs();
    let found: Thing | undefined;
    const endedMs = ({ use }: Thing): number => this.#walked.get(use.tenant)?.endedMs ?? Number.NEGATIVE_INFINITY;
    for (const thing of things.values()) {
      if (thing.nextLookMs > nowMs || (this.#walked.get(thing.use.tenant)?.againMs ?? nowMs) > nowMs) continue;
      const isBefore =
        found === undefined ||
        endedMs(thing) < endedMs(found) ||
        (endedMs(thing) === endedMs(found) && thing.nextLookMs < found.nextLookMs);
      if (isBefore) found = thing;
    }
    return found;
  }

  async #look(thing: Thing, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    thing.nextLookMs = clock.monotonicMs() + LOOK_PERIOD_MS * (1 - JITTER / 2 + JITTER * Math.random());
    this.#walked.set(thing.use.tenant, { endedMs: clock.monotonicMs(), againMs: 0 });
    const found = await this.#find(thing, signal);
    if (found === undefined || signal.aborted) return;
    const { bytes, host } = thing.use;
    if (found.bytes === bytes && found.host === host) return;
    await this.#count(thing, clock.nowMs(), { ...found, isGone: false });
  }

  /** Undefined: it is not known, and what was known before counts on. */
  async #find(thing: Thing, signal: AbortSignal): Promise<Pick<DiskUse, 'bytes' | 'host'> | undefined> {
    const { use } = thing;
    try {
      for (const how of ['as-known', 'anew'] as const) {
        const place = await this.#placeOf(use.id, how, signal);
        if (place === 'unknown') return undefined;
        if (place === undefined) return { bytes: 0, host: use.host };
        const walk = await this.#walk(thing, place.directory, signal);
        if (walk !== undefined && !(await this.#isStillAt(thing, place, signal))) return undefined;
        if (walk !== undefined) return { bytes: walk.isWhole ? walk.bytes : Math.max(walk.bytes, use.bytes), host: place.host };
      }
      throw new Error('its directory cannot be read');
    } catch (error) {
      if (!signal.aborted) this.#tell(thing, reasonOf(error));
      return undefined;
    }
  }

  /** What was moved or removed during a walk was not seen whole: it is looked at again soon, if it is there. */
  async #isStillAt(thing: Thing, before: DirectoryPlace, signal: AbortSignal): Promise<boolean> {
    const now = await this.#placeOf(thing.use.id, 'as-known', signal);
    const isStill = typeof now === 'object' && now.host === before.host && now.directory === before.directory;
    if (!isStill) thing.nextLookMs = this.#deps.clock.monotonicMs() + FIRST_LOOK_MS;
    return isStill;
  }

  /** The engine goes on answering for itself where it is not waited for. */
  async #placeOf(id: string, how: 'as-known' | 'anew', signal: AbortSignal): Promise<DiskPlace> {
    const stop = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS_MAX)]);
    stop.throwIfAborted();
    const { promise: stopped, reject } = Promise.withResolvers<never>();
    stop.addEventListener('abort', () => {
      reject(new Error(`its engine did not answer in ${String(ASK_MS_MAX / 1000)} s`));
    });
    return await Promise.race([this.#deps.places.find(id, how), stopped]);
  }

  async #walk(thing: Thing, directory: string, signal: AbortSignal): Promise<DiskWalk | undefined> {
    const { clock, walk } = this.#deps;
    const beganMs = clock.monotonicMs();
    const walked = await walk(directory, { timeoutMs: thing.walkMs, signal });
    const endedMs = clock.monotonicMs();
    const tookMs = endedMs - beganMs;
    this.#pauseMs = Math.min(PAUSE_MS_MAX, Math.max(PAUSE_MS_MIN, tookMs));
    this.#walked.set(thing.use.tenant, { endedMs, againMs: endedMs + TENANT_PAUSE * tookMs });
    if (walked?.isWhole === true) thing.isTold = false;
    if (walked?.isWhole !== false) return walked;
    if (!signal.aborted) this.#tell(thing, `it has more than could be looked at in ${String(thing.walkMs / 1000)} s`);
    thing.walkMs = Math.min(WALK_MS_MAX, thing.walkMs * 2);
    return walked;
  }

  #tell(thing: Thing, reason: string): void {
    const { id, tenant, host, bytes } = thing.use;
    if (!thing.isTold)
      this.#deps.log.warn({ id, tenant, host, bytes, reason }, 'what is on disk is not known; what was known counts on');
    thing.isTold = true;
  }

  /** Counts what there was up to `untilMs`. False: somebody else did. */
  async #count(thing: Thing, untilMs: number, next: Omit<DiskMove, 'toMs'>): Promise<boolean> {
    const { sql, clock } = this.#deps;
    const { use, meteredAtMs } = thing;
    const [nowMs, atMs] = [clock.nowMs(), clock.monotonicMs()];
    const wentByMs = meteredAtMs === undefined ? nowMs - use.meteredMs : Math.round(atMs - meteredAtMs);
    const isSet = Math.abs(nowMs - use.meteredMs - wentByMs) > CLOCK_SLACK_MS;
    const toMs = Math.max(use.meteredMs, isSet ? nowMs : untilMs);
    const byteMs = BigInt(use.bytes) * BigInt(Math.max(0, isSet ? wentByMs : toMs - use.meteredMs));
    const cursor = moveDiskUseWrite(use, { ...next, toMs });
    const { id: container, tenant, host, meteredMs: fromMs } = use;
    const stored = { kind: 'disk', tenant, container, host, byteMs, fromMs, toMs } as const;
    const outcome = byteMs === 0n ? (await sql.write([cursor])).kind : await this.#ledger.store(stored, cursor);
    if (outcome === 'conflict') {
      this.#deps.log.error({ id: use.id }, 'what is on disk was counted by somebody else');
      this.#things = undefined; // The store is right.
      return false;
    }
    thing.use = { ...use, bytes: next.bytes, host: next.host, meteredMs: toMs };
    thing.meteredAtMs = atMs - Math.max(0, nowMs - toMs);
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
    this.#loop = undefined;
  }
}
