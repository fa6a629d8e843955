/** What a pool of workers is opened with, and what of it each worker gets. */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import { shareLimits } from './budget.ts';
import type { CertificateStock } from './certificate-delivery.ts';
import type { EdgeStart } from './committed.ts';
import { EDGE_LIMITS } from './edge-limits.ts';
import type { EdgeLimits } from './edge-limits.ts';
import type { Succession } from './generation/old-workers.ts';
import type { Issuing } from './issuing.ts';
import type { ChangeableOptions, ListenAddresses, TrafficReport, TrustOptions, WorkerOptions } from './protocol.ts';

export interface WorkerPoolDeps {
  readonly log: Log;
  readonly clock: Clock;
}

export interface WorkerPoolOptions {
  readonly workers: number;
  /** Path of `src/worker.ts`. */
  readonly workerFile: string;
  /** Port 0 takes a free one; `listening` tells which. */
  readonly listen: ListenAddresses;
  readonly accessLogFile: string;
  readonly logLevel?: WorkerOptions['logLevel'];
  /** Of the whole node. */
  readonly limits?: EdgeLimits;
  readonly trust?: TrustOptions;
  /** Whether plain HTTP is sent to HTTPS where a route says nothing of it. Default: false. */
  readonly redirect?: boolean;
  /** What a handshake gets whose name no certificate and no route is for. */
  readonly unknownNames?: WorkerOptions['unknownNames'];
  /** Gives hosts of routes their certificates of the internal CA. Undefined: they have none. */
  readonly issue?: Issuing;
  readonly initial: EdgeStart;
  /** Where the certificates are that `initial` and later changes tell of. Undefined: `initial` has them, and they stay in this process. */
  readonly certificates?: CertificateStock;
  /** Sealed with them, TLS sessions are resumed by any worker. Undefined: each has its own. */
  readonly ticketKeys?: Uint8Array;
  /** What this node's primaries hand on to each other; undefined: the workers end with theirs. */
  readonly succession?: Succession;
  /** Clients have called names that no certificate is for. Undefined: workers need not say so. */
  readonly onCalled?: (names: readonly string[]) => void;
  /** Resolves when it is written down: until then it is said again. What came before is to be passed over, by its number. */
  readonly onTraffic: (report: TrafficReport) => Promise<void> | void;
  /**
   * Requests wait for one of these endpoints, all of which sleep: any one will do. Said once, and again after some seconds while they wait. To be
   * answered with a table in which one is awake, or with `wakeFailed`.
   */
  readonly onWake: (endpointIds: readonly string[]) => void;
}

export interface WorkerStatus {
  readonly pid: number;
  readonly state: 'starting' | 'listening';
  /** The version it has acknowledged. */
  readonly version: number;
}

const WORKERS_MAX = 256;

/** Errors: ECLUSE_WORKERS_INVALID. */
export function checkWorkers(workers: number): void {
  if (Number.isInteger(workers) && workers >= 1 && workers <= WORKERS_MAX) return;
  throw new EcluseError({
    code: 'ECLUSE_WORKERS_INVALID',
    source: 'config',
    message: `${String(workers)} workers cannot be started`,
    mend: `set workers to a number from 1 to ${String(WORKERS_MAX)}, or auto`,
  });
}

const NOBODY_TRUSTED: TrustOptions = { trustedProxies: [], proxyProtocol: false };

/** Those of the whole node; what is absent has its default. */
export function changeableOf({
  accessLogFile,
  logLevel = 'info',
  limits = EDGE_LIMITS,
  trust = NOBODY_TRUSTED,
  redirect = false,
}: Pick<ChangeableOptions, 'accessLogFile'> & Partial<ChangeableOptions>): ChangeableOptions {
  return { accessLogFile, logLevel, limits, trust, redirect };
}

/** What one of `workers` gets of them. */
export function shareOfOptions(options: ChangeableOptions, workers: number): ChangeableOptions {
  const { limits } = options;
  return { ...options, limits: { ...limits, tenant: shareLimits(limits.tenant, workers) } };
}

export interface ChangeOptions {
  /** Endpoints that are thawed in the same turn as they get their new address. */
  readonly thaw?: readonly string[];
  /** Makes the change last, when every worker is ready for it and before any serves it. Where it throws, the old version stays. */
  readonly persist?: () => Promise<void>;
}
