/**
 * What snapshots take on disk, into the ledger: of those that are kept at each full hour, of those that are gone what is left until their end. So none is for
 * nothing because it came and went between two full hours.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { hourOf } from '#metering/hour-pieces.ts';
import type { LedgerWriter } from '#state/ledger-writer.ts';
import { goneSnapshotWrite, listSnapshotUses, moveMeteredWrite } from '#state/snapshots.ts';
import type { SnapshotUse } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';

export interface SnapshotMeterDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly writer: Pick<LedgerWriter, 'store'>;
}

/** By so much the wall clock may differ from the time that went by before it is taken to have been set. */
const CLOCK_SLACK_MS = 2_000;
const HOUR_MS = 3_600_000;
/** One write to the disk for so many. */
const BATCH_MAX = 100;

/** Up to when one is in the ledger, by both clocks. */
interface Anchor {
  readonly meteredMs: number;
  readonly atMs: number;
}

interface Due {
  readonly use: SnapshotUse;
  readonly toMs: number;
  readonly forMs: number;
}

interface Now {
  readonly nowMs: number;
  readonly atMs: number;
}

export class SnapshotMeter {
  readonly #deps: SnapshotMeterDeps;
  #anchors: ReadonlyMap<string, Anchor> = new Map();
  #lookedAtMs: number | undefined;

  constructor(deps: SnapshotMeterDeps) {
    this.#deps = deps;
  }

  async round(): Promise<void> {
    const { clock, sql, log } = this.#deps;
    const uses = await listSnapshotUses(sql);
    const now = { nowMs: clock.nowMs(), atMs: clock.monotonicMs() };
    const anchors = new Map(uses.map((use) => [use.id, this.#anchorOf(use, now)]));
    this.#anchors = anchors;
    this.#lookedAtMs = now.atMs;
    const due = uses.map((use) => dueOf(use, anchors.get(use.id)?.atMs ?? now.atMs, now)).filter((one) => one !== undefined);
    for (const batch of batchesOf(due)) {
      const outcomes = await Promise.allSettled(batch.map(async (one) => await this.#store(one)));
      for (const [index, outcome] of outcomes.entries()) {
        const one = batch[index];
        if (one === undefined) continue;
        if (outcome.status === 'fulfilled') {
          // What went at this moment, or somebody else counted, is as it was: the next round looks where it is now.
          if (outcome.value === 'done')
            anchors.set(one.use.id, { meteredMs: one.toMs, atMs: now.atMs - Math.max(0, now.nowMs - one.toMs) });
          continue;
        }
        const { id: snapshot, tenant } = one.use;
        log.error({ snapshot, tenant, reason: reasonOf(outcome.reason) }, 'what a snapshot takes could not be written down');
      }
    }
  }

  /** What came since the last look is no older than that, whatever the wall clock says. At the first look only that one knows. */
  #anchorOf({ id, meteredMs }: SnapshotUse, { nowMs, atMs }: Now): Anchor {
    const before = this.#anchors.get(id);
    if (before?.meteredMs === meteredMs) return before;
    const oldestMs = this.#lookedAtMs === undefined || before !== undefined ? Infinity : atMs - this.#lookedAtMs;
    return { meteredMs, atMs: atMs - Math.min(oldestMs, Math.max(0, nowMs - meteredMs)) };
  }

  async #store({ use, toMs, forMs }: Due): Promise<'done' | 'conflict'> {
    const { sql, writer } = this.#deps;
    const { id, bytes, meteredMs, goneMs, ...snapshot } = use;
    const cursor = goneMs === undefined ? moveMeteredWrite(id, meteredMs, toMs) : goneSnapshotWrite(id);
    const byteMs = BigInt(bytes) * BigInt(forMs);
    if (byteMs === 0n) return (await sql.write([cursor])).kind;
    return await writer.store({ ...snapshot, kind: 'snapshot', byteMs, fromMs: meteredMs, toMs }, cursor);
  }
}

/** What is to be written of one. An hour that a clock was set by is nobody's. Pure. */
function dueOf(use: SnapshotUse, anchorAtMs: number, { nowMs, atMs }: Now): Due | undefined {
  const { meteredMs, goneMs } = use;
  const wentByMs = Math.max(0, Math.round(atMs - anchorAtMs));
  const isSet = Math.abs(nowMs - meteredMs - wentByMs) > CLOCK_SLACK_MS;
  const toMs = Math.max(meteredMs, isSet ? nowMs : (goneMs ?? hourOf(nowMs)));
  const isSoon = isSet ? nowMs < meteredMs && wentByMs < HOUR_MS : toMs === meteredMs;
  if (goneMs === undefined && isSoon) return undefined;
  return { use, toMs, forMs: isSet ? wentByMs : toMs - meteredMs };
}

/** Of one tenant each: a ledger that cannot be written to keeps nobody else's from it. Rows of one container wait for each other. Pure. */
function batchesOf(due: readonly Due[]): readonly (readonly Due[])[] {
  const open = new Map<string, Map<string, Due>[]>();
  for (const one of due) {
    const { tenant, container } = one.use;
    const batches = open.get(tenant) ?? [];
    open.set(tenant, batches);
    const free = batches.find((batch) => batch.size < BATCH_MAX && !batch.has(container));
    if (free === undefined) batches.push(new Map([[container, one]]));
    else free.set(container, one);
  }
  return [...open.values()].flat().map((batch) => [...batch.values()]);
}
