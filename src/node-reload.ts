/**
 * `ecluse.yaml` read again while the node runs (`ecluse reload`, SIGHUP).
 *
 * The file is checked as a whole first, and nothing is changed where it is not in order. What can change then changes on all workers or on none; what
 * cannot is named, key by key, and stays as it is until an upgrade or a restart. So no key is ever applied in a part of the node only.
 */
import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ReloadReport } from '#admin/node-control.ts';
import type { Clock } from '#clock';
import type { NodeConfig } from '#config';
import { EcluseError, codeOf, errorLine, reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import { setLogLevel } from '#log';
import type { Log } from '#log';
import type { ChangeableOptions } from '#proxy/protocol.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import { changeWrite } from '#state/change-log.ts';
import type { Sql } from '#state/sql.ts';
import type { Edge } from './node-edge.ts';
import type { Fleet } from './node-fleet.ts';

/** The configuration as it is in effect. Parts that can follow a change ask here when they need it. */
export interface LiveConfig {
  config: NodeConfig;
}

export interface ReloadDeps {
  /** The root of all loggers of this process. */
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly live: LiveConfig;
  readonly readConfig: () => Promise<NodeConfig>;
  readonly pool: Pick<WorkerPool, 'reconfigure'>;
  readonly edge: Pick<Edge, 'publish'>;
  readonly fleet: Pick<Fleet, 'follow'>;
  /** The domain has changed: what has it in a certificate gets another. */
  readonly onDomain: () => Promise<void>;
}

/** Keys that can change, or mappings of such keys. */
const LIVE_KEYS = ['domain', 'logLevel', 'accessLog', 'trustedProxies', 'rebalance', 'edge', 'tls.redirect'] as const;
/** Among them, what is fixed with the ports: Node takes the limit of handshakes when a TLS server is made. */
const FIXED_KEYS: ReadonlySet<string> = new Set(['edge.timeouts.tlsHandshake']);

/** A file of some lines, and a directory: more is a file system that does not answer, or a pipe that nobody writes to. */
const FILE_LIMIT_MS = 10_000;

export class Reloads {
  readonly #deps: ReloadDeps;
  readonly #turns = new KeyedLock();
  #waiting: Promise<ReloadReport> | undefined;

  constructor(deps: ReloadDeps) {
    this.#deps = deps;
  }

  /**
   * Reads the file and changes what can change. Who asks while others wait for their turn gets what they get, so that any number of signals makes two
   * readings. Errors: ECLUSE_CONFIG_INVALID, ECLUSE_RELOAD_REFUSED, ECLUSE_OPTIONS_REFUSED; nothing was changed.
   */
  async reload(): Promise<ReloadReport> {
    this.#waiting ??= this.#turns.run('reload', async () => {
      this.#waiting = undefined;
      return await this.#reload();
    });
    return await this.#waiting;
  }

  /** The same for a signal, whose sender hears of it from the log only. */
  async hangUp(): Promise<void> {
    const { log } = this.#deps;
    try {
      const { file, applied, needsRestart } = await this.reload();
      log.info({ file, applied, needsRestart }, 'the configuration was read again');
      if (needsRestart.length > 0) log.warn({ needsRestart }, 'keys changed that need a restart, or: ecluse upgrade');
    } catch (error) {
      log.error({ reason: errorLine(error) }, 'the configuration was not taken, and nothing was changed');
    }
  }

  async #reload(): Promise<ReloadReport> {
    const { live, pool, fleet, log } = this.#deps;
    const before = live.config;
    if (before.file === undefined)
      throw refused('the node was started without a file to read again', 'start it with --config FILE');
    const read = await inTime('the file', this.#deps.readConfig());
    const { applied, needsRestart, unchanged } = compareKeys(before, read);
    const report = { file: before.file, applied, needsRestart, unchanged };
    if (applied.length === 0) return { ...report, workers: [] };
    const next = merged(before, read, applied);
    if (next.accessLogFile !== before.accessLogFile) await inTime('the access log', checkAccessLog(next.accessLogFile));
    const workers = await pool.reconfigure(optionsOf(next));
    live.config = next;
    if (next.domain !== before.domain) await this.#changeDomain(before);
    setLogLevel(log, next.logLevel);
    fleet.follow(next.rebalance);
    await this.#note(report);
    return { ...report, workers };
  }

  /** All names of containers that have no label for it. Errors: ECLUSE_RELOAD_REFUSED, with everything as it was. */
  async #changeDomain(before: NodeConfig): Promise<void> {
    const { live, pool, edge, onDomain, log } = this.#deps;
    const follow = async (): Promise<void> => {
      await onDomain();
      await edge.publish();
    };
    try {
      await follow();
    } catch (error) {
      live.config = before;
      await Promise.all([pool.reconfigure(optionsOf(before)), follow()]).catch((second: unknown) => {
        log.error({ reason: reasonOf(second) }, 'a reload that was refused could not be taken back as a whole');
      });
      throw refused(`the domain cannot change: ${reasonOf(error)}`, 'see the log of the daemon', error);
    }
  }

  /** For who looks at the change log. A store that is full keeps nobody from a reload. */
  async #note({ file, applied, needsRestart }: Omit<ReloadReport, 'workers'>): Promise<void> {
    const { sql, clock, log } = this.#deps;
    try {
      await sql.write([changeWrite(clock.nowMs(), 'node.reloaded', file, { applied, needsRestart })]);
    } catch (error) {
      log.error({ reason: reasonOf(error) }, 'a reload was not written down');
    }
  }
}

