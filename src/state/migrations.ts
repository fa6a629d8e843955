/**
 * The journal of migrations of containers (not of the schema): what a daemon that died in the middle left to undo or to finish.
 *
 * States: preparing → paused → committed → done, or → rolled-back from the first two. Until `committed` the source owns the
 * container; from then on the target does. One batch makes the difference.
 */
import { changeWrite } from './change-log.ts';
import { closeIncarnationWrite, openIncarnationWrite } from './ledger.ts';
import type { Incarnation } from './ledger.ts';
import { integerOf, optionalTextOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

export type MigrationState = 'preparing' | 'paused' | 'committed' | 'done' | 'rolled-back';

export interface MigrationRow {
  readonly id: string;
  readonly container: string;
  readonly sourceHost: string;
  readonly targetHost: string;
  readonly sourceEngineId: string;
  readonly targetEngineId: string | undefined;
  readonly state: MigrationState;
}

const STATES: readonly MigrationState[] = ['preparing', 'paused', 'committed', 'done', 'rolled-back'];

function migrationOf(row: SqlRow): MigrationRow {
  const text = textOf(row, 'state');
  const state = STATES.find((known) => known === text);
  if (state === undefined) throw new TypeError(`state: unknown migration state ${text}`);
  return {
    id: textOf(row, 'id'),
    container: textOf(row, 'container'),
    sourceHost: textOf(row, 'source_host'),
    targetHost: textOf(row, 'target_host'),
    sourceEngineId: textOf(row, 'source_engine_id'),
    targetEngineId: optionalTextOf(row, 'target_engine_id'),
    state,
  };
}

/** Begins a migration; conflict where the container is already under way. */
export async function beginMigration(sql: Sql, row: MigrationRow, nowMs: number): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: `INSERT INTO migration (id, container, source_host, target_host, source_engine_id, target_engine_id, state, started_ms, updated_ms)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [
        row.id,
        row.container,
        row.sourceHost,
        row.targetHost,
        row.sourceEngineId,
        row.targetEngineId ?? null,
        row.state,
        nowMs,
        nowMs,
      ],
    },
    changeWrite(nowMs, 'migration.started', row.container, { id: row.id, from: row.sourceHost, to: row.targetHost }),
  ]);
}

/** Takes an address on the target. */
export async function setMigrationAddress(sql: Sql, id: string, address: string): Promise<void> {
  await sql.write([{ sql: 'UPDATE migration SET target_address = ? WHERE id = ?', values: [address, id], expectRows: 1 }]);
}

/** Writes down the engine container that is being made on the target, before it can run. */
export async function setMigrationTarget(sql: Sql, id: string, targetEngineId: string, nowMs: number): Promise<void> {
  await sql.write([
    {
      sql: 'UPDATE migration SET target_engine_id = ?, updated_ms = ? WHERE id = ?',
      values: [targetEngineId, nowMs, id],
      expectRows: 1,
    },
  ]);
}

export async function setMigrationState(sql: Sql, row: MigrationRow, state: MigrationState, nowMs: number): Promise<void> {
  await sql.write([
    { sql: 'UPDATE migration SET state = ?, updated_ms = ? WHERE id = ?', values: [state, nowMs, row.id], expectRows: 1 },
    changeWrite(nowMs, `migration.${state}`, row.container, { id: row.id, from: row.sourceHost, to: row.targetHost }),
  ]);
}

/** The one batch in which the container changes sides: placement, address, incarnation and journal together. */
export async function commitMigration(
  sql: Sql,
  row: MigrationRow,
  target: {
    readonly engineId: string;
    readonly address: string;
    readonly lanAddress: string;
    readonly carriedStart: string;
    readonly incarnation: Incarnation;
    readonly nowMs: number;
    /** What moves with the container. */
    readonly more: readonly SqlWrite[];
  },
): Promise<WriteOutcome> {
  const { incarnation, nowMs } = target;
  return await sql.write([
    {
      sql: `UPDATE container SET host = ?, engine_id = ?, address = ?, lan_address = ?, carried_start = ?, incarnation = ?, state = 'running' WHERE id = ? AND engine_id = ? AND incarnation = ?`,
      values: [
        row.targetHost,
        target.engineId,
        target.address,
        target.lanAddress,
        target.carriedStart,
        incarnation.incarnation,
        row.container,
        row.sourceEngineId,
        incarnation.incarnation - 1,
      ],
      expectRows: 1,
    },
    {
      sql: `UPDATE migration SET state = 'committed', updated_ms = ? WHERE id = ? AND state = 'paused'`,
      values: [nowMs, row.id],
      expectRows: 1,
    },
    closeIncarnationWrite(row.container, incarnation.incarnation - 1, nowMs),
    openIncarnationWrite(incarnation),
    ...target.more,
    changeWrite(nowMs, 'migration.committed', row.container, { id: row.id, from: row.sourceHost, to: row.targetHost }),
  ]);
}

/** Migrations that were under way when the daemon stopped. */
export async function listOpenMigrations(sql: Sql): Promise<readonly MigrationRow[]> {
  return (await sql.read(`SELECT * FROM migration WHERE state IN ('preparing', 'paused', 'committed')`, [])).map(migrationOf);
}

/** A move that was begun, whatever became of it. */
export interface BegunMove {
  readonly container: string;
  readonly tenant: string;
  readonly state: string;
  readonly startedMs: number;
}

/** Moves of containers that still exist, begun since then, oldest first. */
export async function listMovesSince(sql: Sql, sinceMs: number): Promise<readonly BegunMove[]> {
  const rows = await sql.read(
    `SELECT migration.container AS container, container.tenant AS tenant, migration.state AS state, migration.started_ms AS started_ms
     FROM migration JOIN container ON container.id = migration.container WHERE migration.started_ms >= ? ORDER BY migration.started_ms`,
    [sinceMs],
  );
  return rows.map((row) => ({
    container: textOf(row, 'container'),
    tenant: textOf(row, 'tenant'),
    state: textOf(row, 'state'),
    startedMs: integerOf(row, 'started_ms'),
  }));
}
