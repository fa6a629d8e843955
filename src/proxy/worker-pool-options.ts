/** What a pool of workers is opened with, and what of it each worker gets. */
import type { Clock } from '#clock';
import type { Log } from '#log';
import { shareLimits } from './budget.ts';
import { EDGE_LIMITS } from './edge-limits.ts';
import type { EdgeLimits } from './edge-limits.ts';
import type { Succession } from './generation/old-workers.ts';
import type { Issuing } from './issuing.ts';
import type { ChangeableOptions, EdgeConfig, ListenAddresses, TrafficDelta, TrustOptions, WorkerOptions } from './protocol.ts';

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
  /** What a handshake gets whose name no certificate and no route is for. */
  readonly unknownNames?: WorkerOptions['unknownNames'];
  /** Gives hosts of routes their certificates of the internal CA. Undefined: they have none. */
  readonly issue?: Issuing;
  readonly initial: EdgeConfig;
  /** Sealed with them, TLS sessions are resumed by any worker. Undefined: each has its own. */
  readonly ticketKeys?: Uint8Array;
  /** What this node's primaries hand on to each other; undefined: the workers end with theirs. */
  readonly succession?: Succession;
  /** Clients have called names that no certificate is for. Undefined: workers need not say so. */
  readonly onCalled?: (names: readonly string[]) => void;
  readonly onTraffic: (deltas: readonly TrafficDelta[]) => void;
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

const NOBODY_TRUSTED: TrustOptions = { trustedProxies: [], proxyProtocol: false };

/** Those of the whole node; what is absent has its default. */
export function changeableOf({
  accessLogFile,
  logLevel = 'info',
  limits = EDGE_LIMITS,
  trust = NOBODY_TRUSTED,
}: Pick<ChangeableOptions, 'accessLogFile'> & Partial<ChangeableOptions>): ChangeableOptions {
  return { accessLogFile, logLevel, limits, trust };
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
