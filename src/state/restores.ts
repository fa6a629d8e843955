/**
 * The journal of restores: the one of moves (`migrations.ts`), because a restore is a move whose source is not there. So a container is never moved and
 * restored at once, its address on the target is taken, and a daemon that died in the middle undoes or finishes it as a move.
 *
 * States: preparing → committed → done, or → rolled-back from the first.
 */
import { changeWrite } from './change-log.ts';
import { closeIncarnationWrite, openIncarnationWrite } from './ledger.ts';
import type { Incarnation } from './ledger.ts';
import type { MigrationRow } from './migrations.ts';
import type { Sql, SqlWrite, WriteOutcome } from './sql.ts';

export interface RestoreJournal extends MigrationRow {
  readonly snapshot: string;
}

function factsOf({ id, sourceHost, targetHost, snapshot }: RestoreJournal): Readonly<Record<string, unknown>> {
  return { id, from: sourceHost, to: targetHost, snapshot };
}

/** Begins a restore; conflict where the container is under way already. */
export async function beginRestore(sql: Sql, row: RestoreJournal, nowMs: number): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: `INSERT INTO migration (id, container, source_host, target_host, source_engine_id, target_engine_id, state, started_ms, updated_ms)
            VALUES (?, ?, ?, ?, ?, NULL, 'preparing', ?, ?)`,
      values: [row.id, row.container, row.sourceHost, row.targetHost, row.sourceEngineId, nowMs, nowMs],
    },
    changeWrite(nowMs, 'restore.started', row.container, factsOf(row)),
  ]);
}

/** The one batch in which a container is back: placement, address, volumes, incarnation and journal together. */
export async function commitRestore(
  sql: Sql,
  row: RestoreJournal,
  target: {
    readonly engineId: string;
    readonly address: string;
    readonly lanAddress: string;
    readonly carriedStart: string;
    readonly incarnation: Incarnation;
    readonly nowMs: number;
    /** Its volumes. */
    readonly more: readonly SqlWrite[];
  },
): Promise<WriteOutcome> {
  const { incarnation, nowMs } = target;
  return await sql.write([
    {
      sql: `UPDATE container SET host = ?, engine_id = ?, address = ?, lan_address = ?, carried_start = ?, incarnation = ?, state = 'running', finished_ms = NULL,
              resume = 0 WHERE id = ? AND host = ? AND engine_id = ? AND incarnation = ? AND snapshot = ''`,
      values: [
        row.targetHost,
        target.engineId,
        target.address,
        target.lanAddress,
        target.carriedStart,
        incarnation.incarnation,
        row.container,
        row.sourceHost,
        row.sourceEngineId,
        incarnation.incarnation - 1,
      ],
      expectRows: 1,
    },
    {
      sql: `UPDATE migration SET state = 'committed', updated_ms = ? WHERE id = ? AND state = 'preparing'`,
      values: [nowMs, row.id],
      expectRows: 1,
    },
    closeIncarnationWrite(row.container, incarnation.incarnation - 1, nowMs),
    openIncarnationWrite(incarnation),
    ...target.more,
    changeWrite(nowMs, 'container.restored', row.container, factsOf(row)),
  ]);
}

/** It is over. What is left of the old container on a host that does not answer is a stranger there. */
export async function endRestore(sql: Sql, row: RestoreJournal, end: 'done' | 'rolled-back', nowMs: number): Promise<void> {
  await sql.write([
    { sql: 'UPDATE migration SET state = ?, updated_ms = ? WHERE id = ?', values: [end, nowMs, row.id], expectRows: 1 },
    changeWrite(nowMs, `restore.${end}`, row.container, factsOf(row)),
  ]);
}
