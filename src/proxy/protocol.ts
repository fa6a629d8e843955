/**
 * What the primary and a worker say to each other. Structured-cloneable; sent with node:cluster's `advanced` serialisation.
 *
 * A request of the primary carries `seq`; its answer (`ack`, `refused` or `metrics`) carries the same. IPC keeps the order, and a
 * worker handles `boot`, `options`, `prepare`, `commit`, `freeze` and `thaw` on receipt, so a later message sees what an earlier one did.
 */
import type { Spends } from './actions/rate-limits.ts';
import type { LogLevel } from '#log';
import type { EdgeLimits } from './edge-limits.ts';
import type { EndpointLoad } from './loads.ts';
import type { FreezeSpan, Frozen } from '#routing/activator.ts';
import type { PublishedPort, RouteConfig, RouteDelta } from '#routing/route-table.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import type { CertificateIndex, ToldPack } from '#tls/certificate-index.ts';
import type { UnknownNames } from '#tls/config.ts';
import type { ShownProofs } from '#tls/acme/shown-proofs.ts';
import type { IssueAnswer } from '#tls/issued-certificates.ts';

/** What a worker must say in its hello to understand all that a primary of another generation says. To be counted up with every change of these messages,
 * but for what a worker says more than before, where that may be absent. */
export const PROTOCOL_VERSION = 4;

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface ListenAddresses {
  readonly http: ListenAddress | undefined;
  readonly https: ListenAddress | undefined;
}

/** Everything that one config version consists of. */
export interface EdgeConfig {
  readonly config: RouteConfig;
  readonly certificates: CertificateIndex;
}

/** From one version to the next. */
export interface EdgeChange {
  readonly routes: RouteDelta;
  /** All of them. Undefined: as before. */
  readonly ports: readonly PublishedPort[] | undefined;
  /** New, or as they are from now on. */
  readonly certificates: readonly EdgeCertificate[];
  /** Names of those that are gone. */
  readonly removedCertificates: readonly string[];
}

export type FreezeOptions = FreezeSpan;
export type FreezeResult = Frozen;

export const NOTHING_FROZEN: FreezeResult = { cut: 0, waitedMs: 0, closedWebSockets: 0, endedEventStreams: 0, replayed: 0 };

/** Sleeping endpoints that could not be woken, and will not be tried for a while. */
export interface FailedWake {
  readonly endpointIds: readonly string[];
  readonly retryAfterMs: number;
}

/** What health checks found since the last time: endpoints that are to have no requests from now on, and that are to have them again. */
export interface HealthChange {
  readonly unhealthy: readonly string[];
  readonly healthy: readonly string[];
}

/** Whose word about clients is believed. */
export interface TrustOptions {
  readonly trustedProxies: readonly string[];
  /** Whether connections of trusted proxies begin with a PROXY header. */
  readonly proxyProtocol: boolean;
}

export interface WorkerOptions {
  readonly listen: ListenAddresses;
  /** The worker's own: shares of what is the node's. */
  readonly limits: EdgeLimits;
  /** How many workers this generation has. */
  readonly workers: number;
  readonly trust: TrustOptions;
  /** Whether plain HTTP is sent to HTTPS where a route says nothing of it. */
  readonly redirect: boolean;
  readonly unknownNames: UnknownNames;
  /** Whether it tells which names clients call that no certificate is for. */
  readonly tellsCalled: boolean;
  readonly accessLogFile: string;
  readonly logLevel: LogLevel;
  /** Counts the primaries of this node, and says where the one after this one will be looked for. */
  readonly generation: number;
  readonly successorSocket: string | undefined;
  /** TLS session tickets are sealed with them by all workers, of all generations (48 bytes). */
  readonly ticketKeys: Uint8Array | undefined;
}

/** What may change while a worker serves. Whether there are PROXY headers may not: it decides how the ports were opened. */
export type ChangeableOptions = Pick<WorkerOptions, 'limits' | 'trust' | 'redirect' | 'accessLogFile' | 'logLevel'>;

/** A pack that a worker is to fetch. */
export interface WantedPack {
  readonly number: number;
  /** As `PackQuestion` has it. */
  readonly id: number;
  readonly names: readonly string[];
  /** What else is in it. */
  readonly besides: readonly EdgeCertificate[];
}

