/**
 * Snapshots: what a container was in memory (and in its files) at one moment, kept by the node.
 *
 * States: making → kept → waking (of a sleep only). A daemon that died while one was `making` lets its container go on and forgets the snapshot; one that
 * died while it was `waking` looks whether the container runs by now.
 */
import { changeWrite } from './change-log.ts';
import { integerOf, optionalIntegerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

/** `sleep`: its container goes on from it, once. `copy`: made beside a container that runs. `automatic`: the same, by its label. */
export type SnapshotKind = 'sleep' | 'copy' | 'automatic';
export type SnapshotState = 'making' | 'kept' | 'waking';

/** What a container does at its port; as the store has it: 0, 1, 2. */
const SERVINGS = ['nothing', 'accepts', 'answers'] as const;
export type Serving = (typeof SERVINGS)[number];

export interface SnapshotRow {
  readonly id: string;
  readonly tenant: string;
  readonly container: string;
  /** Its name when it was made. */
  readonly name: string;
  readonly host: string;
  readonly kind: SnapshotKind;
  readonly state: SnapshotState;
  readonly createdMs: number;
  readonly imageBytes: number;
  readonly fileBytes: number;
  /** The gVisor build that wrote it; another one may not read it. */
  readonly runtime: string;
  /** What it did at its port when it was made: who wakes must, too. */
  readonly serves: Serving;
  readonly memoryBytes: number;
  readonly spec: string;
}

function snapshotOf(row: SqlRow): SnapshotRow {
  const kind = textOf(row, 'kind');
  const state = textOf(row, 'state');
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    container: textOf(row, 'container'),
    name: textOf(row, 'name'),
    host: textOf(row, 'host'),
    kind: kind === 'sleep' || kind === 'automatic' ? kind : 'copy',
    state: state === 'kept' || state === 'waking' ? state : 'making',
    createdMs: integerOf(row, 'created_ms'),
    imageBytes: integerOf(row, 'image_bytes'),
    fileBytes: integerOf(row, 'file_bytes'),
    runtime: textOf(row, 'runtime'),
    serves: SERVINGS[integerOf(row, 'serves')] ?? 'nothing',
    memoryBytes: integerOf(row, 'memory_bytes'),
    spec: textOf(row, 'spec'),
  };
}

/** What a snapshot takes on disk, or took until it went, and up to when that is in the ledger. */
export interface SnapshotUse {
  readonly id: string;
  readonly tenant: string;
  readonly container: string;
  readonly host: string;
  readonly bytes: number;
  readonly meteredMs: number;
  /** Undefined: it is kept. */
  readonly goneMs: number | undefined;
}

/** All that are kept, and those that went and are not in the ledger up to their end. */
export async function listSnapshotUses(sql: Sql): Promise<readonly SnapshotUse[]> {
  const rows = await sql.read(
    `SELECT id, tenant, container, host, file_bytes AS bytes, metered_ms, NULL AS gone_ms FROM snapshot WHERE state <> 'making' AND file_bytes > 0
     UNION ALL SELECT id, tenant, container, host, bytes, metered_ms, gone_ms FROM snapshot_gone`,
    [],
  );
  return rows.map((row) => ({
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    container: textOf(row, 'container'),
    host: textOf(row, 'host'),
    bytes: integerOf(row, 'bytes'),
    meteredMs: integerOf(row, 'metered_ms'),
    goneMs: optionalIntegerOf(row, 'gone_ms'),
  }));
}

/** One that is gone is in the ledger up to its end. */
export function goneSnapshotWrite(id: string): SqlWrite {
  return { sql: 'DELETE FROM snapshot_gone WHERE id = ?', values: [id], expectRows: 1 };
}

/** Forgets a snapshot, but not what it took on disk. `must`: it has to be there. */
function forgetWrites(id: string, nowMs: number, must: 'be-there' | 'perhaps' = 'be-there'): readonly SqlWrite[] {
  return [
    {
      sql: `INSERT INTO snapshot_gone (id, tenant, container, host, bytes, metered_ms, gone_ms)
            SELECT id, tenant, container, host, file_bytes, metered_ms, ? FROM snapshot WHERE id = ? AND state <> 'making' AND file_bytes > 0`,
      values: [nowMs, id],
    },
    { sql: 'DELETE FROM snapshot WHERE id = ?', values: [id], ...(must === 'be-there' ? { expectRows: 1 } : {}) },
  ];
}

/** It is in the ledger up to `toMs`. */
export function moveMeteredWrite(id: string, fromMs: number, toMs: number): SqlWrite {
  return { sql: 'UPDATE snapshot SET metered_ms = ? WHERE id = ? AND metered_ms = ?', values: [toMs, id, fromMs], expectRows: 1 };
}

