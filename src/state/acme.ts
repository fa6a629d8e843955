/**
 * What ACME knows: its accounts, how it stands with each CA and each host, who works at a host, and what was asked of CAs. Private keys are sealed.
 *
 * A lease is a row's owner and the end of its time: one run at a time works at a host, of whatever node.
 */
import { changeWrite } from './change-log.ts';
import { integerOf, textOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite } from './sql.ts';

export interface AcmeAccountRow {
  /** The directory's URL. */
  readonly ca: string;
  readonly url: string;
  readonly sealedKey: string;
  readonly sealedBy: string;
}

export interface AcmeCaRow {
  readonly ca: string;
  readonly count: number;
  readonly lastMs: number;
  readonly untilMs: number;
}

export interface AcmeHostRow {
  readonly host: string;
  readonly wantedMs: number;
  /** JSON: what it has now, and its failures; the text is the engine's. */
  readonly state: string;
  /** An order that was begun; empty: none. */
  readonly orderCa: string;
  readonly orderUrl: string;
  readonly orderKey: string;
  readonly leaseOwner: string;
  readonly leaseUntilMs: number;
}

export interface AcmeSpentRow {
  /** Of the write that it came with. Never given twice, also when rows were forgotten. */
  readonly seq: number;
  readonly id: string;
  readonly ca: string;
  readonly limit: string;
  readonly subject: string;
  readonly atMs: number;
}

/** Counts the writes to what was spent: who writes names the number that was seen, so that two nodes never spend the same room. */
const HEAD_KEY = 'acme_spent';
const HOST_COLUMNS = 'host, wanted_ms, state, order_ca, order_url, order_key, lease_owner, lease_until_ms';

export async function readAcmeAccount(sql: Sql, ca: string): Promise<AcmeAccountRow | undefined> {
  const [row] = await sql.read('SELECT ca, url, sealed_key, sealed_by FROM acme_account WHERE ca = ?', [ca]);
  if (row === undefined) return undefined;
  return {
    ca: textOf(row, 'ca'),
    url: textOf(row, 'url'),
    sealedKey: textOf(row, 'sealed_key'),
    sealedBy: textOf(row, 'sealed_by'),
  };
}

/** False: there is one already, which stays. */
export async function createAcmeAccount(sql: Sql, account: AcmeAccountRow, nowMs: number): Promise<boolean> {
  const { ca, url, sealedKey, sealedBy } = account;
  const outcome = await sql.write([
    {
      sql: 'INSERT INTO acme_account (ca, url, sealed_key, sealed_by, created_ms) VALUES (?, ?, ?, ?, ?)',
      values: [ca, url, sealedKey, sealedBy, nowMs],
    },
  ]);
  return outcome.kind === 'done';
}

/** Where it is at the CA; empty: it has to be found or made there. */
export async function setAcmeAccountUrl(sql: Sql, ca: string, url: string, nowMs: number): Promise<void> {
  await sql.write([
    { sql: 'UPDATE acme_account SET url = ? WHERE ca = ?', values: [url, ca], expectRows: 1 },
    ...(url === '' ? [] : [changeWrite(nowMs, 'acme.account', ca, { url })]),
  ]);
}

export async function listAcmeCas(sql: Sql): Promise<readonly AcmeCaRow[]> {
  return (await sql.read('SELECT ca, failures, last_ms, until_ms FROM acme_ca', [])).map((row) => ({
    ca: textOf(row, 'ca'),
    count: integerOf(row, 'failures'),
    lastMs: integerOf(row, 'last_ms'),
    untilMs: integerOf(row, 'until_ms'),
  }));
}

/** Undefined: it is well. */
export async function setAcmeCa(sql: Sql, ca: string, failures: Omit<AcmeCaRow, 'ca'> | undefined): Promise<void> {
  await sql.write([
    { sql: 'DELETE FROM acme_ca WHERE ca = ?', values: [ca] },
    ...(failures === undefined
      ? []
      : [
          {
            sql: 'INSERT INTO acme_ca (ca, failures, last_ms, until_ms) VALUES (?, ?, ?, ?)',
            values: [ca, failures.count, failures.lastMs, failures.untilMs],
          },
        ]),
  ]);
}

export async function listAcmeHosts(sql: Sql): Promise<readonly AcmeHostRow[]> {
  return (await sql.read(`SELECT ${HOST_COLUMNS} FROM acme_host`, [])).map(hostOf);
}

export async function findAcmeHost(sql: Sql, host: string): Promise<AcmeHostRow | undefined> {
  const [row] = await sql.read(`SELECT ${HOST_COLUMNS} FROM acme_host WHERE host = ?`, [host]);
  return row === undefined ? undefined : hostOf(row);
}

/** Begins to know hosts; who is known stays as it is. */
export async function addAcmeHosts(sql: Sql, hosts: readonly string[], state: string, nowMs: number): Promise<void> {
  await sql.write(
    hosts.map((host) => ({
      sql: `INSERT INTO acme_host (${HOST_COLUMNS}) VALUES (?, ?, ?, '', '', '', '', 0) ON CONFLICT (host) DO NOTHING`,
      values: [host, nowMs, state],
    })),
  );
}

export interface Lease {
  readonly host: string;
  readonly owner: string;
  readonly untilMs: number;
}

