/**
 * Appends to the ledger: each row with its number and hash in its tenant's chain, the chain's new end and the incarnation's new cursor, in one batch.
 *
 * INVARIANTS: a chain neither forks nor lags, because its end is a row that the batch moves on condition; a repeated or concurrent append changes
 * nothing, because the incarnation's cursor is moved on condition, too. No interval crosses a full hour: prices change on the hour, so what was used is
 * priced without being divided again.
 *
 * Appends wait for each other here, and those that wait are written together: a commit costs a write to the disk, whatever is in it.
 */
import { CHAIN_START, extendChain } from '#metering/ledger-chain.ts';
import type { ChainPoint, ChainRow, LooseRow, RowKind, StoredKind } from '#metering/ledger-chain.ts';
import { totalTexts, totalsOf } from '#metering/ledger-export.ts';
import { piecesOf } from '#metering/hour-pieces.ts';
import { quantitiesOf } from './ledger.ts';
import type { Incarnation, UsageInterval } from './ledger.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite } from './sql.ts';

/** The counters at the end of an interval. */
export interface MeterPoint {
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly cgroupIdentity: string;
}

/** `conflict`: somebody else appended since `at` was read, or it is closed. */
export type AppendOutcome = { readonly kind: 'done'; readonly at: Incarnation } | { readonly kind: 'conflict' };

export interface Correction {
  readonly tenant: string;
  readonly container: string;
  readonly incarnation: number;
  readonly host: string;
  readonly fromMs: number;
  readonly interval: UsageInterval;
  readonly reason: string;
}

/** What was on disk for a time. */
export interface Stored {
  readonly kind: StoredKind;
  readonly tenant: string;
  /** Or a volume, as `volume/ID`. */
  readonly container: string;
  readonly host: string;
  readonly byteMs: bigint;
  readonly fromMs: number;
  readonly toMs: number;
}

interface Item {
  readonly tenant: string;
  /** The rows, numbered within their incarnation. */
  readonly rows: (sql: Sql) => Promise<readonly LooseRow[]>;
  /** What else is written with them. */
  readonly after: readonly SqlWrite[];
  readonly settle: (outcome: 'done' | 'conflict') => void;
  readonly fail: (reason: unknown) => void;
  /** What its rows are depends on the rows before: it is a batch of its own. */
  readonly alone: boolean;
}

/** Rows of one batch: a few milliseconds in which nothing else is done. */
const BATCH_MAX = 200;
/** Another process than this one writes for moments only, while a node is replaced. */
const ATTEMPTS_MAX = 20;

export class LedgerWriter {
  readonly #sql: Sql;
  readonly #queue: Item[] = [];
  #isWriting = false;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** Appends what was used between the cursor and the interval's end, with `also` in the same batch. */
  async append(
    at: Incarnation,
    interval: UsageInterval,
    now: MeterPoint,
    also: readonly SqlWrite[] = [],
  ): Promise<AppendOutcome> {
    return await new Promise((resolve, reject) => {
      this.#add(appendItem({ at, interval, now, also }, resolve, reject));
    });
  }

  /** Appends a row that adds to what was written, or takes from it. The intervals themselves stay as they are. */
  async correct(correction: Correction, also: readonly SqlWrite[] = []): Promise<'done' | 'conflict'> {
    return await new Promise((resolve, reject) => {
      this.#add({
        tenant: correction.tenant,
        rows: async (sql) => await correctionRows(sql, correction),
        after: also,
        settle: resolve,
        fail: reject,
        alone: true,
      });
    });
  }

  /**
   * Appends what was on disk since that was metered last, and moves by `cursor` up to when it is. Conflict: it is gone, or was metered by somebody else.
   * Whoever calls waits for one of a container before the next: rows are numbered by those that are there.
   */
  async store(stored: Stored, cursor: SqlWrite): Promise<'done' | 'conflict'> {
    return await new Promise((resolve, reject) => {
      this.#add({
        tenant: stored.tenant,
        rows: async (sql) => await storedRows(sql, stored),
        after: [cursor],
        settle: resolve,
        fail: reject,
        alone: false,
      });
    });
  }

  #add(item: Item): void {
    this.#queue.push(item);
    if (this.#isWriting) return;
    this.#isWriting = true;
    void this.#drain();
  }

  async #drain(): Promise<void> {
    // What is appended in this turn goes into the first batch.
    await new Promise(setImmediate);
    while (this.#queue.length > 0) {
      const alone = this.#queue.findIndex((item) => item.alone);
      const items = this.#queue.splice(0, alone === -1 ? BATCH_MAX : Math.min(BATCH_MAX, Math.max(1, alone)));
      try {
        await this.#write(items);
      } catch (error) {
        for (const item of items) item.fail(error);
      }
    }
    this.#isWriting = false;
  }

  /** Writes items until each is written or refused. */
  async #write(items: readonly Item[]): Promise<void> {
    let left = items;
    for (let attempt = 1; left.length > 0; attempt += 1) {
      const batch = await batchOf(this.#sql, left);
      const outcome = await this.#sql.write(batch.writes);
      if (outcome.kind === 'done') {
        for (const { item } of batch.parts) item.settle('done');
        return;
      }
      const refused = batch.parts.find(({ from, until }) => outcome.index >= from && outcome.index < until);
      if (refused === undefined) {
        // The chain's end was moved by somebody else: everything is numbered anew.
        if (attempt >= ATTEMPTS_MAX) throw new Error('the chain of the ledger was moved again and again');
        continue;
      }
      refused.item.settle('conflict');
      left = left.filter((item) => item !== refused.item);
    }
  }
}

