/**
 * How TLS is spoken to clients of the edge, whatever certificate answers: versions, suites, sessions. There is no renegotiation: it costs a handshake each
 * time, and nothing of ours needs it.
 */
import { constants } from 'node:crypto';
import { TLS_SUITES } from '#tls-suites';
import type { SecureContextOptions, TlsOptions } from 'node:tls';

/** What a kind of handshakes has to be. */
export interface HandshakeKind {
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3';
  /** Whether clients are asked for certificates. */
  readonly asks: boolean;
}

/** How long after its handshake a session is resumed. Browsers come back within it; ticket keys are kept for much longer (`TICKET_KEYS_MS`). */
export const SESSION_SECONDS = 3600;

/**
 * Ticket keys are renewed that often. Node has one key at a time: tickets of the one before are worth nothing from then on, and those who hold one make a
 * full handshake. Twelve lives of a session: one in twelve at most meets that.
 */
export const TICKET_KEYS_MS: number = 12 * SESSION_SECONDS * 1000;

/** What belongs to the server, and cannot be said of a single certificate. */
export function handshakePolicy({ minVersion, asks }: HandshakeKind): TlsOptions & SecureContextOptions {
  const { SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET } = constants;
  return {
    minVersion,
    ciphers: TLS_SUITES,
    honorCipherOrder: true,
    // A session keeps the certificate of its client, but not the chain; and one that began without a certificate would go on without.
    secureOptions: asks ? SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET : SSL_OP_NO_RENEGOTIATION,
    sessionIdContext: asks ? 'ecluse-client-certificates' : 'ecluse',
    sessionTimeout: SESSION_SECONDS,
    requestCert: asks,
    // Routes judge: a handshake that breaks tells nobody why.
    rejectUnauthorized: false,
  };
}
