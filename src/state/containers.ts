/**
 * Containers as their tenants know them: the virtual id is theirs for life; host, engine id and incarnation change with a migration.
 */
import { changeWrite } from './change-log.ts';
import { integerOf, optionalIntegerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

/** `creating`: reserved, no engine container yet. `lost`: its engine no longer knows it. The rest is what the engine said last. */
export type ContainerState = 'creating' | 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'dead' | 'lost';

export interface ContainerRow {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly host: string;
  readonly engineId: string;
  readonly incarnation: number;
  readonly state: ContainerState;
  readonly createdMs: number;
  readonly startedMs: number | undefined;
  readonly finishedMs: number | undefined;
  readonly restartCount: number;
  /** Its IP address on its host's tenant network; empty while it does not run. */
  readonly address: string;
  /** The node stopped it for its own shutdown and owes it a start. */
  readonly resume: boolean;
  /**
   * The engine's StartedAt of the restore that brought it here; empty: it did not move since its start. While the engine still says this, the
   * store's start time stands, because a move is not a start.
   */
  readonly carriedStart: string;
  readonly memoryBytes: number;
  /** Its address on its tenant's bridge of its host, ours to assign; empty where it has no network. */
  readonly lanAddress: string;
  /** Why it was put on its host, for `ecluse explain`: JSON text, or empty. */
  readonly placement: string;
  /** The snapshot that it sleeps in; empty: it is awake. Its state is `paused` then, which is what Docker has for it. */
  readonly snapshot: string;
  /** The specification (`caas/container-spec.ts`) as JSON text. */
  readonly spec: string;
}

const STATES: ReadonlySet<string> = new Set(['creating', 'created', 'running', 'paused', 'restarting', 'exited', 'dead', 'lost']);

function isState(text: string): text is ContainerState {
  return STATES.has(text);
}

function containerOf(row: SqlRow): ContainerRow {
  const state = textOf(row, 'state');
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    host: textOf(row, 'host'),
    engineId: textOf(row, 'engine_id'),
    incarnation: integerOf(row, 'incarnation'),
    state: isState(state) ? state : 'dead',
    createdMs: integerOf(row, 'created_ms'),
    startedMs: optionalIntegerOf(row, 'started_ms'),
    finishedMs: optionalIntegerOf(row, 'finished_ms'),
    restartCount: integerOf(row, 'restart_count'),
    address: textOf(row, 'address'),
    resume: integerOf(row, 'resume') === 1,
    carriedStart: textOf(row, 'carried_start'),
    memoryBytes: integerOf(row, 'memory_bytes'),
    lanAddress: textOf(row, 'lan_address'),
    placement: textOf(row, 'placement'),
    snapshot: textOf(row, 'snapshot'),
    spec: textOf(row, 'spec'),
  };
}

