/**
 * The meter: what containers used, from their cgroups into the ledger.
 *
 * CPU is a counter of the parent cgroup, so nothing is lost between samples or with a container that lives 5 ms. Memory is an integral over samples
 * (what lies between two is taken for a straight line; what lies before an end, for level), at times that `sampling.ts` chooses, over the time that really
 * went by: a clock that is set costs nobody an hour. Traffic comes from the edge (`edge-traffic.ts`). An incarnation's cursor in the store says up to where it
 * is metered: after a crash the CPU counter goes on from there, once, and the memory of the gap counts at what was known before it or found after it, if less.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { KeyedLock, startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Cgroups } from '#isolation/cgroup.ts';
import type { CgroupReader, CgroupUsage } from '#isolation/cgroup-reader.ts';
import { changeWrite } from '#state/change-log.ts';
import { takePendingWrites } from '#state/edge-traffic.ts';
import type { ContainerTraffic, KeptReport, Traffic } from '#state/edge-traffic.ts';
import {
  closeIncarnationWrite,
  findIncarnation,
  forgiveCpu,
  lastIncarnation,
  listOpenIncarnations,
  openIncarnationWrite,
} from '#state/ledger.ts';
import type { Incarnation, UsageInterval } from '#state/ledger.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { MeterPoint } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import { EdgeTraffic } from './edge-traffic.ts';
import type { IncarnationBase } from './incarnation-base.ts';
import { RoundWrites } from './meter-rounds.ts';
import { QUICK_MS, firstSampling, nextSampling } from './sampling.ts';
import type { Sampling } from './sampling.ts';

export interface MeterOptions {
  /** How often it is looked whether something is to be sampled: while something is sampled often, and else. */
  readonly periodMs: number;
  readonly quietPeriodMs: number;
  /** How often an interval is written down. A crash loses no CPU time and at most this much of the memory integral's precision. */
  readonly flushPeriodMs: number;
}

export const METER_OPTIONS: MeterOptions = { periodMs: QUICK_MS, quietPeriodMs: 250, flushPeriodMs: 10_000 };

interface Running {
  at: Incarnation;
  readonly reader: CgroupReader;
  /** The opening of the reader's files at which it was the incarnation's cgroup. */
  identifiedAt: number;
  sampling: Sampling;
  /** It was sampled since it was taken up. */
  isWatched: boolean;
  /** Its counters could not be read the last time. */
  isUnread: boolean;
  /** By the wall clock, and never less than before. */
  sampledMs: number;
  /** When it was sampled, read whole and written down last, by the monotonic clock. */
  sampledAtMs: number;
  readAtMs: number;
  flushedAtMs: number;
  /** Up to then nothing was used since it was written down last. */
  unusedToMs: number;
  memoryBytes: number;
  memoryByteMs: bigint;
  cpuNs: number;
}

interface Flush {
  /** As it was read earlier. Absent: read now. */
  readonly usage?: CgroupUsage;
  readonly when: 'goes-on' | 'ends';
  /** Of a round: called when everything was read, and waited for. */
  readonly beforeWrite?: () => Promise<void>;
}

function endingWith(usage: CgroupUsage | undefined): Flush {
  return usage === undefined ? { when: 'ends' } : { when: 'ends', usage };
}

/** An interval that is to be written. */
interface Due {
  readonly interval: UsageInterval;
  readonly now: MeterPoint;
  /** What it has of the container's traffic. */
  readonly traffic: Traffic;
}

/** Workers that end tell the rest at once. What comes later than this is none of an interval. */
const LATE_MS = 60_000;
const LATE_PERIOD_MS = 15_000;
/** How old what is read may be of what changes slowly: what of the memory is not in use, which costs the kernel most to say, and, where memory changes, CPU. */
const READ_PERIOD_MS = 1_000;
const READ_QUIET_PERIOD_MS = 5_000;
const FLUSH_ROUND_MS = 1_000;
/** One for a new cgroup, and the rest for others that write: who loses as often as this is not one that should end an incarnation. */
const FLUSH_TRIES = 5;
const LATE_REASON = 'the edge told of it after the container had stopped';

/** What a container uses at this moment, for `top`. */
export interface Reading {
  readonly container: string;
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly sampledMs: number;
}

