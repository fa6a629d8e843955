/** Proves the ledger: looks chains through for operators, and hands out what tenants verify on their own. */
import { createPublicKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { createChainCheck, missingHead } from '#metering/chain-check.ts';
import type { ChainCheck, ChainFault, HashedRow } from '#metering/chain-check.ts';
import { CHAIN_START, sameTotals } from '#metering/ledger-chain.ts';
import { headLine, rowLine } from '#metering/ledger-export.ts';
import type { ExportStart, HeadLine, RowLine } from '#metering/ledger-export.ts';
import { OPEN_DAY, signEnd, signHead } from '#metering/ledger-head.ts';
import type { ExportEnd, LedgerHead, LedgerKey } from '#metering/ledger-head.ts';
import { listChainless } from '#state/chainless.ts';
import type { Trace } from '#state/chainless.ts';
import { findChain, listChains, listHeads, readChainRows } from '#state/ledger-heads.ts';
import type { ChainState, KnownKey } from '#state/ledger-heads.ts';
import type { Sql } from '#state/sql.ts';
import { GRAIN_MS } from '#state/usage-rollups.ts';
import { dayOf, KEEPER_OPTIONS } from './ledger-keeper.ts';
import { readSumsCheck } from './sums-check.ts';
import type { SumsCheck } from './sums-check.ts';

interface ProofDeps {
  readonly sql: Sql;
  readonly clock: Clock;
  readonly key: LedgerKey;
  /** All that the node ever signed with. Not those of the store: who can write to it could add one and sign everything anew. */
  readonly keys: readonly KnownKey[];
  /** How long rows are kept at least, where that is not as always. */
  readonly keepRowsMs?: number;
}

/** Days by UTC, both included; undefined: from the first, to now. */
export interface DayRange {
  readonly fromDay: string | undefined;
  readonly toDay: string | undefined;
}

export interface VerifyRequest extends DayRange {
  /** Undefined: all. */
  readonly tenant: string | undefined;
}

export interface VerifyProgress {
  readonly tenant: string;
  /** Rows of its chain, or what has sums of it. */
  readonly what: 'rows' | 'sums';
  readonly rows: number;
  readonly of: number;
}

/** What was found in one chain. */
export interface ChainVerdict {
  readonly tenant: string;
  readonly rows: number;
  /** The last row that was looked at. */
  readonly number: number;
  readonly heads: number;
  /** Rows that the chain proves nothing about but that they did not change since it took them up. */
  readonly fromBefore: number;
  readonly corrections: number;
  /** Rows that were dropped because they were old: the chain goes on from the head that was signed over them. */
  readonly dropped: number;
  /** Null: it fits. */
  readonly fault: ChainFault | null;
}

/** Rows of one batch. */
const ROWS_MAX = 1000;
const PROGRESS_MS = 1000;

/** Where a part of a chain begins and ends. */
interface Part {
  readonly after: LedgerHead | undefined;
  readonly heads: readonly LedgerHead[];
  /** Heads of rows before it. */
  readonly earlier: readonly LedgerHead[];
  /** Undefined: the chain's end. */
  readonly until: number | undefined;
}

function partOf(chain: ChainState, heads: readonly LedgerHead[], { fromDay, toDay }: DayRange): Part {
  const kept = heads.filter(({ number }) => number >= chain.dropped);
  const before = fromDay === undefined ? undefined : kept.findLast(({ day }) => day < fromDay);
  const after = before ?? (chain.dropped > 0 ? kept[0] : undefined);
  const last = toDay === undefined ? undefined : kept.find(({ day }) => day >= toDay);
  const from = after?.number ?? 0;
  // A head that is about dropped rows is none of this part; one that is about a row that is missing shows.
  return {
    after,
    heads: heads.filter((head) => head !== after && head.number >= from && (last === undefined || head.number <= last.number)),
    earlier: heads.filter((head) => head !== after && head.number < from),
    until: last?.number,
  };
}

export async function verifyChains(
  deps: ProofDeps,
  request: VerifyRequest,
  onProgress: (progress: VerifyProgress) => void,
): Promise<readonly ChainVerdict[]> {
  const isAsked = ({ tenant }: { readonly tenant: string }): boolean => request.tenant === undefined || tenant === request.tenant;
  const chains = (await listChains(deps.sql)).filter(isAsked);
  const isFound = request.tenant !== undefined && chains.length > 0;
  const traces = isFound ? [] : (await listChainless(deps.sql)).filter(isAsked);
  if (chains.length + traces.length === 0 && request.tenant !== undefined) throw noChain(request.tenant);
  const keys = keysOf(deps);
  const verdicts: ChainVerdict[] = [];
  for (const chain of chains) verdicts.push(await verifyChain(deps, chain, { request, keys, onProgress }));
  return [...verdicts, ...traces.map(chainlessVerdict)];
}

function chainlessVerdict({ tenant, table }: Trace): ChainVerdict {
  const fault = {
    number: 0,
    text: `the table ${table} has something of it, and there is no chain: its rows were removed with their chain`,
    mend: 'restore the store from a backup that has them',
  };
  return { tenant, rows: 0, number: 0, heads: 0, fromBefore: 0, corrections: 0, dropped: 0, fault };
}

function keysOf({ key, keys }: ProofDeps): ReadonlyMap<string, KeyObject> {
  return new Map([...keys, key].map(({ id, publicKey }) => [id, createPublicKey(publicKey)]));
}

interface Verifying {
  readonly request: VerifyRequest;
  readonly keys: ReadonlyMap<string, KeyObject>;
  readonly onProgress: (progress: VerifyProgress) => void;
}

/** Rows that are old are dropped while it is looked, too: then it goes on from the head over them. */
async function verifyChain(deps: ProofDeps, listed: ChainState, verifying: Verifying): Promise<ChainVerdict> {
  for (;;) {
    const chain = (await findChain(deps.sql, listed.tenant)) ?? listed;
    const verdict = await verifyFrom(deps, chain, verifying);
    if (verdict !== 'dropped') return verdict;
  }
}

async function verifyFrom(deps: ProofDeps, chain: ChainState, verifying: Verifying): Promise<ChainVerdict | 'dropped'> {
  const { tenant } = chain;
  const heads = await listHeads(deps.sql, tenant);
  const part = partOf(chain, heads, verifying.request);
  const check = createChainCheck({ tenant, from: part.after ?? CHAIN_START, keys: verifying.keys });
  const { onProgress } = verifying;
  const sums = await sumsOf(deps, { tenant, after: part.after?.number ?? 0 }, verifying);
  const found =
    startFault(check, chain, part) ??
    (await lookThrough(deps, chain, { part, check, sums, onProgress })) ??
    missingHead(heads, chain.heads) ??
    droppedFault(deps, chain, heads) ??
    (await sumsFault(deps, chain, sums?.fault(check.at())));
  if (found === 'dropped') return found;
  return { ...check.counts(), tenant, number: check.at().number, dropped: chain.dropped, fault: found ?? null };
}

/** Undefined: only a part of the chain is looked at, and its sums are of the whole. */
async function sumsOf(
  deps: ProofDeps,
  { tenant, after }: { readonly tenant: string; readonly after: number },
  { request, onProgress }: Verifying,
): Promise<SumsCheck | undefined> {
  if (request.fromDay !== undefined || request.toDay !== undefined) return undefined;
  const sums = await readSumsCheck(deps, tenant, (rows, of) => {
    onProgress({ tenant, what: 'sums', rows, of });
  });
  // Where rows are being dropped, those before the head that it goes on from may not be summed up yet.
  for (let at = sums.rolled; at < after;) {
    const rows = (await readChainRows(deps.sql, tenant, at, ROWS_MAX)).filter(({ number }) => number <= after);
    for (const row of rows) sums.row(row);
    at = rows.at(-1)?.number ?? after;
    await new Promise(setImmediate);
  }
  return sums;
}

/** Rows that were dropped since the sums were read were not seen by these. */
async function sumsFault(
  { sql }: ProofDeps,
  { tenant, dropped }: ChainState,
  fault: ChainFault | undefined,
): Promise<ChainFault | 'dropped' | undefined> {
  if (fault === undefined) return undefined;
  return ((await findChain(sql, tenant))?.dropped ?? 0) > dropped ? 'dropped' : fault;
}

/** Heads of rows that are not looked at, and the one that the part goes on from. */
function startFault(check: ChainCheck, chain: ChainState, { after, earlier }: Part): ChainFault | undefined {
  if (after === undefined && chain.dropped > 0)
    return { number: chain.dropped, text: 'the rows up to here were dropped, and the head over them is missing' };
  const anchored = after === undefined ? undefined : check.head(after);
  return anchored ?? firstFault(earlier, check.earlierHead);
}

/** What the slack is for: an hour goes by between two times that rows are dropped, and clocks are set. */
const DROPPED_SLACK_MS = GRAIN_MS.day;

/** Nothing but the chain's own row says up to where rows were dropped: none may be that are to be kept yet. */
function droppedFault(
  { clock, keepRowsMs = KEEPER_OPTIONS.keepRowsMs }: ProofDeps,
  { dropped }: ChainState,
  heads: readonly LedgerHead[],
): ChainFault | undefined {
  const keptFrom = dayOf(clock.nowMs() - keepRowsMs + DROPPED_SLACK_MS);
  const may = heads.findLast(({ day }) => day < keptFrom)?.number ?? 0;
  if (dropped <= may) return undefined;
  return {
    number: dropped,
    text: `rows up to ${String(dropped)} are gone as if they were old, and only those up to ${String(may)} are older than ${String(keepRowsMs / GRAIN_MS.day)} days`,
    mend: 'restore the store from a backup that has them, or compare with an export that its tenant kept',
  };
}

interface Look {
  readonly part: Part;
  readonly check: ChainCheck;
  readonly sums: SumsCheck | undefined;
  readonly onProgress: (progress: VerifyProgress) => void;
}

async function lookThrough(
  { sql, clock }: ProofDeps,
  chain: ChainState,
  look: Look,
): Promise<ChainFault | 'dropped' | undefined> {
  const { part, check } = look;
  const { tenant } = chain;
  const until = part.until ?? Number.MAX_SAFE_INTEGER;
  const of = Math.min(until, chain.number) - check.at().number;
  const heads = [...part.heads];
  let toldMs = clock.monotonicMs();
  for (let isMore = true; isMore;) {
    const after = check.at().number;
    const rows = await readChainRows(sql, tenant, after, ROWS_MAX);
    const isMissing = after < Math.min(until, chain.number) && rows[0]?.number !== after + 1;
    if (isMissing && ((await findChain(sql, tenant))?.dropped ?? 0) > after) return 'dropped';
    const fault = rowsFault(
      rows.filter(({ number }) => number <= until),
      heads,
      look,
    );
    if (fault !== undefined) return fault;
    isMore = rows.length === ROWS_MAX && check.at().number < until;
    await new Promise(setImmediate); // Nothing else of the node waits for it.
    if (clock.monotonicMs() - toldMs < PROGRESS_MS) continue;
    toldMs = clock.monotonicMs();
    look.onProgress({ tenant, what: 'rows', rows: check.counts().rows, of });
  }
  return firstFault(heads, check.head) ?? endFault(check, chain, part);
}

/** Takes the heads over them out of `heads`. */
function rowsFault(rows: readonly HashedRow[], heads: LedgerHead[], { check, sums }: Look): ChainFault | undefined {
  for (const row of rows) {
    const under = heads.filter((head) => head.number <= row.number);
    heads.splice(0, under.length);
    const fault = check.row(row) ?? firstFault(under, check.head);
    if (fault !== undefined) return fault;
    sums?.row(row);
  }
  return undefined;
}

function firstFault(heads: readonly LedgerHead[], of: (head: LedgerHead) => ChainFault | undefined): ChainFault | undefined {
  for (const head of heads) {
    const fault = of(head);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** The chain ends where its own row says, unless only a part of it was looked at. More rows may have come meanwhile. */
function endFault(check: ChainCheck, chain: ChainState, { until }: Part): ChainFault | undefined {
  const { number } = check.at();
  if (until !== undefined) return undefined;
  if (number < chain.number)
    return { number, text: `the rows after ${String(number)} up to ${String(chain.number)} are missing` };
  if (number > chain.number) return undefined;
  if (check.at().hash === chain.hash && sameTotals(check.at().totals, chain.totals)) return undefined;
  return {
    number,
    text: `row ${String(number)}: it is not the one that the chain ends with, or the chain's sums are not those of the rows`,
  };
}

export interface ExportRange {
  readonly start: ExportStart;
  /** The number of the last row of it. */
  readonly until: number;
  /** Over the last row, where the export ends between two days. */
  readonly openHead: HeadLine | null;
}

/** What an export of whole days begins with: after the last head before them, up to the first head at their end, or to now. */
export async function exportRange(deps: ProofDeps, tenant: string, days: DayRange): Promise<ExportRange> {
  const { sql, clock, key, keys } = deps;
  const chain = (await listChains(sql)).find((one) => one.tenant === tenant);
  if (chain === undefined) throw noChain(tenant);
  const part = partOf(chain, await listHeads(sql, tenant), days);
  const until = part.until ?? chain.number;
  const isOpen = !part.heads.some(({ number }) => number === until);
  const { number, hash, totals } = chain;
  const open = { tenant, day: OPEN_DAY, sequence: chain.heads + 1, number, hash, totals, signedMs: clock.nowMs() };
  const earlier = keys.filter(({ id }) => id !== key.id);
  return {
    start: {
      tenant,
      key: namedKey(key),
      earlierKeys: earlier.map(namedKey),
      after: part.after === undefined ? null : headLine(part.after),
    },
    until,
    openHead: isOpen ? headLine(signHead(open, key)) : null,
  };
}

type NamedKey = Pick<KnownKey, 'id' | 'publicKey'>;

function namedKey({ id, publicKey }: NamedKey): NamedKey {
  return { id, publicKey };
}

export interface ExportPage {
  readonly rows: readonly RowLine[];
  /** Those over these rows. */
  readonly heads: readonly HeadLine[];
}

/** The rows of an export after a number, some at a time. */
export async function exportPage({ sql }: ProofDeps, tenant: string, after: number, until: number): Promise<ExportPage> {
  const rows = (await readChainRows(sql, tenant, after, ROWS_MAX)).filter(({ number }) => number <= until);
  const last = rows.at(-1)?.number ?? after;
  const heads = (await listHeads(sql, tenant)).filter(({ number }) => number > after && number <= last);
  return { rows: rows.map(rowLine), heads: heads.map(headLine) };
}

/** Signs what an export is made of, for its last line. */
export function exportEnd({ key }: ProofDeps, made: Pick<ExportEnd, 'tenant' | 'rows' | 'heads' | 'sha256'>): ExportEnd {
  return signEnd(made, key);
}

function noChain(tenant: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_LEDGER_EMPTY',
    source: 'usage',
    message: `there is nothing in the ledger of a tenant ${tenant}`,
    mend: 'see: ecluse usage --by tenant',
    status: 404,
  });
}
