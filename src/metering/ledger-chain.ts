/**
 * The chain of a tenant's ledger: every row has a number and a hash over its fields and the hash before it, so that no row can be changed, removed,
 * added or moved without every later hash changing. Pure.
 *
 * The canonical text of a row is a JSON array of strings, without spaces, with JSON's own escapes, in UTF-8; its hash is SHA-256 in small hex digits:
 *
 *   ["ecluse-ledger-row-2", BEFORE, TENANT, NUMBER, KIND, REASON, CONTAINER, INCARNATION, SEQ, HOST, FROM_MS, TO_MS, CPU_NS, MEMORY_BYTE_MS, REQUESTS,
 *    INGRESS_BYTES, EGRESS_BYTES, HELD_MS, SNAPSHOT_BYTE_MS, DISK_BYTE_MS, STREAM_MS]
 *
 * BEFORE is the hash of the row with the number before it, for number 1 sixty-four zeros. Integers are written in decimal digits. Rows from before disks and
 * streams were counted begin with `ecluse-ledger-row-1` and end with SNAPSHOT_BYTE_MS. Whoever changes this gives it another name than
 * `ecluse-ledger-row-2`: hashes that were made stay as they are.
 */
import { hash } from 'node:crypto';

/** The format of rows that are written today. */
export const ROW_FORMAT = 2;
const ROW_FORMATS: ReadonlyMap<number, string> = new Map([
  [1, 'ecluse-ledger-row-1'],
  [ROW_FORMAT, 'ecluse-ledger-row-2'],
]);
export const FIRST_HASH = '0'.repeat(64);
/** The reason of rows that were in the ledger before it had a chain: the chain proves nothing about the time before it took them up. */
export const FROM_BEFORE = 'from before the chain';

/**
 * An interval of a container that runs; what a snapshot of it was on disk, or what it or a volume (`volume/ID`) was there, with incarnation 0. A correction
 * adds to, or takes from, what the intervals of its container say. It is numbered down from -1 within its incarnation.
 */
export type RowKind = 'interval' | StoredKind | 'correction';
export type StoredKind = 'snapshot' | 'disk';

/** What is counted. A correction can be negative. */
export interface Quantities {
  readonly cpuNs: bigint;
  readonly memoryByteMs: bigint;
  readonly requests: bigint;
  readonly ingressBytes: bigint;
  readonly egressBytes: bigint;
  readonly heldMs: bigint;
  readonly snapshotByteMs: bigint;
  /** Of what a container wrote to its file system, and of volumes. */
  readonly diskByteMs: bigint;
  /** Of connections that changed their protocol, streams of events and connections of published ports, each for itself. */
  readonly streamMs: bigint;
}

/** What rows and heads had from the beginning. */
export const FIRST_QUANTITY_NAMES = [
  'cpuNs',
  'memoryByteMs',
  'requests',
  'ingressBytes',
  'egressBytes',
  'heldMs',
  'snapshotByteMs',
] as const satisfies readonly (keyof Quantities)[];
const LATER_QUANTITY_NAMES = ['diskByteMs', 'streamMs'] as const satisfies readonly (keyof Quantities)[];
export const QUANTITY_NAMES = [...FIRST_QUANTITY_NAMES, ...LATER_QUANTITY_NAMES] as const;

/** One of each. */
export function mapQuantities<T>(of: (name: keyof Quantities) => T): Readonly<Record<keyof Quantities, T>> {
  return {
    cpuNs: of('cpuNs'),
    memoryByteMs: of('memoryByteMs'),
    requests: of('requests'),
    ingressBytes: of('ingressBytes'),
    egressBytes: of('egressBytes'),
    heldMs: of('heldMs'),
    snapshotByteMs: of('snapshotByteMs'),
    diskByteMs: of('diskByteMs'),
    streamMs: of('streamMs'),
  };
}

/** Whether it has something that only later formats cover. */
export function hasLaterQuantities(quantities: Quantities): boolean {
  return LATER_QUANTITY_NAMES.some((name) => quantities[name] !== 0n);
}

export interface ChainRow extends Quantities {
  /** What its hash is over. */
  readonly format: number;
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

const VOLUME = 'volume/';
const SHORT_ID = 12;

/** What stands for a volume in the place of a container. */
export function volumeKey(id: string): string {
  return `${VOLUME}${id}`;
}

export function isVolumeKey(container: string): boolean {
  return container.startsWith(VOLUME);
}

/** Undefined: it is none of a volume. */
export function volumeOfKey(container: string): string | undefined {
  return isVolumeKey(container) ? container.slice(VOLUME.length) : undefined;
}

/** For people. */
export function shortId(container: string): string {
  return container.slice(0, isVolumeKey(container) ? VOLUME.length + SHORT_ID : SHORT_ID);
}

/** For people: `name` is empty where it is not known. */
export function resourceName({ container, name }: { readonly container: string; readonly name: string }): string {
  if (name === '') return shortId(container);
  return isVolumeKey(container) ? `volume ${name}` : name;
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

export const NO_TOTALS: ChainTotals = { rows: 0n, ...mapQuantities(() => 0n) };
export const CHAIN_START: ChainPoint = { number: 0, hash: FIRST_HASH, totals: NO_TOTALS };

export function isRowFormat(format: number): boolean {
  return ROW_FORMATS.has(format);
}

export function rowHash(row: ChainRow, before: string): string {
  const names = row.format === 1 ? FIRST_QUANTITY_NAMES : QUANTITY_NAMES;
  const fields = [
    ROW_FORMATS.get(row.format) ?? '',
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
    ...names.map((name) => row[name]),
  ];
  return hash('sha256', JSON.stringify(fields.map(String)), 'hex');
}

export function addQuantities<T extends Quantities>(to: T, more: Quantities): T {
  return { ...to, ...mapQuantities((name) => to[name] + more[name]) };
}

/** A row that has no place in a chain yet. */
export type LooseRow = Omit<ChainRow, 'number' | 'format'>;

/** The chain with one more row. The row's number is the next one. */
export function extendChain(at: ChainPoint, row: LooseRow): { readonly row: ChainRow; readonly at: ChainPoint } {
  const numbered: ChainRow = { ...row, format: ROW_FORMAT, number: at.number + 1 };
  const totals = addQuantities({ ...at.totals, rows: at.totals.rows + 1n }, numbered);
  return { row: numbered, at: { number: numbered.number, hash: rowHash(numbered, at.hash), totals } };
}

export function sameTotals(one: ChainTotals, other: ChainTotals): boolean {
  return one.rows === other.rows && QUANTITY_NAMES.every((name) => one[name] === other[name]);
}
