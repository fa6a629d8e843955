/**
 * What is known about an exchange: filled phase by phase, accounted and written to the access log at its end.
 *
 * PERF: one record for each client connection, used for one exchange after the other (`resetRecord`); numbers and references, no closures.
 */
import type { CompiledRoute, Endpoint, Service } from '#routing/route-table.ts';
import type { PreparedActions } from './actions/prepared.ts';
import type { ExchangeError } from './error-response.ts';
import type { Account, Traffic } from './traffic.ts';

/** What is said of the TLS session of a client; the same for all its exchanges. */
export interface TlsFacts {
  readonly version: string | undefined;
  readonly sni: string | undefined;
  readonly alpn: string | undefined;
}

export interface ExchangeRecord {
  /** The client's address: the peer's, or what a trusted proxy says. */
  client: string;
  tls: TlsFacts | undefined;

  /**
   * The bytes of the request head, from 0 on, as they came. What they hold is hostile: octets 0x20–0x7e but `#` in the target; a method is a
   * token. Offsets below are into it.
   */
  head: Buffer;
  headBytes: number;
  methodEnd: number;
  /** The path without its query. Both 0 where the head was refused before there was a target. */
  pathStart: number;
  pathEnd: number;
  /** Where the trace id of a valid `traceparent` begins, 32 digits; -1: none. */
  traceIdStart: number;

  /** Lower case, without port; empty: none. */
  host: string;
  /** ASCII token characters, at most `REQUEST_ID_LENGTH_MAX`. */
  requestId: Buffer;
  /** The config version that matched the request. */
  configVersion: number;
  route: CompiledRoute | undefined;
  /** What the route led to when it was matched. */
  service: Service | undefined;
  /** What the route does beside that; undefined: nothing. */
  actions: PreparedActions | undefined;
  /** Lines about who was let through, which go on to the endpoint; may be empty. */
  passed: string;
  /** Lines about who the client is by its certificate, which go on too; may be empty. */
  identity: Buffer;
  endpoint: Endpoint | undefined;
  account: Account | undefined;
  /** The account counts it as a stream that is open. */
  isStream: boolean;

  /** 0 until something answered. */
  status: number;
  downstreamInBytes: number;
  downstreamOutBytes: number;
  upstreamInBytes: number;
  upstreamOutBytes: number;

  /** What of these an account has already. */
  settledDownstreamInBytes: number;
  settledDownstreamOutBytes: number;
  settledUpstreamInBytes: number;
  settledUpstreamOutBytes: number;

  startWallMs: number;
  /** Monotonic. */
  startMs: number;
  holdMs: number;
  /** -1: never connected, or no byte came. */
  connectMs: number;
  firstByteMs: number;
  error: ExchangeError | undefined;
}

/** What moved, and what of it an account has already. */
export type Movement = Pick<
  ExchangeRecord,
  | 'downstreamInBytes'
  | 'downstreamOutBytes'
  | 'upstreamInBytes'
  | 'upstreamOutBytes'
  | 'settledDownstreamInBytes'
  | 'settledDownstreamOutBytes'
  | 'settledUpstreamInBytes'
  | 'settledUpstreamOutBytes'
>;

const NOTHING = Buffer.alloc(0);

export function createRecord(client: string, tls: TlsFacts | undefined): ExchangeRecord {
  return {
    client,
    tls,
    head: NOTHING,
    headBytes: 0,
    methodEnd: 0,
    pathStart: 0,
    pathEnd: 0,
    traceIdStart: -1,
    host: '',
    requestId: NOTHING,
    configVersion: 0,
    route: undefined,
    service: undefined,
    actions: undefined,
    passed: '',
    identity: NOTHING,
    endpoint: undefined,
    account: undefined,
    isStream: false,
    status: 0,
    downstreamInBytes: 0,
    downstreamOutBytes: 0,
    upstreamInBytes: 0,
    upstreamOutBytes: 0,
    settledDownstreamInBytes: 0,
    settledDownstreamOutBytes: 0,
    settledUpstreamInBytes: 0,
    settledUpstreamOutBytes: 0,
    startWallMs: 0,
    startMs: 0,
    holdMs: 0,
    connectMs: -1,
    firstByteMs: -1,
    error: undefined,
  };
}

/** Makes `record` ready for another exchange of the same connection. */
export function resetRecord(record: ExchangeRecord): void {
  record.head = NOTHING;
  record.headBytes = 0;
  record.methodEnd = 0;
  record.pathStart = 0;
  record.pathEnd = 0;
  record.traceIdStart = -1;
  record.host = '';
  record.route = undefined;
  record.service = undefined;
  record.actions = undefined;
  resetOutcome(record);
}

/** The same where the head is the one before: what was read from it stays. */
export function resetOutcome(record: ExchangeRecord): void {
  record.passed = '';
  record.identity = NOTHING;
  record.endpoint = undefined;
  record.account = undefined;
  record.isStream = false;
  record.status = 0;
  record.downstreamInBytes = 0;
  record.downstreamOutBytes = 0;
  record.upstreamInBytes = 0;
  record.upstreamOutBytes = 0;
  record.settledDownstreamInBytes = 0;
  record.settledDownstreamOutBytes = 0;
  record.settledUpstreamInBytes = 0;
  record.settledUpstreamOutBytes = 0;
  record.holdMs = 0;
  record.connectMs = -1;
  record.firstByteMs = -1;
  record.error = undefined;
}

/** From now on it is billed by its time as well: `DataPlane.exchangeEnded` ends that. */
export function beginStream(traffic: Traffic, record: ExchangeRecord): void {
  if (record.account === undefined) return;
  record.isStream = true;
  traffic.streamBegins(record.account);
}

/** Brings an account up to date with what moved since the last time: at the end of an exchange, and now and then while it lasts. */
export function settle(account: Account, record: Movement): void {
  account.downstreamInBytes += record.downstreamInBytes - record.settledDownstreamInBytes;
  account.downstreamOutBytes += record.downstreamOutBytes - record.settledDownstreamOutBytes;
  account.upstreamInBytes += record.upstreamInBytes - record.settledUpstreamInBytes;
  account.upstreamOutBytes += record.upstreamOutBytes - record.settledUpstreamOutBytes;
  record.settledDownstreamInBytes = record.downstreamInBytes;
  record.settledDownstreamOutBytes = record.downstreamOutBytes;
  record.settledUpstreamInBytes = record.upstreamInBytes;
  record.settledUpstreamOutBytes = record.upstreamOutBytes;
}
