/** The ledger's key and books of a node, and what operators ask of them. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CorrectionRequest, LedgerControl } from '#admin/metering-control.ts';
import type { Containers } from '#caas/containers.ts';
import { DiskMeter } from '#caas/disk-meter.ts';
import type { DiskPlaces } from '#caas/disk-places.ts';
import { LedgerKeeper } from '#caas/ledger-keeper.ts';
import { exportEnd, exportPage, exportRange, verifyChains } from '#caas/ledger-proof.ts';
import type { ChainVerdict, DayRange, ExportPage, ExportRange, VerifyProgress, VerifyRequest } from '#caas/ledger-proof.ts';
import type { Sleepers } from '#caas/sleep/sleepers.ts';
import { SpendWatch } from '#caas/spend-watch.ts';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import { DiskWalker } from '#isolation/disk-walk.ts';
import type { Log } from '#log';
import { isVolumeKey, shortId } from '#metering/ledger-chain.ts';
import { ledgerKeyOf } from '#metering/ledger-head.ts';
import type { ExportEnd, LedgerKey } from '#metering/ledger-head.ts';
import { findVolumeUse } from '#state/disk-use.ts';
import { latestIncarnations } from '#state/ledger.ts';
import { addLedgerKey, listLedgerKeys, takeUpEarlierRows } from '#state/ledger-heads.ts';
import type { KnownKey } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';
import { createFile } from '#tls/atomic-file.ts';
import { readPrivateFile } from '#tls/private-file.ts';
import type { Edge } from './node-edge.ts';
import { readPriceBooks } from './node-prices.ts';

const KEY_FILE = 'ledger.key';
const KEY_MODE = 0o600;
const FOLDER_MODE = 0o700;
const KEY_SETTING = 'ledger.key';
const WHAT = "the key that the ledger's heads are signed with";
const RESTORE =
  'restore it from a backup; if there is none, let a new key begin, whose id tenants have to be told: sqlite3 DATA/ecluse.db "DELETE FROM setting WHERE key = \'ledger.key\'"';

function unusable(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_LEDGER_KEY', source: 'runtime', message, mend, cause });
}

/** Opens the key in `folder`; makes it where the node has none yet. Errors: ECLUSE_LEDGER_KEY, and nothing is overwritten. */
export async function openLedgerKey(
  folder: string,
  { sql, clock }: { readonly sql: Sql; readonly clock: Clock },
): Promise<LedgerKey> {
  const file = join(folder, KEY_FILE);
  const known = await readSetting(sql, KEY_SETTING);
  const kept = await readPrivateFile(file, WHAT, unusable);
  if (kept === undefined && known !== undefined) throw unusable(`${WHAT} is missing: there is no ${file}`, RESTORE);
  const key = kept === undefined ? await makeKey(folder, file) : parseKey(file, kept);
  if (known !== undefined && known !== key.id) throw unusable(`${WHAT} is another one: ${file} has not signed before`, RESTORE);
  if (!(await listLedgerKeys(sql)).some(({ id }) => id === key.id)) await addLedgerKey(sql, key, clock.nowMs());
  if (known === undefined) await writeSetting(sql, KEY_SETTING, key.id);
  return key;
}

function parseKey(file: string, pem: string): LedgerKey {
  try {
    const privateKey = createPrivateKey(pem);
    if (privateKey.asymmetricKeyType === 'ed25519') return ledgerKeyOf(privateKey);
  } catch (error) {
    throw unusable(`${WHAT} is damaged: ${file} is no private key (${reasonOf(error)})`, RESTORE, error);
  }
  throw unusable(`${WHAT} is of another kind: ${file} is no Ed25519 key`, RESTORE);
}

async function makeKey(folder: string, file: string): Promise<LedgerKey> {
  const { privateKey } = generateKeyPairSync('ed25519');
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  await createFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), KEY_MODE);
  return ledgerKeyOf(privateKey);
}

const PROGRESS_ROWS = 100_000;
/** The clock of whoever asks may be ahead. */
const FUTURE_SLACK_MS = 60_000;

/** Takes up what was in the ledger before it had a chain. Before a meter writes to it. */
export async function takeUpLedger(
  { sql, log }: { readonly sql: Sql; readonly log: Log },
  say: (line: string) => void,
): Promise<void> {
  const count = await takeUpEarlierRows(sql, (rows) => {
    if (rows % PROGRESS_ROWS === 0) say(`taking up the ledger's earlier rows: ${String(rows)} so far`);
  });
  if (count > 0) log.info({ rows: count }, 'the rows that were in the ledger have a chain now');
}

interface LedgerDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly key: LedgerKey;
}

export class LedgerOperations implements LedgerControl {
  readonly #deps: LedgerDeps;
  readonly #writer: LedgerWriter;

  constructor(deps: LedgerDeps) {
    this.#deps = deps;
    this.#writer = new LedgerWriter(deps.sql);
  }

