/** Looks a chain through, row by row and head by head, and says the first thing that does not fit. Pure. */
import type { KeyObject } from 'node:crypto';
import {
  addQuantities,
  FROM_BEFORE,
  hasLaterQuantities,
  isRowFormat,
  QUANTITY_NAMES,
  rowHash,
  sameTotals,
  shortId,
} from './ledger-chain.ts';
import type { ChainPoint, ChainRow, RowKind } from './ledger-chain.ts';
import { isSigned } from './ledger-head.ts';
import type { LedgerHead } from './ledger-head.ts';

export interface ChainFault {
  /** The row at or after which it does not fit. */
  readonly number: number;
  /** What does not fit and what that means, in one line. */
  readonly text: string;
  /** What to do, where that is not to compare the store with a backup. */
  readonly mend?: string;
}

/** A row as it is kept: with the hash that it should have. */
export type HashedRow = ChainRow & { readonly hash: string };

export interface ChainCheck {
  /** The next row of the chain. */
  readonly row: (row: HashedRow) => ChainFault | undefined;
  /** A head whose row was the last one. */
  readonly head: (head: LedgerHead) => ChainFault | undefined;
  /** A head of rows that are not looked at. */
  readonly earlierHead: (head: LedgerHead) => ChainFault | undefined;
  readonly at: () => ChainPoint;
  readonly counts: () => {
    readonly rows: number;
    readonly heads: number;
    readonly fromBefore: number;
    readonly corrections: number;
  };
}

export interface ChainCheckOptions {
  readonly tenant: string;
  /** Where the chain goes on from: its start, or a head. */
  readonly from: ChainPoint;
  /** Public keys by id. A head that none of them signed does not fit. */
  readonly keys: ReadonlyMap<string, KeyObject>;
}

/** Where an incarnation's intervals ended so far. */
interface Ended {
  readonly seq: number;
  readonly toMs: number;
}

export function createChainCheck({ tenant, from, keys }: ChainCheckOptions): ChainCheck {
  let at = from;
  let [rows, heads, fromBefore, corrections] = [0, 0, 0, 0];
  const ended = new Map<string, Ended>();
  return {
    row: (row) => {
      const key = `${row.container} ${String(row.incarnation)}`;
      const why = rowFault(row, tenant, at) ?? orderFault(row, row.kind === 'interval' ? ended.get(key) : undefined);
      if (why !== undefined) return { number: row.number, text: `row ${String(row.number)}: ${why}` };
      at = { number: row.number, hash: row.hash, totals: addQuantities({ ...at.totals, rows: at.totals.rows + 1n }, row) };
      rows += 1;
      if (row.reason === FROM_BEFORE) fromBefore += 1;
      if (row.kind === 'correction') corrections += 1;
      else if (row.kind === 'interval') ended.set(key, { seq: row.seq, toMs: row.toMs });
      return undefined;
    },
    head: (head) => {
      const why = headFault(head, tenant, at, keys);
      if (why !== undefined) return headMisfit(head, { number: at.number, why }, keys);
      heads += 1;
      return undefined;
    },
    earlierHead: (head) => {
      const why = signatureFault(head, tenant, keys);
      return why === undefined ? undefined : headMisfit(head, { number: head.number, why }, keys);
    },
    at: () => at,
    counts: () => ({ rows, heads, fromBefore, corrections }),
  };
}

/** Whether all heads of a chain are there, in their order: `count` of them, or more that came meanwhile. */
export function missingHead(heads: readonly LedgerHead[], count: number): ChainFault | undefined {
  let isCounted = false;
  for (const [index, { day, number, sequence }] of heads.entries()) {
    isCounted ||= sequence > 0;
    if (isCounted && sequence !== index + 1)
      return {
        number,
        text: `head of ${day}: it is head ${String(sequence)} of the chain, and there are ${String(index)} before it`,
      };
  }
  if (heads.length >= count) return undefined;
  const number = heads.at(-1)?.number ?? 0;
  return { number, text: `the chain has ${String(count)} heads, and ${String(heads.length)} of them are there` };
}

