/**
 * What snapshots take on disk, into the ledger: of those that are kept at each full hour, of those that are gone what is left until their end. So none is for
 * nothing because it came and went between two full hours.
 */
import type { Clock } from '#clock';
import { hourOf } from '#metering/hour-pieces.ts';
import type { LedgerWriter } from '#state/ledger-writer.ts';
import { goneSnapshotWrite, listSnapshotUses, moveMeteredWrite } from '#state/snapshots.ts';
import type { SnapshotUse } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';

export interface SnapshotMeterDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly writer: Pick<LedgerWriter, 'store'>;
}

/** By so much the wall clock may differ from the time that went by before it is taken to have been set. */
const CLOCK_SLACK_MS = 2_000;

export class SnapshotMeter {
  readonly #deps: SnapshotMeterDeps;
  /** Up to when each is in the ledger, by the monotonic clock. */
  #meteredAtMs = new Map<string, number>();
  #lookedAtMs: number | undefined;

  constructor(deps: SnapshotMeterDeps) {
    this.#deps = deps;
  }

  async round(): Promise<void> {
    const { clock, sql } = this.#deps;
    const uses = await listSnapshotUses(sql);
    const [nowMs, atMs] = [clock.nowMs(), clock.monotonicMs()];
    const before = this.#meteredAtMs;
    this.#meteredAtMs = new Map(uses.map(({ id, meteredMs }) => [id, before.get(id) ?? this.#firstSeen(meteredMs, nowMs, atMs)]));
    this.#lookedAtMs = atMs;
    for (const use of uses) await this.#count(use, nowMs, atMs);
  }

  /** What came since the last look is no older than that, whatever the wall clock says. At the first look only that one knows. */
  #firstSeen(meteredMs: number, nowMs: number, atMs: number): number {
    const oldestMs = this.#lookedAtMs === undefined ? Infinity : atMs - this.#lookedAtMs;
    return atMs - Math.min(oldestMs, Math.max(0, nowMs - meteredMs));
  }

  async #count(use: SnapshotUse, nowMs: number, atMs: number): Promise<void> {
    const { id, bytes, meteredMs, goneMs, ...snapshot } = use;
    const wentByMs = Math.round(atMs - (this.#meteredAtMs.get(id) ?? atMs));
    // An hour that a clock was set by is nobody's.
    const isSet = Math.abs(nowMs - meteredMs - wentByMs) > CLOCK_SLACK_MS;
    const toMs = Math.max(meteredMs, isSet ? nowMs : (goneMs ?? hourOf(nowMs)));
    if (goneMs === undefined && !isSet && toMs === meteredMs) return;
    const byteMs = BigInt(bytes) * BigInt(Math.max(0, isSet ? wentByMs : toMs - meteredMs));
    const cursor = goneMs === undefined ? moveMeteredWrite(id, meteredMs, toMs) : goneSnapshotWrite(id);
    const stored = { ...snapshot, kind: 'snapshot', byteMs, fromMs: meteredMs, toMs } as const;
    // Where it went at this moment, or somebody else counted it, the next round knows.
    const outcome = byteMs === 0n ? (await this.#deps.sql.write([cursor])).kind : await this.#deps.writer.store(stored, cursor);
    if (outcome === 'done') this.#meteredAtMs.set(id, atMs - Math.max(0, nowMs - toMs));
    else this.#meteredAtMs.delete(id);
  }
}
