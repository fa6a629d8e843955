/**
 * The ledger: append-only intervals of use, from which bills are computed, and the incarnations that they belong to.
 *
 * INVARIANT: an incarnation's intervals are contiguous and numbered without gaps. The append and the move of the incarnation's cursor
 * are one batch, conditional on the old sequence number, so that a repeated or concurrent append changes nothing.
 */
import { bigintOf, integerOf, optionalIntegerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

/** One life of a container's cgroup on one host, with the cursor up to which it is metered. */
export interface Incarnation {
  readonly container: string;
  readonly incarnation: number;
  readonly tenant: string;
  readonly host: string;
  /** The container's name when the incarnation began: bills outlive containers. */
  readonly name: string;
  /** Path of the parent cgroup below each controller's mount. */
  readonly cgroup: string;
  /** Which cgroup of that path it is (`Cgroups.identityOf`); empty until one was seen. Counters of another one start from zero. */
  readonly cgroupIdentity: string;
  readonly openedMs: number;
  readonly closedMs: number | undefined;
  readonly seq: number;
  readonly meteredToMs: number;
  /** The cgroup's CPU counter at `meteredToMs`. */
  readonly cpuNs: number;
  /** The working set at `meteredToMs`. */
  readonly memoryBytes: number;
}

/** What was used between the cursor and `toMs`. */
export interface UsageInterval {
  readonly toMs: number;
  readonly cpuNs: number;
  readonly memoryByteMs: bigint;
  readonly requests: number;
  readonly ingressBytes: number;
  readonly egressBytes: number;
  readonly heldMs: number;
}

export interface LedgerRow extends UsageInterval {
  readonly container: string;
  readonly incarnation: number;
  readonly seq: number;
  readonly tenant: string;
  readonly host: string;
  readonly fromMs: number;
}

function incarnationOf(row: SqlRow): Incarnation {
  return {
    container: textOf(row, 'container'),
    incarnation: integerOf(row, 'incarnation'),
    tenant: textOf(row, 'tenant'),
    host: textOf(row, 'host'),
    name: textOf(row, 'name'),
    cgroup: textOf(row, 'cgroup'),
    cgroupIdentity: textOf(row, 'cgroup_identity'),
    openedMs: integerOf(row, 'opened_ms'),
    closedMs: optionalIntegerOf(row, 'closed_ms'),
    seq: integerOf(row, 'seq'),
    meteredToMs: integerOf(row, 'metered_to_ms'),
    cpuNs: integerOf(row, 'cpu_ns'),
    memoryBytes: integerOf(row, 'memory_bytes'),
  };
}

/** The write that opens an incarnation; part of the batch that places the container. */
export function openIncarnationWrite(incarnation: Incarnation): SqlWrite {
  const { container, tenant, host, name, cgroup, cgroupIdentity, openedMs, seq, meteredToMs, cpuNs, memoryBytes } = incarnation;
  return {
    sql: `INSERT INTO incarnation (container, incarnation, tenant, host, name, cgroup, cgroup_identity, opened_ms, closed_ms, seq, metered_to_ms,
            cpu_ns, memory_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)`,
    values: [
      container,
      incarnation.incarnation,
      tenant,
      host,
      name,
      cgroup,
      cgroupIdentity,
      openedMs,
      seq,
      meteredToMs,
      cpuNs,
      memoryBytes,
    ],
  };
}

/** The writes that append one interval; conflict where somebody else appended since `at` was read. */
export function appendIntervalWrites(
  at: Incarnation,
  interval: UsageInterval,
  now: { readonly cpuNs: number; readonly memoryBytes: number; readonly cgroupIdentity: string },
): readonly SqlWrite[] {
  const { container, incarnation, seq, tenant, host, meteredToMs } = at;
  return [
    {
      sql: `INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes,
              egress_bytes, held_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [
        container,
        incarnation,
        seq + 1,
        tenant,
        host,
        meteredToMs,
        interval.toMs,
        interval.cpuNs,
        interval.memoryByteMs,
        interval.requests,
        interval.ingressBytes,
        interval.egressBytes,
        interval.heldMs,
      ],
    },
    {
      sql: `UPDATE incarnation SET seq = ?, metered_to_ms = ?, cpu_ns = ?, memory_bytes = ?, cgroup_identity = ?
            WHERE container = ? AND incarnation = ? AND seq = ? AND closed_ms IS NULL`,
      values: [seq + 1, interval.toMs, now.cpuNs, now.memoryBytes, now.cgroupIdentity, container, incarnation, seq],
      expectRows: 1,
    },
  ];
}

/** The write that closes an incarnation for good. */
export function closeIncarnationWrite(container: string, incarnation: number, nowMs: number): SqlWrite {
  return {
    sql: 'UPDATE incarnation SET closed_ms = ? WHERE container = ? AND incarnation = ? AND closed_ms IS NULL',
    values: [nowMs, container, incarnation],
    expectRows: 1,
  };
}

/** Moves the CPU cursor without billing: work that the platform did inside the container's cgroup (a checkpoint that was rolled back). */
export async function forgiveCpu(sql: Sql, at: Incarnation, cpuNs: number): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'UPDATE incarnation SET cpu_ns = ? WHERE container = ? AND incarnation = ? AND seq = ? AND closed_ms IS NULL',
      values: [cpuNs, at.container, at.incarnation, at.seq],
      expectRows: 1,
    },
  ]);
}

export async function listOpenIncarnations(sql: Sql): Promise<readonly Incarnation[]> {
  return (await sql.read('SELECT * FROM incarnation WHERE closed_ms IS NULL', [])).map(incarnationOf);
}

export async function findIncarnation(sql: Sql, container: string, incarnation: number): Promise<Incarnation | undefined> {
  const [row] = await sql.read('SELECT * FROM incarnation WHERE container = ? AND incarnation = ?', [container, incarnation]);
  return row === undefined ? undefined : incarnationOf(row);
}

export interface LedgerFilter {
  readonly tenant: string | undefined;
  readonly sinceMs: number;
  readonly untilMs: number;
}

/** Ledger rows that begin in the window, with the container's name; the caller sums them, because sums can exceed 64 bits. */
export async function readLedger(sql: Sql, filter: LedgerFilter): Promise<readonly (LedgerRow & { readonly name: string })[]> {
  const rows = await sql.read(
    `SELECT ledger.*, incarnation.name AS name FROM ledger
     JOIN incarnation ON incarnation.container = ledger.container AND incarnation.incarnation = ledger.incarnation
     WHERE from_ms >= ? AND from_ms < ? AND (? = '' OR ledger.tenant = ?) ORDER BY ledger.container, ledger.incarnation, ledger.seq`,
    [filter.sinceMs, filter.untilMs, filter.tenant ?? '', filter.tenant ?? ''],
  );
  return rows.map((row) => ({
    container: textOf(row, 'container'),
    incarnation: integerOf(row, 'incarnation'),
    seq: integerOf(row, 'seq'),
    tenant: textOf(row, 'tenant'),
    host: textOf(row, 'host'),
    name: textOf(row, 'name'),
    fromMs: integerOf(row, 'from_ms'),
    toMs: integerOf(row, 'to_ms'),
    cpuNs: integerOf(row, 'cpu_ns'),
    memoryByteMs: bigintOf(row, 'memory_byte_ms'),
    requests: integerOf(row, 'requests'),
    ingressBytes: integerOf(row, 'ingress_bytes'),
    egressBytes: integerOf(row, 'egress_bytes'),
    heldMs: integerOf(row, 'held_ms'),
  }));
}
