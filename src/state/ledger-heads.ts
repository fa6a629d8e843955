/** The chains of the ledger as they are kept: their rows, their signed heads, and the public halves of the keys that signed. */
import { extendChain, FROM_BEFORE, ROW_FORMAT } from '#metering/ledger-chain.ts';
import type { ChainPoint, LooseRow } from '#metering/ledger-chain.ts';
import type { HashedRow } from '#metering/chain-check.ts';
import { totalTexts } from '#metering/ledger-export.ts';
import type { LedgerHead, LedgerKey } from '#metering/ledger-head.ts';
import { ledgerRowOf, quantitiesOf } from './ledger.ts';
import { chainPointOf, moveChainWrite, readChain } from './ledger-writer.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

/** A chain, with how far it was summed up and how far its rows were dropped. */
export interface ChainState extends ChainPoint {
  readonly tenant: string;
  readonly rolled: number;
  readonly dropped: number;
  /** How many heads it has. */
  readonly heads: number;
}

function chainStateOf(row: SqlRow): ChainState {
  const [rolled, dropped] = [integerOf(row, 'rolled'), integerOf(row, 'dropped')];
  return { ...chainPointOf(row), tenant: textOf(row, 'tenant'), rolled, dropped, heads: integerOf(row, 'heads') };
}

export async function listChains(sql: Sql): Promise<readonly ChainState[]> {
  return (await sql.read('SELECT * FROM ledger_chain ORDER BY tenant', [])).map(chainStateOf);
}

export async function findChain(sql: Sql, tenant: string): Promise<ChainState | undefined> {
  const [row] = await sql.read('SELECT * FROM ledger_chain WHERE tenant = ?', [tenant]);
  return row === undefined ? undefined : chainStateOf(row);
}

/** Whose chains have rows that are not in the sums yet. PERF: there are as many chains as there ever were tenants; most have nothing new. */
export async function tenantsToRoll(sql: Sql): Promise<readonly string[]> {
  const rows = await sql.read('SELECT tenant FROM ledger_chain WHERE rolled < number ORDER BY tenant', []);
  return rows.map((row) => textOf(row, 'tenant'));
}

/** Whose chains have rows that are summed up and were not dropped. */
export async function tenantsWithRows(sql: Sql): Promise<readonly string[]> {
  const rows = await sql.read('SELECT tenant FROM ledger_chain WHERE dropped < rolled ORDER BY tenant', []);
  return rows.map((row) => textOf(row, 'tenant'));
}

/** Whose chains have rows that no head is over, and no head of `day` or later. */
export async function tenantsToSeal(sql: Sql, day: string): Promise<readonly string[]> {
  const rows = await sql.read(
    `SELECT tenant FROM ledger_chain WHERE NOT EXISTS (
       SELECT 1 FROM ledger_head WHERE ledger_head.tenant = ledger_chain.tenant AND (day >= ? OR ledger_head.number >= ledger_chain.number))
     ORDER BY tenant`,
    [day],
  );
  return rows.map((row) => textOf(row, 'tenant'));
}

function unchainedOf(row: SqlRow): LooseRow {
  const plain = ledgerRowOf(row);
  return {
    ...plain,
    kind: textOf(row, 'kind'),
    reason: textOf(row, 'reason'),
    ...quantitiesOf(plain),
  };
}

/** Rows of a chain in order, after a number. Rows that are missing are not there: the check says so. */
export async function readChainRows(sql: Sql, tenant: string, after: number, limit: number): Promise<readonly HashedRow[]> {
  const rows = await sql.read('SELECT * FROM ledger WHERE tenant = ? AND number > ? ORDER BY number LIMIT ?', [
    tenant,
    after,
    limit,
  ]);
  return rows.map((row) => ({
    ...unchainedOf(row),
    format: integerOf(row, 'format'),
    number: integerOf(row, 'number'),
    hash: textOf(row, 'hash'),
  }));
}

/** Rows of one batch. */
const TAKE_UP_MAX = 1000;

/**
 * Takes rows up that were in the ledger before it had a chain: in the order of their time, batch by batch, so that a crash loses nothing and the next
 * call goes on. Before anything is appended to these chains. `onProgress` is told how many there were so far.
 */
export async function takeUpEarlierRows(sql: Sql, onProgress: (count: number) => void): Promise<number> {
  let count = 0;
  for (;;) {
    const [first] = await sql.read('SELECT tenant FROM ledger WHERE number IS NULL LIMIT 1', []);
    if (first === undefined) return count;
    const tenant = textOf(first, 'tenant');
    let fromMs = 0;
    for (;;) {
      const rows = await sql.read(
        `SELECT * FROM ledger WHERE tenant = ? AND from_ms >= ? AND number IS NULL ORDER BY from_ms, container, incarnation, seq LIMIT ?`,
        [tenant, fromMs, TAKE_UP_MAX],
      );
      const last = rows.at(-1);
      if (last === undefined) break;
      fromMs = integerOf(last, 'from_ms');
      const outcome = await sql.write(await takeUpWrites(sql, tenant, rows));
      if (outcome.kind === 'conflict') throw new Error('the ledger was written to while its earlier rows were taken up');
      count += rows.length;
      onProgress(count);
      await new Promise(setImmediate); // Signals are heard between batches.
    }
  }
}

