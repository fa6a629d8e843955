/**
 * The chain of a tenant's ledger: every row has a number and a hash over its fields and the hash before it, so that no row can be changed, removed,
 * added or moved without every later hash changing. Pure.
 *
 * The canonical text of a row is a JSON array of strings, without spaces, with JSON's own escapes, in UTF-8; its hash is SHA-256 in small hex digits:
 *
 *   ["ecluse-ledger-row-1", BEFORE, TENANT, NUMBER, KIND, REASON, CONTAINER, INCARNATION, SEQ, HOST, FROM_MS, TO_MS, CPU_NS, MEMORY_BYTE_MS, REQUESTS,
 *    INGRESS_BYTES, EGRESS_BYTES, HELD_MS, SNAPSHOT_BYTE_MS]
 *
 * BEFORE is the hash of the row with the number before it, for number 1 sixty-four zeros. Integers are written in decimal digits. Whoever changes this
 * gives it another name than `ecluse-ledger-row-1`: hashes that were made stay as they are.
 */
import { hash } from 'node:crypto';

const ROW_FORMAT = 'ecluse-ledger-row-1';
export const FIRST_HASH = '0'.repeat(64);
/** The reason of rows that were in the ledger before it had a chain: the chain proves nothing about the time before it took them up. */
export const FROM_BEFORE = 'from before the chain';

/**
 * An interval of a container that runs; what a snapshot of it was on disk, with incarnation 0. A correction adds to, or takes from, what the intervals of its container say. It
 * is numbered down from -1 within its incarnation.
 */
export type RowKind = 'interval' | 'snapshot' | 'correction';

/** What is counted. A correction can be negative. */
export interface Quantities {
  readonly cpuNs: bigint;
  readonly memoryByteMs: bigint;
  readonly requests: bigint;
  readonly ingressBytes: bigint;
  readonly egressBytes: bigint;
  readonly heldMs: bigint;
  readonly snapshotByteMs: bigint;
}

export const QUANTITY_NAMES = [
  'cpuNs',
  'memoryByteMs',
  'requests',
  'ingressBytes',
  'egressBytes',
  'heldMs',
  'snapshotByteMs',
] as const satisfies readonly (keyof Quantities)[];

export interface ChainRow extends Quantities {
  readonly tenant: string;
  /** From 1, without gaps. */
  readonly number: number;
  /** A `RowKind`, unless somebody changed it. */
  readonly kind: string;
  /** Why there is a correction; of an interval empty, or `FROM_BEFORE`. */
  readonly reason: string;
  readonly container: string;
  readonly incarnation: number;
  readonly seq: number;
  readonly host: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** Everything up to a row. */
export interface ChainTotals extends Quantities {
  readonly rows: bigint;
}

/** Where a chain stands: its last row, and the sums up to it. */
export interface ChainPoint {
  readonly number: number;
  readonly hash: string;
  readonly totals: ChainTotals;
}

export const NO_TOTALS: ChainTotals = {
  rows: 0n,
  cpuNs: 0n,
  memoryByteMs: 0n,
  requests: 0n,
  ingressBytes: 0n,
  egressBytes: 0n,
  heldMs: 0n,
  snapshotByteMs: 0n,
};
export const CHAIN_START: ChainPoint = { number: 0, hash: FIRST_HASH, totals: NO_TOTALS };

export function rowHash(row: ChainRow, before: string): string {
  const fields = [
    ROW_FORMAT,
    before,
    row.tenant,
    row.number,
    row.kind,
    row.reason,
    row.container,
    row.incarnation,
    row.seq,
    row.host,
    row.fromMs,
    row.toMs,
    ...QUANTITY_NAMES.map((name) => row[name]),
  ];
  return hash('sha256', JSON.stringify(fields.map(String)), 'hex');
}

export function addQuantities<T extends Quantities>(to: T, more: Quantities): T {
  return {
    ...to,
    cpuNs: to.cpuNs + more.cpuNs,
    memoryByteMs: to.memoryByteMs + more.memoryByteMs,
    requests: to.requests + more.requests,
    ingressBytes: to.ingressBytes + more.ingressBytes,
    egressBytes: to.egressBytes + more.egressBytes,
    heldMs: to.heldMs + more.heldMs,
    snapshotByteMs: to.snapshotByteMs + more.snapshotByteMs,
  };
}

/** The chain with one more row. The row's number is the next one. */
export function extendChain(at: ChainPoint, row: Omit<ChainRow, 'number'>): { readonly row: ChainRow; readonly at: ChainPoint } {
  const numbered: ChainRow = { ...row, number: at.number + 1 };
  const totals = addQuantities({ ...at.totals, rows: at.totals.rows + 1n }, numbered);
  return { row: numbered, at: { number: numbered.number, hash: rowHash(numbered, at.hash), totals } };
}

export function sameTotals(one: ChainTotals, other: ChainTotals): boolean {
  return one.rows === other.rows && QUANTITY_NAMES.every((name) => one[name] === other[name]);
}