/** Says that a snapshot is being made, before the container is touched. */
export async function beginSnapshot(sql: Sql, row: SnapshotRow): Promise<void> {
  await sql.write([
    {
      sql: `INSERT INTO snapshot (id, tenant, container, name, host, kind, state, created_ms, image_bytes, file_bytes, runtime, serves, memory_bytes, spec,
              metered_ms)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [
        row.id,
        row.tenant,
        row.container,
        row.name,
        row.host,
        row.kind,
        row.state,
        row.createdMs,
        row.imageBytes,
        row.fileBytes,
        row.runtime,
        SERVINGS.indexOf(row.serves),
        row.memoryBytes,
        row.spec,
        row.createdMs,
      ],
    },
  ]);
}

export interface SnapshotBytes {
  readonly imageBytes: number;
  readonly fileBytes: number;
}

/** What it takes on disk counts from here on. */
function keepWrite(id: string, { imageBytes, fileBytes }: SnapshotBytes, nowMs: number): SqlWrite {
  return {
    sql: `UPDATE snapshot SET state = 'kept', image_bytes = ?, file_bytes = ?, metered_ms = ? WHERE id = ? AND state = 'making'`,
    values: [imageBytes, fileBytes, nowMs, id],
    expectRows: 1,
  };
}

/** The batch in which a container falls asleep: from here on the snapshot is the container. */
export async function fallAsleep(
  sql: Sql,
  row: SnapshotRow,
  made: SnapshotBytes & { readonly engineId: string },
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write([
    keepWrite(row.id, made, nowMs),
    {
      sql: `UPDATE container SET snapshot = ?, state = 'paused' WHERE id = ? AND engine_id = ? AND snapshot = ''`,
      values: [row.id, row.container, made.engineId],
      expectRows: 1,
    },
    changeWrite(nowMs, 'container.asleep', row.container, { tenant: row.tenant, name: row.name, host: row.host }),
  ]);
}

/** A snapshot beside its container is whole: from here on it can be restored. */
export async function keepSnapshot(sql: Sql, row: SnapshotRow, made: SnapshotBytes, nowMs: number): Promise<WriteOutcome> {
  const { id, tenant, container, name, host, kind } = row;
  return await sql.write([
    keepWrite(id, made, nowMs),
    changeWrite(nowMs, 'snapshot.kept', container, { tenant, name, host, snapshot: id, kind, bytes: made.fileBytes }),
  ]);
}

/** Before a container may run again: a daemon that dies from here on asks the engine. */
export async function beginWake(sql: Sql, id: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: `UPDATE snapshot SET state = 'waking' WHERE id = ? AND state IN ('kept', 'waking')`, values: [id], expectRows: 1 },
  ]);
}

/** It did not wake: it sleeps on. */
export async function sleepOn(sql: Sql, id: string): Promise<void> {
  await sql.write([{ sql: `UPDATE snapshot SET state = 'kept' WHERE id = ? AND state = 'waking'`, values: [id] }]);
}

/** The batch in which a container wakes: the snapshot is not it any more. */
export async function wakeUp(
  sql: Sql,
  row: SnapshotRow,
  life: { readonly address: string; readonly carriedStart: string },
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: `UPDATE container SET snapshot = '', state = 'running', address = ?, carried_start = ? WHERE id = ? AND snapshot = ?`,
      values: [life.address, life.carriedStart, row.container, row.id],
      expectRows: 1,
    },
    ...forgetWrites(row.id, nowMs),
    changeWrite(nowMs, 'container.awake', row.container, { tenant: row.tenant, name: row.name, host: row.host }),
  ]);
}

/** A sleeping container's memory is given up: it has ended, as its engine says. */
export async function giveUpSleep(
  sql: Sql,
  container: { readonly id: string; readonly snapshot: string; readonly tenant: string; readonly name: string },
  nowMs: number,
): Promise<WriteOutcome> {
  const { id, snapshot, tenant, name } = container;
  return await sql.write([
    {
      sql: `UPDATE container SET snapshot = '', state = 'exited', address = '' WHERE id = ? AND snapshot = ?`,
      values: [id, snapshot],
      expectRows: 1,
    },
    ...forgetWrites(snapshot, nowMs, 'perhaps'),
    changeWrite(nowMs, 'container.forgot', id, { tenant, name }),
  ]);
}

/** Forgets a snapshot that is nobody's memory. */
export async function forgetSnapshot(sql: Sql, id: string, nowMs: number): Promise<WriteOutcome> {
  return await sql.write(forgetWrites(id, nowMs));
}

/** Removes a snapshot that was kept beside its container. */
export async function removeSnapshot(sql: Sql, row: SnapshotRow, nowMs: number): Promise<WriteOutcome> {
  const { id, tenant, container, name } = row;
  return await sql.write([
    ...forgetWrites(id, nowMs),
    changeWrite(nowMs, 'snapshot.removed', container, { tenant, name, snapshot: id }),
  ]);
}

export async function findSnapshot(sql: Sql, id: string): Promise<SnapshotRow | undefined> {
  const [row] = await sql.read('SELECT * FROM snapshot WHERE id = ?', [id]);
  return row === undefined ? undefined : snapshotOf(row);
}

export async function listSnapshots(sql: Sql): Promise<readonly SnapshotRow[]> {
  return (await sql.read('SELECT * FROM snapshot ORDER BY created_ms, id', [])).map(snapshotOf);
}