interface Batch {
  readonly writes: readonly SqlWrite[];
  /** Which writes are which item's: `from` to before `until`. */
  readonly parts: readonly {
    readonly item: Item;
    readonly from: number;
    readonly until: number;
  }[];
}

async function batchOf(sql: Sql, items: readonly Item[]): Promise<Batch> {
  const before = new Map<string, ChainPoint>();
  for (const { tenant } of items) if (!before.has(tenant)) before.set(tenant, await readChain(sql, tenant));
  const now = new Map(before);
  const perItem: { readonly item: Item; readonly writes: readonly SqlWrite[] }[] = [];
  for (const item of items) {
    const rows = await item.rows(sql);
    const inserts = rows.map((row) => {
      const next = extendChain(now.get(item.tenant) ?? CHAIN_START, row);
      now.set(item.tenant, next.at);
      return insertRowWrite(next.row, next.at.hash);
    });
    perItem.push({ item, writes: [...inserts, ...item.after] });
  }
  const writes: SqlWrite[] = [...now].map(([tenant, at]) => moveChainWrite(tenant, before.get(tenant) ?? CHAIN_START, at));
  const parts = perItem.map(({ item, writes: own }) => {
    const from = writes.length;
    writes.push(...own);
    return { item, from, until: writes.length };
  });
  return { writes, parts };
}

export async function readChain(sql: Sql, tenant: string): Promise<ChainPoint> {
  const [row] = await sql.read('SELECT number, hash, totals FROM ledger_chain WHERE tenant = ?', [tenant]);
  return row === undefined ? CHAIN_START : chainPointOf(row);
}

export function chainPointOf(row: SqlRow): ChainPoint {
  const totals: unknown = JSON.parse(textOf(row, 'totals'));
  if (typeof totals !== 'object' || totals === null) throw new TypeError('state: the sums of a chain are no JSON object');
  return { number: integerOf(row, 'number'), hash: textOf(row, 'hash'), totals: totalsOf({ ...totals }) };
}

/** Moves a chain's end from where it was read to stand. */
export function moveChainWrite(tenant: string, before: ChainPoint, after: ChainPoint): SqlWrite {
  const totals = JSON.stringify(totalTexts(after.totals));
  return before.number === 0
    ? {
        sql: 'INSERT INTO ledger_chain (tenant, number, hash, totals, rolled, dropped) VALUES (?, ?, ?, ?, 0, 0)',
        values: [tenant, after.number, after.hash, totals],
        expectRows: 1,
      }
    : {
        sql: 'UPDATE ledger_chain SET number = ?, hash = ?, totals = ? WHERE tenant = ? AND number = ? AND hash = ?',
        values: [after.number, after.hash, totals, tenant, before.number, before.hash],
        expectRows: 1,
      };
}