/** Reserves id and name; conflict where the tenant already uses the name. `more` goes into the same batch. */
export async function insertContainer(sql: Sql, row: ContainerRow, more: readonly SqlWrite[] = []): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: `INSERT INTO container (id, tenant, name, host, engine_id, incarnation, state, created_ms, started_ms, finished_ms,
              restart_count, address, resume, carried_start, memory_bytes, lan_address, placement, spec)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [
        row.id,
        row.tenant,
        row.name,
        row.host,
        row.engineId,
        row.incarnation,
        row.state,
        row.createdMs,
        row.startedMs ?? null,
        row.finishedMs ?? null,
        row.restartCount,
        row.address,
        row.resume ? 1 : 0,
        row.carriedStart,
        row.memoryBytes,
        row.lanAddress,
        row.placement,
        row.spec,
      ],
    },
    ...more,
    changeWrite(row.createdMs, 'container.created', row.id, { tenant: row.tenant, name: row.name, host: row.host }),
  ]);
}

/** What the engine says about a container's life. */
export interface ContainerLife {
  readonly state: ContainerState;
  readonly startedMs: number | undefined;
  readonly finishedMs: number | undefined;
  readonly restartCount: number;
  readonly address: string;
}

/** Records the life that the engine reported; nothing happens where the container lives under another engine id by now. */
export async function updateLife(sql: Sql, row: ContainerRow, life: ContainerLife, nowMs: number): Promise<WriteOutcome> {
  const writes: SqlWrite[] = [
    {
      sql: `UPDATE container SET state = ?, started_ms = ?, finished_ms = ?, restart_count = ?, address = ? WHERE id = ? AND engine_id = ?`,
      values: [
        life.state,
        life.startedMs ?? null,
        life.finishedMs ?? null,
        life.restartCount,
        life.address,
        row.id,
        row.engineId,
      ],
      expectRows: 1,
    },
  ];
  if (life.state !== row.state) {
    writes.push(changeWrite(nowMs, `container.${life.state}`, row.id, { tenant: row.tenant, name: row.name, host: row.host }));
  }
  return await sql.write(writes);
}

/** Binds a reserved container to the engine container that was made for it. `life`: one that was started before anybody knew of it. */
/** `also`: written with it. */
export async function bindEngine(
  sql: Sql,
  id: string,
  engineId: string,
  { life, also = [] }: { readonly life?: ContainerLife | undefined; readonly also?: readonly SqlWrite[] } = {},
): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: `UPDATE container SET engine_id = ?, state = ?, started_ms = ?, address = ? WHERE id = ? AND state = 'creating'`,
      values: [engineId, life?.state ?? 'created', life?.startedMs ?? null, life?.address ?? '', id],
      expectRows: 1,
    },
    ...also,
  ]);
}

export async function renameContainer(sql: Sql, id: string, name: string): Promise<WriteOutcome> {
  return await sql.write([{ sql: 'UPDATE container SET name = ? WHERE id = ?', values: [name, id], expectRows: 1 }]);
}

/** `docker update`: another specification and memory limit for the same container. */
export async function updateSpec(
  sql: Sql,
  row: ContainerRow,
  change: Pick<ContainerRow, 'spec' | 'memoryBytes'>,
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'UPDATE container SET spec = ?, memory_bytes = ? WHERE id = ?',
      values: [change.spec, change.memoryBytes, row.id],
      expectRows: 1,
    },
    changeWrite(nowMs, 'container.updated', row.id, { tenant: row.tenant, name: row.name, memoryBytes: change.memoryBytes }),
  ]);
}

/** Marks that the node itself stopped the container, or that the debt is paid. */
export async function setResume(sql: Sql, id: string, resume: boolean): Promise<void> {
  await sql.write([{ sql: 'UPDATE container SET resume = ? WHERE id = ?', values: [resume ? 1 : 0, id] }]);
}

export async function deleteContainer(sql: Sql, row: ContainerRow, nowMs: number): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM container WHERE id = ? AND engine_id = ?', values: [row.id, row.engineId], expectRows: 1 },
    changeWrite(nowMs, 'container.removed', row.id, { tenant: row.tenant, name: row.name }),
  ]);
}

/** Another number than before: a container was added, changed or removed since. */
export async function containerEdition(sql: Sql): Promise<number> {
  const [row] = await sql.read('SELECT number FROM container_edition', []);
  if (row === undefined) throw new TypeError('state: container_edition is empty');
  return integerOf(row, 'number');
}

export async function listContainers(sql: Sql): Promise<readonly ContainerRow[]> {
  const rows = await sql.read('SELECT * FROM container ORDER BY created_ms DESC, id', []);
  return rows.map(containerOf);
}

/** Those that no incarnation was ever opened for: nothing that they use is in the ledger. */
export async function listUnmetered(sql: Sql): Promise<readonly ContainerRow[]> {
  const rows = await sql.read(
    `SELECT * FROM container WHERE state <> 'creating' AND NOT EXISTS (
       SELECT 1 FROM incarnation WHERE incarnation.container = container.id AND incarnation.incarnation >= container.incarnation)`,
    [],
  );
  return rows.map(containerOf);
}

export async function listContainersOf(sql: Sql, tenant: string): Promise<readonly ContainerRow[]> {
  const rows = await sql.read('SELECT * FROM container WHERE tenant = ? ORDER BY created_ms DESC, id', [tenant]);
  return rows.map(containerOf);
}

export async function findContainer(sql: Sql, id: string): Promise<ContainerRow | undefined> {
  const [row] = await sql.read('SELECT * FROM container WHERE id = ?', [id]);
  return row === undefined ? undefined : containerOf(row);
}

export async function findByEngineId(sql: Sql, engineId: string): Promise<ContainerRow | undefined> {
  const [row] = await sql.read('SELECT * FROM container WHERE engine_id = ?', [engineId]);
  return row === undefined ? undefined : containerOf(row);
}

/** An id prefix is looked up as a range, so that no pattern of the caller's reaches SQL. */
export async function findByIdPrefix(sql: Sql, tenant: string, prefix: string): Promise<readonly ContainerRow[]> {
  const rows = await sql.read('SELECT * FROM container WHERE tenant = ? AND id >= ? AND id < ? LIMIT 2', [
    tenant,
    prefix,
    `${prefix}g`,
  ]);
  return rows.map(containerOf);
}

export async function findByName(sql: Sql, tenant: string, name: string): Promise<ContainerRow | undefined> {
  const [row] = await sql.read('SELECT * FROM container WHERE tenant = ? AND name = ?', [tenant, name]);
  return row === undefined ? undefined : containerOf(row);
}
