/**
 * What the edge moved for containers, on its way from workers to the ledger.
 *
 * INVARIANT: each report of a worker is added once, because the batch that adds it moves the worker's number; and what is added is in the ledger once,
 * because the batch that appends an interval takes it away here.
 */
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlValue, SqlWrite, WriteOutcome } from './sql.ts';

/** What the edge moved for one container. */
export interface Traffic {
  readonly requests: number;
  readonly ingressBytes: number;
  readonly egressBytes: number;
  readonly heldMs: number;
  readonly streamMs: number;
}

export interface ContainerTraffic extends Traffic {
  readonly container: string;
}

/** A report of the worker `epoch`, for those of its endpoints that are containers. */
export interface KeptReport {
  readonly epoch: string;
  readonly number: number;
  readonly traffic: readonly ContainerTraffic[];
}

const AMOUNTS = ['requests', 'ingress_bytes', 'egress_bytes', 'held_ms', 'stream_ms'] as const;

function valuesOf({ requests, ingressBytes, egressBytes, heldMs, streamMs }: Traffic): readonly SqlValue[] {
  return [requests, ingressBytes, egressBytes, heldMs, streamMs];
}

/** What is not in the ledger yet. */
export async function readPendingTraffic(sql: Sql): Promise<readonly ContainerTraffic[]> {
  const rows = await sql.read(`SELECT container, ${AMOUNTS.join(', ')} FROM edge_pending`, []);
  return rows.map((row) => ({
    container: textOf(row, 'container'),
    requests: integerOf(row, 'requests'),
    ingressBytes: integerOf(row, 'ingress_bytes'),
    egressBytes: integerOf(row, 'egress_bytes'),
    heldMs: integerOf(row, 'held_ms'),
    streamMs: integerOf(row, 'stream_ms'),
  }));
}

/** The number of the last report of each worker. */
export async function readEpochs(sql: Sql): Promise<ReadonlyMap<string, number>> {
  const rows = await sql.read('SELECT epoch, number FROM edge_epoch', []);
  return new Map(rows.map((row) => [textOf(row, 'epoch'), integerOf(row, 'number')]));
}

/** Adds reports, each of another worker. Conflict: one was added before. `before`: the number that each worker's last report had. */
export async function addTraffic(
  sql: Sql,
  reports: readonly KeptReport[],
  before: ReadonlyMap<string, number>,
  nowMs: number,
): Promise<WriteOutcome> {
  return await sql.write(
    reports.flatMap(({ epoch, number, traffic }) => [
      moveEpochWrite(epoch, { before: before.get(epoch), number, nowMs }),
      ...traffic.map(addPendingWrite),
    ]),
  );
}

function moveEpochWrite(
  epoch: string,
  { before, number, nowMs }: { readonly before: number | undefined; readonly number: number; readonly nowMs: number },
): SqlWrite {
  return before === undefined
    ? { sql: 'INSERT INTO edge_epoch (epoch, number, seen_ms) VALUES (?, ?, ?)', values: [epoch, number, nowMs] }
    : {
        sql: 'UPDATE edge_epoch SET number = ?, seen_ms = ? WHERE epoch = ? AND number = ?',
        values: [number, nowMs, epoch, before],
        expectRows: 1,
      };
}

function addPendingWrite(traffic: ContainerTraffic): SqlWrite {
  return {
    sql: `INSERT INTO edge_pending (container, ${AMOUNTS.join(', ')}) VALUES (?, ?, ?, ?, ?, ?)
          ON CONFLICT (container) DO UPDATE SET ${AMOUNTS.map((name) => `${name} = edge_pending.${name} + excluded.${name}`).join(', ')}`,
    values: [traffic.container, ...valuesOf(traffic)],
  };
}

/** Takes away what the ledger gets in the same batch; none where there is nothing. */
export function takePendingWrites(container: string, traffic: Traffic): readonly SqlWrite[] {
  const values = valuesOf(traffic);
  if (values.every((value) => value === 0)) return [];
  const set = AMOUNTS.map((name) => `${name} = ${name} - ?`).join(', ');
  const enough = AMOUNTS.map((name) => `${name} >= ?`).join(' AND ');
  return [
    {
      sql: `UPDATE edge_pending SET ${set} WHERE container = ? AND ${enough}`,
      values: [...values, container, ...values],
      expectRows: 1,
    },
  ];
}

/** Forgets workers that have not said anything since `beforeMs`, and containers of which all is in the ledger. */
export async function forgetTraffic(sql: Sql, beforeMs: number): Promise<void> {
  await sql.write([
    { sql: 'DELETE FROM edge_epoch WHERE seen_ms < ?', values: [beforeMs] },
    { sql: `DELETE FROM edge_pending WHERE ${AMOUNTS.map((name) => `${name} = 0`).join(' AND ')}`, values: [] },
  ]);
}
