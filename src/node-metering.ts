/** The ledger's books of a node, and what operators ask of them. */
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
import { EcluseError } from '#errors';
import { DiskWalker } from '#isolation/disk-walk.ts';
import type { Log } from '#log';
import { isVolumeKey, shortId } from '#metering/ledger-chain.ts';
import type { ExportEnd } from '#metering/ledger-head.ts';
import { findVolumeUse } from '#state/disk-use.ts';
import { latestIncarnations } from '#state/ledger.ts';
import { takeUpEarlierRows } from '#state/ledger-heads.ts';
import type { KnownKey } from '#state/ledger-heads.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import type { Edge } from './node-edge.ts';
import type { LedgerKeys } from './node-ledger-key.ts';
import { readPriceBooks } from './node-prices.ts';

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

interface LedgerDeps extends LedgerKeys {
  readonly clock: Clock;
  readonly sql: Sql;
}

export class LedgerOperations implements LedgerControl {
  readonly #deps: LedgerDeps;
  readonly #writer: LedgerWriter;

  constructor(deps: LedgerDeps) {
    this.#deps = deps;
    this.#writer = new LedgerWriter(deps.sql);
  }

  async keys(): Promise<readonly KnownKey[]> {
    const { key, keys } = this.#deps;
    const isToday = ({ id }: KnownKey): boolean => id === key.id;
    return [...keys.filter((one) => !isToday(one)), ...keys.filter(isToday)];
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

interface BooksDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
}

/** The ledger's keys and books of a node, the watch over what tenants spend, and the one over what is on disk. */
export class Books implements AsyncDisposable {
  readonly keys: LedgerKeys;
  readonly keeper: LedgerKeeper;
  readonly #deps: BooksDeps;
  #spend: SpendWatch | undefined;
  #watch: AsyncDisposable | undefined;
  readonly #walker = new DiskWalker();
  #disks: DiskMeter | undefined;

  constructor({ keys, ...deps }: BooksDeps & { readonly keys: LedgerKeys }) {
    this.#deps = deps;
    this.keys = keys;
    this.keeper = new LedgerKeeper({ ...deps, key: keys.key });
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
