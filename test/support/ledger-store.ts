/** A real store with a ledger of some days in it, and its exports. */
import { createHash, generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { KEEPER_OPTIONS, LedgerKeeper } from '#caas/ledger-keeper.ts';
import type { KeeperOptions } from '#caas/ledger-keeper.ts';
import type { Clock } from '#clock';
import { createLog } from '#log';
import { ledgerKeyOf } from '#metering/ledger-head.ts';
import type { LedgerKey } from '#metering/ledger-head.ts';
import { openIncarnationWrite } from '#state/ledger.ts';
import type { Incarnation } from '#state/ledger.ts';
import { addLedgerKey, listLedgerKeys } from '#state/ledger-heads.ts';
import type { KnownKey } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import { openSqlite } from '#state/sqlite.ts';
import { runLedgerCommand } from '../../src/cli-ledger.ts';
import { LedgerOperations } from '../../src/node-metering.ts';

export const DAY_MS = 86_400_000;
export const START_MS = Date.UTC(2026, 10, 1);

export function newLedgerKey(): LedgerKey {
  return ledgerKeyOf(generateKeyPairSync('ed25519').privateKey);
}

export interface LedgerStore extends AsyncDisposable {
  readonly sql: Sql;
  readonly file: string;
  readonly key: LedgerKey;
  readonly keys: readonly KnownKey[];
  readonly keepRowsMs: number;
  readonly clock: Clock & { setMs: (nowMs: number) => void };
  readonly writer: LedgerWriter;
  readonly keeper: LedgerKeeper;
  readonly control: LedgerOperations;
  /** Adds a container that is metered from `atMs`. */
  readonly container: (tenant: string, host: string, atMs: number) => Promise<Incarnation>;
}

let made = 0;

/** `prepare`: makes the store's file, as another program left it. */
export async function openLedgerStore(
  folder: string,
  options: KeeperOptions = KEEPER_OPTIONS,
  prepare?: (file: string) => Promise<void>,
): Promise<LedgerStore> {
  const file = join(folder, `ledger-${String((made += 1))}.db`);
  await prepare?.(file);
  const sql = openSqlite(file);
  const key = newLedgerKey();
  let nowMs = START_MS;
  const clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: async () => await new Promise<never>(() => undefined),
    setMs: (atMs: number) => {
      nowMs = atMs;
    },
  };
  await addLedgerKey(sql, key, START_MS);
  const keys = await listLedgerKeys(sql);
  const keeper = new LedgerKeeper({ log: createLog('silent'), clock, sql, key }, options);
  let containers = 0;
  return {
    sql,
    file,
    key,
    keys,
    keepRowsMs: options.keepRowsMs,
    clock,
    keeper,
    writer: new LedgerWriter(sql),
    control: new LedgerOperations({ sql, clock, key, keys }),
    container: async (tenant, host, atMs) => {
      containers += 1;
      const at: Incarnation = {
        container: createHash('sha256')
          .update(`${tenant} ${String(containers)}`)
          .digest('hex'),
        incarnation: 1,
        tenant,
        host,
        name: `web-${String(containers)}`,
        cgroup: '/x',
        cgroupIdentity: '',
        openedMs: atMs,
        closedMs: undefined,
        seq: 0,
        meteredToMs: atMs,
        cpuNs: 0,
        memoryBytes: 0,
      };
      await sql.write([openIncarnationWrite(at)]);
      return at;
    },
    [Symbol.asyncDispose]: async () => {
      await keeper[Symbol.asyncDispose]();
      await sql[Symbol.asyncDispose]();
    },
  };
}

/** What was used in an interval of so long; numbers from a seed, none of them alike. */
export async function meter(
  { writer }: Pick<LedgerStore, 'writer'>,
  at: Incarnation,
  spanMs: number,
  seed: number,
): Promise<Incarnation> {
  const cpuNs = seed * 7919 + 13;
  const outcome = await writer.append(
    at,
    {
      toMs: at.meteredToMs + spanMs,
      cpuNs,
      memoryByteMs: BigInt(seed + 1) * 2n ** 55n + 12_345n,
      requests: seed * 3,
      ingressBytes: seed * 1021,
      egressBytes: seed * 104_729,
      heldMs: seed % 50,
      streamMs: seed * 37,
      snapshotByteMs: BigInt(seed) * 2n ** 54n + 3n,
      diskByteMs: BigInt(seed) * 2n ** 53n + 5n,
    },
    { cpuNs: at.cpuNs + cpuNs, memoryBytes: 4096, cgroupIdentity: 'boot:1' },
  );
  if (outcome.kind === 'conflict') throw new Error('the ledger refused an interval');
  return outcome.at;
}

/** Two tenants, three containers, three days, a correction, each day's heads. The fourth day has begun. */
export async function fillLedger(store: LedgerStore): Promise<void> {
  let running = [
    await store.container('acme', 'a', START_MS + 1000),
    await store.container('acme', 'b', START_MS + 2000),
    await store.container('other', 'a', START_MS + 3000),
  ];
  for (let round = 0; round < 20; round += 1) {
    // The last intervals are of the fourth day.
    running = await Promise.all(running.map(async (at, index) => await meter(store, at, 14_000_000, round * 3 + index + 1)));
    const atMs = Math.max(...running.map(({ meteredToMs }) => meteredToMs));
    store.clock.setMs(atMs);
    if (round === 7 && running[0] !== undefined) {
      const span = { fromMs: START_MS + 5000, toMs: START_MS + 6000 };
      const none = { memoryByteMs: 0n, requests: -2, ingressBytes: 0, egressBytes: 0, diskByteMs: 0n, streamMs: 0 };
      await store.control.correct({ ...span, ...none, container: running[0].container, reason: 'counted twice', cpuNs: -77 });
    }
    await store.keeper.round();
  }
}

export async function exportText(store: LedgerStore, tenant: string, fromDay?: string, toDay?: string): Promise<string> {
  let text = '';
  await runLedgerCommand(
    {
      kind: 'ledger-export',
      daemon: { dataDir: undefined, adminSocket: undefined },
      json: false,
      tenant,
      fromDay,
      toDay,
    },
    { ledger: store.control },
    { write: (more) => (text += more), note: () => undefined, isScreen: false, isNoteScreen: false },
  );
  return text;
}