async function takeUpWrites(sql: Sql, tenant: string, rows: readonly SqlRow[]): Promise<readonly SqlWrite[]> {
  const before = await readChain(sql, tenant);
  let at = before;
  const writes = rows.map((sqlRow): SqlWrite => {
    const next = extendChain(at, { ...unchainedOf(sqlRow), reason: FROM_BEFORE });
    at = next.at;
    const { container, incarnation, seq, number } = next.row;
    return {
      sql: `UPDATE ledger SET format = ?, number = ?, hash = ?, reason = ? WHERE container = ? AND incarnation = ? AND seq = ? AND number IS NULL`,
      values: [ROW_FORMAT, number, at.hash, FROM_BEFORE, container, incarnation, seq],
      expectRows: 1,
    };
  });
  return [moveChainWrite(tenant, before, at), ...writes];
}

/** Conflict where the day has a head already, or the chain another number of them: what there is stays. */
export async function insertHead(sql: Sql, head: LedgerHead): Promise<WriteOutcome> {
  const { format, tenant, day, sequence, number, hash, totals, signedMs, key, signature } = head;
  return await sql.write([
    {
      sql: `UPDATE ledger_chain SET heads = ? WHERE tenant = ? AND heads = ?`,
      values: [sequence, tenant, sequence - 1],
      expectRows: 1,
    },
    {
      sql: `INSERT INTO ledger_head (format, tenant, day, sequence, number, hash, totals, signed_ms, key, signature)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      values: [format, tenant, day, sequence, number, hash, JSON.stringify(totalTexts(totals)), signedMs, key, signature],
    },
  ]);
}

function headOf(row: SqlRow): LedgerHead {
  return {
    ...chainPointOf(row),
    format: integerOf(row, 'format'),
    tenant: textOf(row, 'tenant'),
    day: textOf(row, 'day'),
    sequence: integerOf(row, 'sequence'),
    signedMs: integerOf(row, 'signed_ms'),
    key: textOf(row, 'key'),
    signature: textOf(row, 'signature'),
  };
}

/** All heads of a tenant, by day: one for each day on which something was used. */
export async function listHeads(sql: Sql, tenant: string): Promise<readonly LedgerHead[]> {
  return (await sql.read('SELECT * FROM ledger_head WHERE tenant = ? ORDER BY day', [tenant])).map(headOf);
}

export async function lastHead(sql: Sql, tenant: string): Promise<LedgerHead | undefined> {
  const [row] = await sql.read('SELECT * FROM ledger_head WHERE tenant = ? ORDER BY day DESC LIMIT 1', [tenant]);
  return row === undefined ? undefined : headOf(row);
}

/** The last head of a day before `day`. */
export async function lastHeadBefore(sql: Sql, tenant: string, day: string): Promise<LedgerHead | undefined> {
  const [row] = await sql.read('SELECT * FROM ledger_head WHERE tenant = ? AND day < ? ORDER BY day DESC LIMIT 1', [tenant, day]);
  return row === undefined ? undefined : headOf(row);
}

export interface KnownKey {
  readonly id: string;
  /** PEM. */
  readonly publicKey: string;
  readonly sinceMs: number;
}

/** The newest last. */
export async function listLedgerKeys(sql: Sql): Promise<readonly KnownKey[]> {
  const rows = await sql.read('SELECT * FROM ledger_key ORDER BY since_ms, id', []);
  return rows.map((row) => ({
    id: textOf(row, 'id'),
    publicKey: textOf(row, 'public_key'),
    sinceMs: integerOf(row, 'since_ms'),
  }));
}

export async function addLedgerKey(sql: Sql, { id, publicKey }: LedgerKey, nowMs: number): Promise<void> {
  await sql.write([
    { sql: 'INSERT INTO ledger_key (id, public_key, since_ms) VALUES (?, ?, ?)', values: [id, publicKey, nowMs] },
  ]);
}

/** Drops rows that are summed up and under a signed head; conflict where they are not. */
export async function dropRows(
  sql: Sql,
  tenant: string,
  numbers: { readonly from: number; readonly to: number },
): Promise<WriteOutcome> {
  const { from, to } = numbers;
  return await sql.write([
    {
      sql: `UPDATE ledger_chain SET dropped = ? WHERE tenant = ? AND dropped = ? AND rolled >= ?
            AND EXISTS (SELECT 1 FROM ledger_head WHERE ledger_head.tenant = ledger_chain.tenant AND ledger_head.number >= ?)`,
      values: [to, tenant, from, to, to],
      expectRows: 1,
    },
    { sql: 'DELETE FROM ledger WHERE tenant = ? AND number > ? AND number <= ?', values: [tenant, from, to] },
  ]);
}