function rowFault(row: HashedRow, tenant: string, before: ChainPoint): string | undefined {
  const next = before.number + 1;
  if (row.number > next) {
    const missing = next === row.number - 1 ? `row ${String(next)} is` : `rows ${String(next)} to ${String(row.number - 1)} are`;
    return `${missing} missing before it`;
  }
  if (row.number < next) return `it stands where row ${String(next)} should be: rows were moved or repeated`;
  if (row.tenant !== tenant) return `it is of tenant ${row.tenant}, in the chain of ${tenant}`;
  if (!isRowFormat(row.format)) return `it is of the unknown format ${String(row.format)}`;
  if (row.format === 1 && hasLaterQuantities(row))
    return 'it has something that rows of its format have not: a field of it was changed';
  if (rowHash(row, before.hash) !== row.hash)
    return 'its hash is not that of its fields and the hash before it: a field of it, its hash, or the row before it was changed';
  return undefined;
}

const ROW_KINDS: ReadonlySet<string> = new Set<RowKind>(['interval', 'snapshot', 'disk']);

function orderFault(row: HashedRow, last: Ended | undefined): string | undefined {
  if (row.toMs < row.fromMs) return 'it ends before it begins';
  if (row.kind === 'correction') {
    if (row.reason === '') return 'it is a correction without a reason';
    return row.seq < 0 ? undefined : 'it is a correction with the number of an interval';
  }
  if (!ROW_KINDS.has(row.kind)) return `it is of the unknown kind ${row.kind}`;
  if (QUANTITY_NAMES.some((name) => row[name] < 0n)) return 'it is an interval with less than nothing';
  if (last === undefined) return undefined;
  const of = `incarnation ${String(row.incarnation)} of container ${shortId(row.container)}`;
  if (row.seq !== last.seq + 1) return `it has sequence number ${String(row.seq)} after ${String(last.seq)} of ${of}`;
  return row.fromMs === last.toMs ? undefined : `it begins at another time than the interval before it of ${of} ends`;
}

const FOREIGN_KEY =
  'compare what it says with an export that its tenant kept; if the key was of this node once, restore tls/ledger.keys from a backup, else the ledger was signed anew by somebody else';

function headMisfit(
  head: LedgerHead,
  { number, why }: { readonly number: number; readonly why: string },
  keys: ReadonlyMap<string, KeyObject>,
): ChainFault {
  const misfit = { number, text: `head of ${head.day}: ${why}` };
  return keys.has(head.key) ? misfit : { ...misfit, mend: FOREIGN_KEY };
}

function headFault(head: LedgerHead, tenant: string, at: ChainPoint, keys: ReadonlyMap<string, KeyObject>): string | undefined {
  const unsigned = signatureFault(head, tenant, keys);
  if (unsigned !== undefined) return unsigned;
  if (head.number !== at.number) {
    return head.number > at.number
      ? `it is about row ${String(head.number)}, and rows after ${String(at.number)} are missing`
      : `it is about row ${String(head.number)}, and stands after row ${String(at.number)}`;
  }
  if (head.hash !== at.hash) return `the chain had another row ${String(at.number)} when it was signed`;
  return sameTotals(head.totals, at.totals) ? undefined : 'its sums are not those of the rows';
}

function signatureFault(head: LedgerHead, tenant: string, keys: ReadonlyMap<string, KeyObject>): string | undefined {
  if (head.tenant !== tenant) return `it is of tenant ${head.tenant}, in the chain of ${tenant}`;
  const key = keys.get(head.key);
  if (key === undefined)
    return `it is signed by another key (${head.key.slice(0, 16)}), which is none that this node has signed with`;
  if (!isSigned(head, key)) return 'its signature is not of what it says: it was changed, or another key signed it';
  return undefined;
}