function isLive(key: string): boolean {
  return !FIXED_KEYS.has(key) && LIVE_KEYS.some((live) => key === live || key.startsWith(`${live}.`));
}

function compareKeys(before: NodeConfig, read: NodeConfig): Pick<ReloadReport, 'applied' | 'needsRestart' | 'unchanged'> {
  const keys = [...read.keys.keys()];
  const isChanged = (key: string): boolean => before.keys.get(key) !== read.keys.get(key);
  // Proxies whose PROXY headers are read go on being read from: the two keys change together, or neither does.
  const waits = (key: string): boolean => key === 'trustedProxies' && isChanged('proxyProtocol');
  const changed = keys.filter(isChanged);
  return {
    applied: changed.filter((key) => isLive(key) && !waits(key)),
    needsRestart: changed.filter((key) => !isLive(key) || waits(key)),
    unchanged: keys.filter((key) => !isChanged(key)),
  };
}

/** The old configuration with what is applied of the new one. */
function merged(before: NodeConfig, read: NodeConfig, applied: readonly string[]): NodeConfig {
  const keys = new Map(before.keys);
  for (const key of applied) keys.set(key, read.keys.get(key) ?? '');
  return {
    ...before,
    domain: read.domain,
    logLevel: read.logLevel,
    accessLogFile: read.accessLogFile,
    rebalance: read.rebalance,
    redirect: read.redirect,
    trustedProxies: applied.includes('trustedProxies') ? read.trustedProxies : before.trustedProxies,
    edge: { ...read.edge, tlsHandshakeTimeoutMs: before.edge.tlsHandshakeTimeoutMs },
    keys,
  };
}

function optionsOf({ edge, trustedProxies, proxyProtocol, redirect, accessLogFile, logLevel }: NodeConfig): ChangeableOptions {
  return { limits: edge, trust: { trustedProxies, proxyProtocol }, redirect, accessLogFile, logLevel };
}

/** Whether lines can be written there, asked before the workers would only say so in the log. */
async function checkAccessLog(file: string): Promise<void> {
  try {
    // One directory, and no more: in some places (/proc) Node's recursive way goes on for ever.
    await mkdir(dirname(file), { mode: 0o750 }).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error;
    });
    const handle = await open(file, 'a', 0o640);
    await handle.close();
  } catch (error) {
    throw refused(`accessLog: ${file} cannot be written: ${reasonOf(error)}`, 'name another file, or mend that', error);
  }
}

/** What hangs on a file system or a pipe keeps no later reload waiting. */
async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(refused(`${what} could not be read or opened in ${String(FILE_LIMIT_MS / 1000)} s`, 'check its file system'));
  }, FILE_LIMIT_MS);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function refused(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_RELOAD_REFUSED', source: 'config', status: 409, message, mend, cause });
}
