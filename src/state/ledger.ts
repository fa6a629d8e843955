/**
 * The ledger's rows, and the incarnations that they belong to. Rows are written by `ledger-writer.ts` alone.
 *
 * INVARIANT: an incarnation's intervals are contiguous and numbered without gaps.
 */
import type { Quantities } from '#metering/ledger-chain.ts';
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
  /** The cgroup's CPU counter at `meteredToMs`. Beyond 2^53 (104 days of one processor) to a few nanoseconds: what is billed is its differences. */
  readonly cpuNs: number;
  /** The working set at `meteredToMs`. */
  readonly memoryBytes: number;
}

/** What was used between the cursor and `toMs`. */
export interface UsageInterval {
  readonly toMs: number;
  /** Before that nothing of it was used, as far as is known: it is in no hour before. Absent: from its beginning on. */
  readonly usedFromMs?: number;
  readonly cpuNs: number;
  readonly memoryByteMs: bigint;
  readonly requests: number;
  readonly ingressBytes: number;
  readonly egressBytes: number;
  readonly heldMs: number;
  readonly streamMs: number;
  /** Absent: none. */
  readonly snapshotByteMs?: bigint;
  readonly diskByteMs?: bigint;
}

/** The columns of what is counted. */
export const QUANTITY_COLUMNS = {
  cpuNs: 'cpu_ns',
  memoryByteMs: 'memory_byte_ms',
  requests: 'requests',
  ingressBytes: 'ingress_bytes',
  egressBytes: 'egress_bytes',
  heldMs: 'held_ms',
  snapshotByteMs: 'snapshot_byte_ms',
  diskByteMs: 'disk_byte_ms',
  streamMs: 'stream_ms',
} as const satisfies Readonly<Record<keyof Quantities, string>>;

export interface LedgerRow extends UsageInterval {
  readonly container: string;
  readonly incarnation: number;
  readonly seq: number;
  readonly tenant: string;
  readonly host: string;
  readonly fromMs: number;
}

/** What a row counts, as integers of any size. */
export function quantitiesOf(row: UsageInterval): Quantities {
  return {
    cpuNs: BigInt(row.cpuNs),
    memoryByteMs: row.memoryByteMs,
    requests: BigInt(row.requests),
    ingressBytes: BigInt(row.ingressBytes),
    egressBytes: BigInt(row.egressBytes),
    heldMs: BigInt(row.heldMs),
    snapshotByteMs: row.snapshotByteMs ?? 0n,
    diskByteMs: row.diskByteMs ?? 0n,
    streamMs: BigInt(row.streamMs),
  };
}

/** A row of the ledger from its columns. */
export function ledgerRowOf(row: SqlRow): LedgerRow {
  return {
    container: textOf(row, 'container'),
    incarnation: integerOf(row, 'incarnation'),
    seq: integerOf(row, 'seq'),
    tenant: textOf(row, 'tenant'),
    host: textOf(row, 'host'),
    fromMs: integerOf(row, 'from_ms'),
    toMs: integerOf(row, 'to_ms'),
    cpuNs: integerOf(row, 'cpu_ns'),
    memoryByteMs: bigintOf(row, 'memory_byte_ms'),
    requests: integerOf(row, 'requests'),
    ingressBytes: integerOf(row, 'ingress_bytes'),
    egressBytes: integerOf(row, 'egress_bytes'),
    heldMs: integerOf(row, 'held_ms'),
    streamMs: integerOf(row, 'stream_ms'),
    snapshotByteMs: bigintOf(row, 'snapshot_byte_ms'),
    diskByteMs: bigintOf(row, 'disk_byte_ms'),
  };
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
    cpuNs: Number(bigintOf(row, 'cpu_ns')),
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

/** The last incarnation of a container; undefined: there never was one. */
export async function lastIncarnation(sql: Sql, container: string): Promise<Incarnation | undefined> {
  const [row] = await sql.read('SELECT * FROM incarnation WHERE container = ? ORDER BY incarnation DESC LIMIT 1', [container]);
  return row === undefined ? undefined : incarnationOf(row);
}

/** The last incarnation of each container that has this name, or whose id begins with it. `tenant` empty: of any. */
export async function latestIncarnations(sql: Sql, tenant: string, reference: string): Promise<readonly Incarnation[]> {
  const rows = await sql.read(
    `SELECT * FROM incarnation AS i WHERE (? = '' OR tenant = ?) AND (name = ? OR (length(?) >= 12 AND substr(container, 1, length(?)) = ?))
     AND incarnation = (SELECT MAX(incarnation) FROM incarnation WHERE container = i.container) ORDER BY opened_ms DESC LIMIT 10`,
    [tenant, tenant, reference, reference, reference, reference],
  );
  return rows.map(incarnationOf);
}

/** SQL: the last name that a container or volume of a row had; empty where it is not known. */
export function nameOfContainer(column: string): string {
  return `COALESCE((SELECT name FROM incarnation WHERE container = ${column} ORDER BY incarnation DESC LIMIT 1),
    (SELECT name FROM disk_use WHERE id = ${column}), '')`;
}

export interface RowsQuery {
  /** Empty: all. */
  readonly tenant: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

/** Rows that begin in a span of time, with the container's name. `not-summed`: that are not in the sums of `usage-rollups.ts` yet. */
export async function readNamedRows(
  sql: Sql,
  { tenant, fromMs, untilMs }: RowsQuery,
  which: 'all' | 'not-summed',
): Promise<readonly (LedgerRow & { readonly name: string })[]> {
  const condition: Readonly<Record<typeof which, string>> = {
    all: '',
    'not-summed': 'AND ledger.number > ledger_chain.rolled',
  };
  // A plus keeps the planner from the index by time: there are few rows at a chain's end.
  const fromMsColumn = which === 'not-summed' ? '+ledger.from_ms' : 'ledger.from_ms';
  const rows = await sql.read(
    `SELECT ledger.*, ${nameOfContainer('ledger.container')} AS name
     FROM ledger_chain
     CROSS JOIN ledger ON ledger.tenant = ledger_chain.tenant ${condition[which]}
     WHERE (? = '' OR ledger_chain.tenant = ?) AND ${fromMsColumn} >= ? AND ${fromMsColumn} < ?
     ORDER BY ledger.container, ledger.incarnation, ledger.seq`,
    [tenant, tenant, fromMs, untilMs],
  );
  return rows.map((row) => ({ ...ledgerRowOf(row), name: textOf(row, 'name') }));
}