export class Meter implements AsyncDisposable {
  readonly #deps: { readonly log: Log; readonly clock: Clock; readonly sql: Sql; readonly cgroups: Cgroups };
  readonly #options: MeterOptions;
  readonly #running = new Map<string, Running>();
  readonly #locks = new KeyedLock();
  readonly #ledger: LedgerWriter;
  readonly #traffic: EdgeTraffic;
  #lateMs = 0;
  #flushedMs = Number.NEGATIVE_INFINITY;
  /** Nothing is sampled often. */
  #isQuiet = true;
  #loop: AsyncDisposable | undefined;

  private constructor(
    deps: { readonly log: Log; readonly clock: Clock; readonly sql: Sql; readonly cgroups: Cgroups },
    options: MeterOptions,
    traffic: EdgeTraffic,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#traffic = traffic;
    this.#ledger = new LedgerWriter(deps.sql);
  }

  /** Takes up every incarnation that is still open, and starts sampling. */
  static async open(
    deps: { readonly log: Log; readonly clock: Clock; readonly sql: Sql; readonly cgroups: Cgroups },
    options: MeterOptions = METER_OPTIONS,
  ): Promise<Meter> {
    const meter = new Meter(deps, options, await EdgeTraffic.open(deps.sql, deps.clock));
    for (const at of await listOpenIncarnations(deps.sql)) meter.#take(at);
    meter.#loop = startLoop(deps, {
      name: 'meter',
      periodMs: () => (meter.#isQuiet ? options.quietPeriodMs : options.periodMs),
      round: async () => {
        await meter.#round();
      },
    });
    return meter;
  }

  #take(at: Incarnation): void {
    const { clock } = this.#deps;
    const nowMs = clock.monotonicMs();
    // Only the wall clock knows how long nobody metered it.
    const sampledAtMs = nowMs - Math.max(0, clock.nowMs() - at.meteredToMs);
    this.#forget(at.container);
    this.#running.set(at.container, {
      at,
      reader: this.#deps.cgroups.readerOf(at.cgroup),
      identifiedAt: 0,
      isWatched: false,
      isUnread: false,
      sampling: firstSampling(nowMs),
      readAtMs: sampledAtMs,
      sampledMs: at.meteredToMs,
      sampledAtMs,
      flushedAtMs: sampledAtMs,
      unusedToMs: at.meteredToMs,
      memoryBytes: at.memoryBytes,
      memoryByteMs: 0n,
      cpuNs: at.cpuNs,
    });
  }

  #forget(container: string): void {
    this.#running.get(container)?.reader[Symbol.dispose]();
    this.#running.delete(container);
  }

  /** A container has started, whenever it was made: for a while it is sampled often. */
  started(container: string): void {
    const running = this.#running.get(container);
    if (running !== undefined) running.sampling = firstSampling(this.#deps.clock.monotonicMs());
  }

  /** The counters at this moment, as the start of an incarnation: what happened in the cgroup before is not billed. */
  async startingPoint(base: IncarnationBase): Promise<Incarnation> {
    const usage = this.#deps.cgroups.usageOf(base.cgroup);
    const nowMs = this.#deps.clock.nowMs();
    const cgroupIdentity = (await this.#deps.cgroups.identityOf(base.cgroup)) ?? '';
    const counters = { cpuNs: usage?.cpuNs ?? 0, memoryBytes: usage?.memoryBytes ?? 0 };
    return { ...base, ...counters, cgroupIdentity, openedMs: nowMs, closedMs: undefined, seq: 0, meteredToMs: nowMs };
  }

  /** Opens an incarnation and meters it from now on. */
  async openIncarnation(at: Incarnation): Promise<void> {
    await this.#deps.sql.write([openIncarnationWrite(at)]);
    this.#take(at);
  }

  /** Meters an incarnation that a migration opened in its own batch. */
  adopt(at: Incarnation): void {
    this.#take(at);
  }

  /** Writes the last interval and closes the incarnation. `usage`: counters read earlier (at a pause); absent: read now. */
  async close(container: string, usage?: CgroupUsage): Promise<void> {
    await this.#locks.run(container, async () => {
      const running = await this.#flushCurrent(container, endingWith(usage));
      if (running === undefined) return;
      await this.#deps.sql.write([closeIncarnationWrite(container, running.at.incarnation, this.#deps.clock.nowMs())]);
      this.#forget(container);
    });
  }

  /** Writes an interval up to now, with counters read earlier if given, and stops metering without closing: a migration closes in its batch. */
  async suspend(container: string, usage: CgroupUsage | undefined): Promise<void> {
    await this.#locks.run(container, async () => {
      await this.#flushCurrent(container, endingWith(usage));
      this.#forget(container);
    });
  }

  /** Takes up a suspended incarnation again; the CPU that the platform itself used in the cgroup meanwhile is not billed. */
  async resume(container: string, incarnation: number): Promise<void> {
    if (this.#running.has(container)) return; // It could not be suspended.
    const asked = await findIncarnation(this.#deps.sql, container, incarnation);
    // It may have found a new cgroup, and so have another incarnation, while it was being suspended.
    const at = asked?.closedMs === undefined ? asked : await lastIncarnation(this.#deps.sql, container);
    if (at === undefined || at.closedMs !== undefined) return;
    const usage = this.#deps.cgroups.usageOf(at.cgroup);
    // First of all it is metered: a store that cannot be written to must not keep it from that.
    this.#take({ ...at, cpuNs: usage?.cpuNs ?? at.cpuNs });
    if (usage !== undefined && usage.cpuNs > at.cpuNs) await forgiveCpu(this.#deps.sql, at, usage.cpuNs);
  }

  /** Writes an interval up to now. `ends`: what ran in it has ended. */
  async flush(container: string, when: 'goes-on' | 'ends' = 'goes-on'): Promise<void> {
    await this.#locks.run(container, async () => {
      await this.#flushCurrent(container, { when });
    });
  }

  /**
   * Flushes what is metered now: where that found a new cgroup or that somebody else had written, also what it is metered as since. It is not given up with
   * an interval unwritten: throws where somebody else writes all the time.
   */
  async #flushCurrent(container: string, how: Flush): Promise<Running | undefined> {
    let current = this.#running.get(container);
    let next = how;
    for (let tries = 0; current !== undefined && tries < FLUSH_TRIES; tries += 1) {
      await this.#flush(current, next);
      const since = this.#running.get(container);
      if (since === current || since === undefined) return since;
      // What was read earlier is of that incarnation only.
      if (since.at.incarnation !== current.at.incarnation) next = { when: how.when };
      current = since;
    }
    if (current !== undefined)
      throw new Error(`somebody else writes the ledger of ${container}: its last interval is not written yet`);
    return undefined;
  }

  /**
   * Counts a worker's report towards the next intervals of its containers: once, whoever says it again. Resolves when it is written down. Endpoints that
   * are no containers are left out.
   */
  async keepTraffic({ epoch, number, traffic }: KeptReport): Promise<void> {
    const ours: ContainerTraffic[] = [];
    for (const one of traffic) {
      const isOurs = this.#running.has(one.container) || (await lastIncarnation(this.#deps.sql, one.container)) !== undefined;
      if (isOurs) ours.push(one);
    }
    // Numbers may be left out: it is again nothing, if it is said again.
    if (ours.length > 0) await this.#traffic.keep({ epoch, number, traffic: ours });
  }

  /** Traffic of containers that have stopped since has no interval to be in: it is a correction of the last one. */
  async #correctLate(): Promise<void> {
    const nowMs = this.#deps.clock.nowMs();
    for (const container of this.#traffic.containers()) {
      if (this.#running.has(container)) continue;
      const at = await lastIncarnation(this.#deps.sql, container);
      if (at?.closedMs === undefined || nowMs - at.closedMs < LATE_MS) continue;
      const traffic = this.#traffic.of(container);
      const interval = { toMs: at.closedMs, cpuNs: 0, memoryByteMs: 0n, ...traffic };
      const { tenant, incarnation, host, closedMs: fromMs } = at;
      const correction = { tenant, container, incarnation, host, fromMs, interval, reason: LATE_REASON };
      try {
        const outcome = await this.#ledger.correct(correction, takePendingWrites(container, traffic));
        if (outcome === 'done') this.#traffic.taken(container, traffic);
        else await this.#traffic.reread();
      } catch (error) {
        this.#deps.log.error(
          { container, reason: reasonOf(error) },
          'what the edge told late could not be written down; it is tried again',
        );
      }
    }
  }

  readings(): readonly Reading[] {
    return [...this.#running.values()].map(({ at, cpuNs, memoryBytes, sampledMs }) => ({
      container: at.container,
      cpuNs,
      memoryBytes,
      sampledMs,
    }));
  }

  /** Samples one container after the other. What is to be written down is written together, while nothing else happens to these containers. */
  async #round(): Promise<void> {
    const atMs = this.#deps.clock.monotonicMs();
    const due: Running[] = [];
    // In one turn: nobody is in the middle of anything with a container. PERF: a promise for each sample costs as much as the sample.
    this.#isQuiet = true;
    for (const running of this.#running.values()) {
      if (atMs >= running.sampling.nextMs) this.#sampleNow(running);
      if (running.sampling.quickUntilMs > atMs) this.#isQuiet = false;
      if (atMs - running.flushedAtMs >= this.#options.flushPeriodMs) due.push(running);
    }
    // Not each as soon as it is due: what comes due within a second is one write to the disk.
    if (atMs - this.#flushedMs >= FLUSH_ROUND_MS) {
      this.#flushedMs = atMs;
      await this.#flushAll(due);
    }
    if (atMs - this.#lateMs < LATE_PERIOD_MS) return;
    this.#lateMs = atMs;
    await this.#correctLate();
  }

  async #flushAll(due: readonly Running[]): Promise<void> {
    const writes = new RoundWrites(this.#deps.clock);
    for (const running of due) {
      await writes.begin(async (beforeWrite) => {
        await this.#locks.run(running.at.container, async () => {
          if (this.#running.get(running.at.container) === running) await this.#flush(running, { when: 'goes-on', beforeWrite });
        });
      });
    }
    await writes.end();
  }

  #sampleNow(running: Running): void {
    const { memoryBytes: beforeBytes, readAtMs, sampling } = running;
    const nowMs = this.#deps.clock.monotonicMs();
    const isQuick = sampling.quickUntilMs > nowMs;
    const isWhole = nowMs - readAtMs >= (isQuick ? READ_PERIOD_MS : READ_QUIET_PERIOD_MS);
    this.#sample(running, this.#read(running, isWhole ? 'whole' : isQuick ? 'memory' : 'glance'), 'goes-on');
    if (isWhole) running.readAtMs = nowMs;
    const look = { nowMs, beforeBytes, afterBytes: running.memoryBytes, chance: Math.random() };
    running.sampling = nextSampling(sampling, look);
  }

  /** Undefined: its cgroup is gone, or was never there. What cannot be read is taken to be as it was: others are not to wait, and nobody gets it for nothing. */
  #read(running: Running, what: 'whole' | 'glance' | 'memory'): CgroupUsage | undefined {
    const { reader, at, cpuNs, memoryBytes } = running;
    const now = what === 'memory' ? reader.memoryBytes() : undefined;
    const memoryOnly = now === undefined ? undefined : { cpuNs, memoryBytes: now };
    const usage = what === 'whole' ? reader.usage() : what === 'glance' ? reader.glance() : memoryOnly;
    if (usage !== undefined || reader.fault === undefined) {
      running.isUnread = false;
      return usage;
    }
    if (!running.isUnread)
      this.#deps.log.error({ container: at.container, reason: reader.fault }, 'the counters of a container cannot be read');
    running.isUnread = true;
    return { cpuNs, memoryBytes };
  }

  /**
   * Adds the span since the last sample to the memory integral. What ends (a program, a stay on a host) had its memory until then; of a span that nobody
   * watched (before the node was started) the less is billed.
   */
  #sample(running: Running, usage: CgroupUsage | undefined, when: 'goes-on' | 'ends'): void {
    const { clock } = this.#deps;
    const spanMs = Math.max(0, Math.round(clock.monotonicMs() - running.sampledAtMs));
    const { memoryBytes: beforeBytes, isWatched } = running;
    const afterBytes = usage?.memoryBytes ?? 0;
    const untilBytes = isWatched ? (when === 'ends' ? beforeBytes : afterBytes) : Math.min(beforeBytes, afterBytes);
    const fromBytes = isWatched ? beforeBytes : untilBytes;
    running.memoryByteMs += (BigInt(spanMs) * BigInt(fromBytes + untilBytes)) / 2n;
    running.sampledAtMs += spanMs; // What rounding cut off is of the next span.
    running.sampledMs = Math.max(running.sampledMs, clock.nowMs());
    running.memoryBytes = afterBytes;
    running.isWatched = true;
    if (usage !== undefined) running.cpuNs = usage.cpuNs;
  }

  async #flush(running: Running, { usage, when, beforeWrite }: Flush): Promise<void> {
    const { at } = running;
    // At an end there is no next time.
    const identity = beforeWrite !== undefined && isIdentified(running) ? at.cgroupIdentity : await this.#identityOf(running);
    if (at.cgroupIdentity !== '' && identity !== at.cgroupIdentity) {
      await this.#startAnew(running, identity);
      return;
    }
    // What was read before somebody else wrote a later interval (a query, while it is paused) is not less than that.
    const earlier = usage === undefined ? undefined : { ...usage, cpuNs: Math.max(usage.cpuNs, at.cpuNs) };
    this.#sample(running, earlier ?? this.#read(running, 'whole'), when);
    if (running.cpuNs < at.cpuNs) {
      await this.#startAnew(running, identity);
      return;
    }
    const due = this.#takeDue(running, identity);
    if (due === undefined) {
      running.flushedAtMs = running.sampledAtMs;
      running.unusedToMs = running.sampledMs;
      return;
    }
    await beforeWrite?.();
    await this.#append(running, due);
  }

  /** Which cgroup it is that is read. */
  async #identityOf(running: Running): Promise<string> {
    const { at, reader } = running;
    const { openings } = reader;
    const identity = (await this.#deps.cgroups.identityOf(at.cgroup)) ?? at.cgroupIdentity;
    if (identity === at.cgroupIdentity) running.identifiedAt = openings;
    return identity;
  }

  /** What is to be written of a container at this moment; undefined: a stopped container fills no ledger. */
  #takeDue(running: Running, cgroupIdentity: string): Due | undefined {
    const { at, cpuNs, memoryByteMs, memoryBytes, sampledMs } = running;
    const traffic = this.#traffic.of(at.container);
    const delta = cpuNs - at.cpuNs;
    const isEmpty = delta === 0 && memoryByteMs === 0n && Object.values(traffic).every((amount) => amount === 0);
    if (isEmpty && at.memoryBytes === 0 && memoryBytes === 0) return undefined;
    return {
      interval: { toMs: sampledMs, usedFromMs: running.unusedToMs, cpuNs: delta, memoryByteMs, ...traffic },
      now: { cpuNs, memoryBytes, cgroupIdentity },
      traffic,
    };
  }

  async #append(running: Running, { interval, now, traffic }: Due): Promise<void> {
    const { at } = running;
    const outcome = await this.#ledger.append(at, interval, now, takePendingWrites(at.container, traffic));
    if (outcome.kind === 'conflict') {
      // Somebody else metered it: the store is right, what we counted meanwhile is in there already.
      this.#deps.log.error({ container: at.container, incarnation: at.incarnation }, 'ledger cursor moved under the meter');
      await this.#traffic.reread();
      const fresh = await findIncarnation(this.#deps.sql, at.container, at.incarnation);
      if (fresh !== undefined && fresh.closedMs === undefined) this.#take(fresh);
      else this.#forget(at.container);
      return;
    }
    this.#traffic.taken(at.container, traffic);
    running.flushedAtMs = running.sampledAtMs;
    running.at = outcome.at;
    running.memoryByteMs -= interval.memoryByteMs; // Samples were taken meanwhile.
  }

  /** The cgroup was made anew (a restart of the node, a reboot). What it shows now belongs to a new incarnation, from zero. */
  async #startAnew(running: Running, cgroupIdentity: string): Promise<void> {
    const { at } = running;
    const nowMs = this.#deps.clock.nowMs();
    const next: Incarnation = {
      ...at,
      incarnation: at.incarnation + 1,
      openedMs: nowMs,
      seq: 0,
      meteredToMs: nowMs,
      cpuNs: 0,
      cgroupIdentity,
    };
    await this.#deps.sql.write([
      closeIncarnationWrite(at.container, at.incarnation, nowMs),
      openIncarnationWrite(next),
      {
        sql: 'UPDATE container SET incarnation = ? WHERE id = ? AND incarnation = ?',
        values: [next.incarnation, at.container, at.incarnation],
      },
      changeWrite(nowMs, 'incarnation.renewed', at.container, { incarnation: next.incarnation }),
    ]);
    this.#take(next);
  }

  /** Writes down everything that was counted, and stops. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
    this.#loop = undefined;
    const last = async (container: string): Promise<void> => {
      try {
        await this.flush(container);
      } catch (error) {
        this.#deps.log.error({ container, reason: reasonOf(error) }, 'the last use of a container could not be written down');
      }
    };
    await Promise.all([...this.#running.keys()].map(last));
    for (const container of this.#running.keys()) this.#forget(container);
  }
}

/** Whether what is read is the incarnation's cgroup: it was, and the files were not opened anew since. */
function isIdentified({ at, reader, identifiedAt }: Running): boolean {
  return at.cgroupIdentity !== '' && reader.openings > 0 && identifiedAt === reader.openings;
}
