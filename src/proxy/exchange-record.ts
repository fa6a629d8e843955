/** What is known about an exchange: filled phase by phase, written to the access log at the end. */
import { randomUUID } from 'node:crypto';
import type { Endpoint } from '#routing/route-table.ts';
import { pathOf } from '#routing/path-prefix.ts';
import type { Clock } from '#clock';
import type { AccessLogLine } from './access-log.ts';
import type { ExchangeError } from './error-response.ts';
import { acceptedRequestId, traceIdOf } from './headers.ts';
import { ACCESS_LOG_PATH_LENGTH_MAX } from './limits.ts';
import type { RequestHead, TlsFacts } from './request-head.ts';
import type { Account, Traffic, TrafficField } from './traffic.ts';

export interface ExchangeRecord {
  readonly head: RequestHead;
  readonly requestId: string;
  /** The config version that matched the request. */
  readonly configVersion: number;
  readonly startMs: number;
  readonly startWallMs: number;
  readonly bytes: Record<TrafficField, number>;
  account: Account | undefined;
  host: string | undefined;
  route: string | undefined;
  service: string | undefined;
  tenant: string | undefined;
  endpoint: Endpoint | undefined;
  /** 0 until something answered. */
  status: number;
  holdMs: number;
  connectMs: number | undefined;
  firstByteMs: number | undefined;
  error: ExchangeError | undefined;
}

export function openRecord(clock: Clock, head: RequestHead, configVersion: number): ExchangeRecord {
  return {
    head,
    requestId: acceptedRequestId(head.rawHeaders) ?? randomUUID(),
    configVersion,
    startMs: clock.monotonicMs(),
    startWallMs: clock.nowMs(),
    bytes: { downstreamInBytes: head.headBytes, downstreamOutBytes: 0, upstreamInBytes: 0, upstreamOutBytes: 0 },
    account: undefined,
    host: undefined,
    route: undefined,
    service: undefined,
    tenant: undefined,
    endpoint: undefined,
    status: 0,
    holdMs: 0,
    connectMs: undefined,
    firstByteMs: undefined,
    error: undefined,
  };
}

/** Counts bytes on the exchange and on the account that pays for them. */
export function count(record: ExchangeRecord, field: TrafficField, bytes: number): void {
  record.bytes[field] += bytes;
  if (record.account !== undefined) record.account[field] += bytes;
}

/** Writes from now on to the account of the record's tenant and endpoint. What was counted before an account was known goes to the first. */
export function moveToAccount(traffic: Traffic, record: ExchangeRecord): void {
  const account = traffic.open(record.tenant ?? '', record.endpoint?.id);
  if (record.account === undefined) account.downstreamInBytes += record.bytes.downstreamInBytes;
  else traffic.close(record.account);
  record.account = account;
}

export function accessLogLine(record: ExchangeRecord, totalMs: number): AccessLogLine {
  const { head, bytes } = record;
  return {
    time: new Date(record.startWallMs).toISOString(),
    requestId: record.requestId,
    traceId: traceIdOf(head.rawHeaders) ?? null,
    configVersion: record.configVersion,
    route: record.route ?? null,
    service: record.service ?? null,
    endpoint: record.endpoint?.id ?? null,
    tenant: record.tenant ?? null,
    client: head.clientAddress,
    method: head.method,
    host: record.host ?? null,
    path: pathOf(head.target).slice(0, ACCESS_LOG_PATH_LENGTH_MAX),
    status: record.status,
    downstreamInBytes: bytes.downstreamInBytes,
    downstreamOutBytes: bytes.downstreamOutBytes,
    upstreamInBytes: bytes.upstreamInBytes,
    upstreamOutBytes: bytes.upstreamOutBytes,
    totalMs: rounded(totalMs),
    holdMs: rounded(record.holdMs),
    connectMs: roundedOrNull(record.connectMs),
    firstByteMs: roundedOrNull(record.firstByteMs),
    ...tlsPart(head.tls),
    errorCode: record.error ?? null,
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function roundedOrNull(ms: number | undefined): number | null {
  return ms === undefined ? null : rounded(ms);
}

function tlsPart(tls: TlsFacts | undefined): Pick<AccessLogLine, 'tlsVersion' | 'sni' | 'alpn'> {
  return { tlsVersion: tls?.version ?? null, sni: tls?.sni ?? null, alpn: tls?.alpn ?? null };
}
