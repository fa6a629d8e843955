/**
 * What routes want of TLS, asked of each request before anything else: HTTPS in place of HTTP, a client certificate, and a connection whose handshake was for
 * this host where that decides something. Pure.
 *
 * SECURITY: who is not asked for a certificate has none. A connection is good for the host of its handshake only, as soon as one of the two hosts asks
 * for certificates (RFC 9110 §15.5.20); over plain HTTP nobody can be asked, so a route that requires one refuses.
 */
import type { HandshakeWish, RouteTls } from '#routing/route-tls.ts';
import type { CaBundle } from '#routing/route-tls.ts';
import type { CertificateFault } from './client-certificate.ts';
import type { ClientPeer } from './connection/client-peer.ts';
import type { ExchangeError, OwnResponse } from './error-response.ts';
import type { ExchangeRecord } from './record.ts';
import { pathOf, queryOf } from './request-target.ts';

export type SecureVerdict =
  /** `identity`: lines that tell endpoints who the client is. */
  | { readonly kind: 'go'; readonly identity: Buffer }
  | { readonly kind: 'redirect' }
  | { readonly kind: 'refuse'; readonly error: ExchangeError; readonly detail: string | undefined };

export interface SecureQuestion {
  /** Of the route. */
  readonly tls: RouteTls | undefined;
  /** Of the host of the request. */
  readonly wish: HandshakeWish | undefined;
  readonly host: string;
  readonly peer: ClientPeer;
  readonly caBundles: ReadonlyMap<string, CaBundle>;
  /** Whether the node sends plain HTTP to HTTPS. */
  readonly redirects: boolean;
  readonly nowMs: number;
  /** What a proxy that is believed says of its client's connection. */
  readonly saidProto: () => string | undefined;
}

const NOBODY = Buffer.alloc(0);
const GO: SecureVerdict = { kind: 'go', identity: NOBODY };
const HTTPS_PORT = 443;
const OF_FAULT: Readonly<Record<CertificateFault, ExchangeError>> = {
  missing: 'client-certificate-missing',
  expired: 'client-certificate-expired',
  invalid: 'client-certificate-invalid',
};

export function judgeSecurity(question: SecureQuestion): SecureVerdict {
  const { tls, peer } = question;
  if (peer.tls === undefined) return judgePlain(question);
  const misdirected = misdirection(question);
  if (misdirected !== undefined) return refuse('misdirected', misdirected);
  const rule = tls?.clientCertificate;
  if (rule === undefined) return GO;
  const caBundle = question.caBundles.get(rule.caBundle);
  const verdict = caBundle === undefined ? undefined : peer.client?.judge(caBundle, question.nowMs);
  if (verdict === undefined || verdict.kind === 'unasked')
    return refuse(
      'misdirected',
      'this connection was not asked for the client certificate that the route wants: make another one',
    );
  if (verdict.kind === 'valid') return rule.forward ? { kind: 'go', identity: verdict.lines } : GO;
  return rule.mode === 'optional' ? GO : refuse(OF_FAULT[verdict.why], verdict.detail);
}

/** Challenges of ACME are answered before a route is looked for, and never come here. */
function judgePlain({ tls, peer, redirects, saidProto }: SecureQuestion): SecureVerdict {
  // Who comes by way of a proxy that has done TLS would be sent in circles.
  const redirect = (tls?.redirect ?? redirects) && !(peer.trusted && saidProto()?.toLowerCase() === 'https');
  if (redirect) return { kind: 'redirect' };
  return tls?.clientCertificate?.mode === 'required' ? refuse('https-needed') : GO;
}

/** Why the connection is not for the host. */
function misdirection({ wish, host, peer }: SecureQuestion): string | undefined {
  const asks = peer.client !== undefined || (wish !== undefined && wish.caBundles.length > 0);
  if (asks && peer.serverName !== host)
    return 'client certificates are asked for by host, and the handshake of this connection was for another one';
  if (wish?.minVersion === 'TLSv1.3' && peer.tls?.version !== 'TLSv1.3')
    return 'this host is served over TLS 1.3 only, and the handshake of this connection was for another one';
  return undefined;
}

function refuse(error: ExchangeError, detail?: string): SecureVerdict {
  return { kind: 'refuse', error, detail };
}

/** RFC 9110 §15.4.9: the method stays. `port`: where HTTPS is served. */
export function httpsRedirect(record: ExchangeRecord, port: number): OwnResponse {
  const authority = port === HTTPS_PORT ? record.host : `${record.host}:${String(port)}`;
  return { status: 308, fields: [['Location', `https://${authority}${pathOf(record)}${queryOf(record)}`]], body: '' };
}