/** Takes a lease that is free, over, or the owner's own. False: another one has it. */
export async function takeAcmeLease(sql: Sql, { host, owner, untilMs }: Lease, nowMs: number): Promise<boolean> {
  const outcome = await sql.write([
    {
      sql: `UPDATE acme_host SET lease_owner = ?, lease_until_ms = ? WHERE host = ? AND (lease_owner = '' OR lease_owner = ? OR lease_until_ms < ?)`,
      values: [owner, untilMs, host, owner, nowMs],
      expectRows: 1,
    },
  ]);
  return outcome.kind === 'done';
}

/** Gives it longer. False: it was lost. */
export async function renewAcmeLease(sql: Sql, { host, owner, untilMs }: Lease): Promise<boolean> {
  const outcome = await sql.write([
    {
      sql: 'UPDATE acme_host SET lease_until_ms = ? WHERE host = ? AND lease_owner = ?',
      values: [untilMs, host, owner],
      expectRows: 1,
    },
  ]);
  return outcome.kind === 'done';
}

/** Ends a lease, with what came of it. Who has lost it changes nothing. */
export async function releaseAcmeLease(
  sql: Sql,
  { host, owner }: Pick<Lease, 'host' | 'owner'>,
  state: string,
  change: { readonly kind: string; readonly data: Readonly<Record<string, unknown>>; readonly atMs: number } | undefined,
): Promise<void> {
  await sql.write([
    {
      sql: `UPDATE acme_host SET state = ?, lease_owner = '', lease_until_ms = 0 WHERE host = ? AND lease_owner = ?`,
      values: [state, host, owner],
      expectRows: 1,
    },
    ...(change === undefined ? [] : [changeWrite(change.atMs, change.kind, host, change.data)]),
  ]);
}

/** Writes what is known of a host, whoever has its lease: what its CA suggests, and what an operator wants. */
export async function setAcmeHostState(
  sql: Sql,
  host: string,
  { before, after }: { readonly before: string; readonly after: string },
): Promise<boolean> {
  const outcome = await sql.write([
    { sql: 'UPDATE acme_host SET state = ? WHERE host = ? AND state = ?', values: [after, host, before], expectRows: 1 },
  ]);
  return outcome.kind === 'done';
}

/** What was begun; empty texts: it is over. */
export async function setAcmeOrder(
  sql: Sql,
  { host, owner }: Pick<Lease, 'host' | 'owner'>,
  order: { readonly ca: string; readonly url: string; readonly sealedKey: string },
): Promise<boolean> {
  const outcome = await sql.write([
    {
      sql: 'UPDATE acme_host SET order_ca = ?, order_url = ?, order_key = ? WHERE host = ? AND lease_owner = ?',
      values: [order.ca, order.url, order.sealedKey, host, owner],
      expectRows: 1,
    },
  ]);
  return outcome.kind === 'done';
}

/** Everything after `seq`, oldest first. */
export async function readAcmeSpent(sql: Sql, seq: number): Promise<readonly AcmeSpentRow[]> {
  const rows = await sql.read('SELECT seq, id, ca, limit_name, subject, at_ms FROM acme_spent WHERE seq > ? ORDER BY seq', [seq]);
  return rows.map((row) => ({
    seq: integerOf(row, 'seq'),
    id: textOf(row, 'id'),
    ca: textOf(row, 'ca'),
    limit: textOf(row, 'limit_name'),
    subject: textOf(row, 'subject'),
    atMs: integerOf(row, 'at_ms'),
  }));
}

export async function readAcmeSpentHead(sql: Sql): Promise<string> {
  const [row] = await sql.read('SELECT value FROM setting WHERE key = ?', [HEAD_KEY]);
  if (row !== undefined) return textOf(row, 'value');
  await sql.write([{ sql: `INSERT INTO setting (key, value) VALUES (?, '0') ON CONFLICT (key) DO NOTHING`, values: [HEAD_KEY] }]);
  return '0';
}

/** Writes down what is spent, where nobody else has since `head` was read. */
export async function addAcmeSpent(sql: Sql, rows: readonly Omit<AcmeSpentRow, 'seq'>[], head: string): Promise<boolean> {
  const seq = Number(head) + 1;
  const outcome = await sql.write([
    {
      sql: 'UPDATE setting SET value = ? WHERE key = ? AND value = ?',
      values: [String(seq), HEAD_KEY, head],
      expectRows: 1,
    },
    ...rows.map(({ id, ca, limit, subject, atMs }): SqlWrite => ({
      sql: 'INSERT INTO acme_spent (seq, id, ca, limit_name, subject, at_ms) VALUES (?, ?, ?, ?, ?, ?)',
      values: [seq, id, ca, limit, subject, atMs],
    })),
  ]);
  return outcome.kind === 'done';
}

export async function forgetAcmeSpent(sql: Sql, beforeMs: number): Promise<void> {
  await sql.write([{ sql: 'DELETE FROM acme_spent WHERE at_ms < ?', values: [beforeMs] }]);
}

function hostOf(row: SqlRow): AcmeHostRow {
  return {
    host: textOf(row, 'host'),
    wantedMs: integerOf(row, 'wanted_ms'),
    state: textOf(row, 'state'),
    orderCa: textOf(row, 'order_ca'),
    orderUrl: textOf(row, 'order_url'),
    orderKey: textOf(row, 'order_key'),
    leaseOwner: textOf(row, 'lease_owner'),
    leaseUntilMs: integerOf(row, 'lease_until_ms'),
  };
}