  async keys(): Promise<readonly KnownKey[]> {
    const keys = await listLedgerKeys(this.#deps.sql);
    const isToday = ({ id }: KnownKey): boolean => id === this.#deps.key.id;
    return [...keys.filter((key) => !isToday(key)), ...keys.filter(isToday)];
  }

  async verify(request: VerifyRequest, onProgress: (progress: VerifyProgress) => void): Promise<readonly ChainVerdict[]> {
    return await verifyChains(this.#deps, request, onProgress);
  }

  async exportRange(tenant: string, days: DayRange): Promise<ExportRange> {
    return await exportRange(this.#deps, tenant, days);
  }

  async exportPage(tenant: string, after: number, until: number): Promise<ExportPage> {
    return await exportPage(this.#deps, tenant, after, until);
  }

  async exportEnd(made: Pick<ExportEnd, 'tenant' | 'rows' | 'heads' | 'sha256'>): Promise<ExportEnd> {
    return exportEnd(this.#deps, made);
  }

  async correct(request: CorrectionRequest): Promise<{ readonly tenant: string; readonly container: string }> {
    const { container: reference, reason, fromMs, toMs, ...quantities } = request;
    const [tenant, name] = reference.includes('/') ? reference.split('/', 2) : [undefined, reference];
    const volumes = isVolumeKey(reference) ? await findVolumeUse(this.#deps.sql, reference) : [];
    // A tenant may be called so, too.
    const found = volumes.length > 0 ? volumes : await latestIncarnations(this.#deps.sql, tenant ?? '', name);
    const [at] = found;
    if (at === undefined) throw refusal(404, `nothing that was metered is called ${reference}`, 'see: ecluse usage');
    if (found.length > 1) {
      const which = found
        .map(({ tenant: of, container }) => (isVolumeKey(container) ? container : `${of}/${shortId(container)}`))
        .join(' or ');
      throw refusal(409, `${reference} is the name of several containers`, `say which: ${which}`);
    }
    if (toMs < fromMs) throw refusal(400, 'the correction ends before it begins', 'swap --from and --to');
    if (toMs > this.#deps.clock.nowMs() + FUTURE_SLACK_MS)
      throw refusal(
        400,
        `the correction is of a time that has not come: ${new Date(toMs).toISOString()}`,
        'look at --at: it is UTC',
      );
    const outcome = await this.#writer.correct({ ...at, fromMs, reason, interval: { ...quantities, toMs, heldMs: 0 } });
    if (outcome === 'conflict') throw refusal(409, 'the ledger was written to at this moment', 'try again');
    return { tenant: at.tenant, container: at.container };
  }
}

function refusal(status: number, message: string, mend: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_LEDGER_REFUSED', source: 'usage', status, message, mend });
}

interface BooksWatch {
  readonly containers: Pick<Containers, 'list'>;
  readonly sleepers: Sleepers;
  readonly places: DiskPlaces;
}

/** When the edge asks again for a container that sleeps because its tenant has spent what it may. */
const SPENT_RETRY_MS = 60_000;

/** The ledger's key and books of a node, the watch over what tenants spend, and the one over what is on disk. */
export class Books implements AsyncDisposable {
  readonly key: LedgerKey;
  readonly keeper: LedgerKeeper;
  readonly #deps: { readonly log: Log; readonly clock: Clock; readonly sql: Sql };
  #spend: SpendWatch | undefined;
  #watch: AsyncDisposable | undefined;
  readonly #walker = new DiskWalker();
  #disks: DiskMeter | undefined;

  constructor(deps: ConstructorParameters<typeof LedgerKeeper>[0]) {
    this.#deps = deps;
    this.key = deps.key;
    this.keeper = new LedgerKeeper(deps);
  }

  /** Keeps them from now on. */
  start({ containers, sleepers, places }: BooksWatch): this {
    this.keeper.start();
    const walk: DiskWalker['walk'] = async (directory, options) => await this.#walker.walk(directory, options);
    this.#disks = new DiskMeter({ ...this.#deps, places, walk }).start();
    this.#spend = new SpendWatch({
      ...this.#deps,
      keeper: this.keeper,
      books: async () => await readPriceBooks(this.#deps.sql),
      containers: async () =>
        (await containers.list()).map(({ id, tenant, state, snapshot }) => ({
          id,
          tenant,
          isAwake: state === 'running' && snapshot === '',
        })),
      suspend: async (id) => await sleepers.suspend(id),
    });
    this.#watch = this.#spend.start();
    return this;
  }

  /** Prices were applied. */
  pricesChanged(): void {
    this.#spend?.booksChanged();
  }

  /** For the edge: wakes what may wake. Before the node's start is through, everything may. */
  wake(ids: readonly string[], sleepers: Sleepers, edge: Pick<Edge, 'wakeFailed'>): void {
    const isHeld = ids.some((id) => this.#spend?.mayWake(id) === false);
    if (!isHeld) sleepers.wanted(ids);
    else void edge.wakeFailed(ids, SPENT_RETRY_MS).catch(() => undefined); // Workers that are not there ask again.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch?.[Symbol.asyncDispose]();
    await this.#disks?.[Symbol.asyncDispose]();
    await this.#walker[Symbol.asyncDispose]();
    await this.keeper[Symbol.asyncDispose]();
  }
}