export type ToWorker =
  /** Before `boot`: some of the certificates, in the order that the primary likes. */
  | { readonly kind: 'certificates'; readonly seq: number; readonly packs: readonly ToldPack[] }
  /** The same, from the socket of a process that reads them. */
  | {
      readonly kind: 'fetch-certificates';
      readonly seq: number;
      readonly path: string;
      readonly wanted: readonly WantedPack[];
    }
  | {
      readonly kind: 'boot';
      readonly seq: number;
      readonly options: WorkerOptions;
      readonly config: RouteConfig;
      readonly freezes: readonly { readonly endpointIds: readonly string[]; readonly deadlineMs: number }[];
      readonly failedWakes: readonly FailedWake[];
      /** All endpoints that are to have no requests. */
      readonly unhealthy: readonly string[];
      readonly proofs: ShownProofs;
    }
  | { readonly kind: 'prepare'; readonly seq: number; readonly change: EdgeChange }
  /** `thaw`: endpoints whose requests go on in the same turn, to where the new version says. */
  | { readonly kind: 'commit'; readonly seq: number; readonly version: number; readonly thaw: readonly string[] }
  | { readonly kind: 'abort'; readonly seq: number; readonly version: number }
  | ({ readonly kind: 'freeze'; readonly seq: number; readonly endpointIds: readonly string[] } & FreezeOptions)
  | { readonly kind: 'thaw'; readonly seq: number; readonly endpointIds: readonly string[] }
  | ({ readonly kind: 'wake-failed'; readonly seq: number } & FailedWake)
  /** For rate limits: what other workers let through (`Spends`). There is no answer to it. */
  | ({ readonly kind: 'spent-elsewhere'; readonly seq: number } & Spends)
  | ({ readonly kind: 'health'; readonly seq: number } & HealthChange)
  /** What CAs may look for from now on, all of it. */
  | { readonly kind: 'proofs'; readonly seq: number; readonly proofs: ShownProofs }
  /** A report is written down. */
  | { readonly kind: 'traffic-kept'; readonly seq: number; readonly number: number }
  | { readonly kind: 'metrics'; readonly seq: number }
  | { readonly kind: 'reopen-log'; readonly seq: number }
  /** What TLS session tickets are sealed with from now on. */
  | { readonly kind: 'ticket-keys'; readonly seq: number; readonly keys: Uint8Array }
  /** Other options than it booted with, for what comes from now on. Workers of earlier primaries keep theirs. */
  | { readonly kind: 'options'; readonly seq: number; readonly options: ChangeableOptions }
  /** To `certificate-wanted`; it needs no answer. */
  | { readonly kind: 'issued'; readonly seq: number; readonly answers: readonly IssueAnswer[] }
  /** The primary will be gone: it is to serve on for the one that comes, which may give it `drainMs` to end. */
  | { readonly kind: 'detach'; readonly seq: number; readonly drainMs: number }
  /**
   * From a later primary: what it serves, in one piece. Changes follow. Without certificates: it is told to end in the same breath, and what handshakes
   * it has under way go on with those that it has.
   */
  | {
      readonly kind: 'adopt';
      readonly seq: number;
      readonly config: RouteConfig;
      readonly freezes: readonly { readonly endpointIds: readonly string[]; readonly deadlineMs: number }[];
      readonly failedWakes: readonly FailedWake[];
      readonly unhealthy: readonly string[];
      readonly proofs: ShownProofs;
    }
  /** From a later primary, whose workers listen: it stops listening, and ends when the last of its connections does, or its time is over. */
  | { readonly kind: 'retire'; readonly seq: number }
  | { readonly kind: 'drain'; readonly seq: number; readonly deadlineMs: number };

/** What moved since the last message, for one endpoint of one tenant. Bytes are those of HTTP on the wire, without TLS. */
export interface TrafficDelta {
  readonly tenant: string;
  /** Undefined for what was answered without an endpoint. */
  readonly endpointId: string | undefined;
  readonly requests: number;
  readonly heldMs: number;
  /** How long streams were open, each for itself. Absent: a worker from before they were counted tells of it. */
  readonly streamMs?: number;
  /** From clients. */
  readonly downstreamInBytes: number;
  /** To clients. */
  readonly downstreamOutBytes: number;
  /** From the endpoint. */
  readonly upstreamInBytes: number;
  /** To the endpoint. */
  readonly upstreamOutBytes: number;
}

/** What moved at all endpoints of one worker. */
export interface TrafficReport {
  /** The worker, among all that ever were. */
  readonly epoch: string;
  /** Its reports are numbered from 1. Each is said until it is kept, so it may come twice. */
  readonly number: number;
  readonly deltas: readonly TrafficDelta[];
}

export type FromWorker =
  | { readonly kind: 'online' }
  /** The first word to a primary that did not fork it. */
  | {
      readonly kind: 'hello';
      readonly protocol: number;
      readonly pid: number;
      readonly generation: number;
      readonly listen: ListenAddresses;
      /** Endpoints that the last primary's checks found unhealthy: the next one has made none yet. */
      readonly unhealthy: readonly string[];
    }
  | { readonly kind: 'listening'; readonly version: number }
  /** `missing`: certificates that were to be fetched, and are not there. */
  | { readonly kind: 'ack'; readonly seq: number; readonly frozen?: FreezeResult; readonly missing?: readonly string[] }
  | { readonly kind: 'refused'; readonly seq: number; readonly reason: string; readonly code?: string }
  | { readonly kind: 'metrics'; readonly seq: number; readonly metrics: readonly object[] }
  | { readonly kind: 'traffic'; readonly report: TrafficReport }
  | ({ readonly kind: 'spent' } & Spends)
  /** All endpoints that have something under way, or had since the last message. */
  | { readonly kind: 'loads'; readonly loads: readonly EndpointLoad[] }
  /** Requests wait for one of these endpoints, all of which sleep. Said again while they wait. */
  | { readonly kind: 'wake'; readonly endpointIds: readonly string[] }
  /** Handshakes wait for certificates of the internal CA for these hosts of routes. Said again while they wait. */
  | { readonly kind: 'certificate-wanted'; readonly hosts: readonly string[] }
  /** Clients have called names that no certificate is for, though a route may be. */
  | { readonly kind: 'called'; readonly names: readonly string[] };