function insertRowWrite(row: ChainRow, hash: string): SqlWrite {
  return {
    sql: `INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes,
            egress_bytes, held_ms, snapshot_byte_ms, disk_byte_ms, stream_ms, format, number, kind, reason, hash)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    values: [
      row.container,
      row.incarnation,
      row.seq,
      row.tenant,
      row.host,
      row.fromMs,
      row.toMs,
      row.cpuNs,
      row.memoryByteMs,
      row.requests,
      row.ingressBytes,
      row.egressBytes,
      row.heldMs,
      row.snapshotByteMs,
      row.diskByteMs,
      row.streamMs,
      row.format,
      row.number,
      row.kind,
      row.reason,
      hash,
    ],
  };
}

type Placed = Pick<Incarnation, 'tenant' | 'container' | 'incarnation' | 'host'>;

/** The rows of an interval, one for each hour that it touches. */
function rowsOf(
  { tenant, container, incarnation, host }: Placed,
  interval: UsageInterval & { readonly fromMs: number },
  kind: { readonly kind: RowKind; readonly reason: string; readonly seqOf: (index: number) => number },
): readonly LooseRow[] {
  return piecesOf(interval.fromMs, interval.toMs, quantitiesOf(interval), interval.usedFromMs).map((piece, index) => ({
    ...piece,
    tenant,
    container,
    incarnation,
    host,
    kind: kind.kind,
    reason: kind.reason,
    seq: kind.seqOf(index),
  }));
}

interface Appending {
  readonly at: Incarnation;
  readonly interval: UsageInterval;
  readonly now: MeterPoint;
  readonly also: readonly SqlWrite[];
}

function appendItem(
  { at, interval, now, also }: Appending,
  resolve: (outcome: AppendOutcome) => void,
  reject: (reason: unknown) => void,
): Item {
  const seqOf = (index: number): number => at.seq + 1 + index;
  const rows = rowsOf(at, { ...interval, fromMs: at.meteredToMs }, { kind: 'interval', reason: '', seqOf });
  const moved: Incarnation = { ...at, seq: at.seq + rows.length, meteredToMs: interval.toMs, ...now };
  return {
    tenant: at.tenant,
    rows: async () => rows,
    after: [
      {
        sql: `UPDATE incarnation SET seq = ?, metered_to_ms = ?, cpu_ns = ?, memory_bytes = ?, cgroup_identity = ?
              WHERE container = ? AND incarnation = ? AND seq = ? AND closed_ms IS NULL`,
        values: [
          moved.seq,
          moved.meteredToMs,
          moved.cpuNs,
          moved.memoryBytes,
          moved.cgroupIdentity,
          at.container,
          at.incarnation,
          at.seq,
        ],
        expectRows: 1,
      },
      ...also,
    ],
    settle: (outcome) => {
      resolve(outcome === 'done' ? { kind: 'done', at: moved } : { kind: 'conflict' });
    },
    fail: reject,
    alone: false,
  };
}

const NOTHING: Omit<UsageInterval, 'toMs'> = {
  cpuNs: 0,
  memoryByteMs: 0n,
  requests: 0,
  ingressBytes: 0,
  egressBytes: 0,
  heldMs: 0,
  streamMs: 0,
};

/** What a column holds: an hour of 1.2 TiB. More of it is several rows, each of a part of the time. */
const ROW_BYTE_MS_MAX = 2n ** 62n;

/** What is on disk has no incarnation: all of a container's is numbered together. */
async function storedRows(sql: Sql, stored: Stored): Promise<readonly LooseRow[]> {
  const { fromMs, toMs, byteMs, kind: of } = stored;
  const [row] = await sql.read('SELECT MAX(seq) AS most FROM ledger WHERE container = ? AND incarnation = 0', [stored.container]);
  const most = row === undefined || row['most'] === null ? 0 : Math.max(0, integerOf(row, 'most'));
  const parts = byteMs / ROW_BYTE_MS_MAX + 1n;
  const rows: LooseRow[] = [];
  for (let part = 0n; part < parts; part += 1n) {
    const amount = (byteMs * (part + 1n)) / parts - (byteMs * part) / parts;
    const span = [part, part + 1n].map((at) => fromMs + Number((BigInt(toMs - fromMs) * at) / parts));
    const interval = { ...NOTHING, ...(of === 'disk' ? { diskByteMs: amount } : { snapshotByteMs: amount }) };
    const from = most + 1 + rows.length;
    const kind = { kind: of, reason: '', seqOf: (index: number) => from + index };
    rows.push(...rowsOf({ ...stored, incarnation: 0 }, { ...interval, fromMs: span[0] ?? fromMs, toMs: span[1] ?? toMs }, kind));
  }
  return rows;
}

async function correctionRows(sql: Sql, correction: Correction): Promise<readonly LooseRow[]> {
  const { container, incarnation, interval, fromMs, reason } = correction;
  const [row] = await sql.read('SELECT MIN(seq) AS least FROM ledger WHERE container = ? AND incarnation = ?', [
    container,
    incarnation,
  ]);
  const least = row === undefined || row['least'] === null ? 0 : Math.min(0, integerOf(row, 'least'));
  return rowsOf(correction, { ...interval, fromMs }, { kind: 'correction', reason, seqOf: (index) => least - 1 - index });
}
