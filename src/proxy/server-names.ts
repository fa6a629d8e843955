/**
 * What a TLS handshake gets: the certificate that people added for its name, else what the internal CA gives a host that there is a route for, else the
 * node's default, or an alert where the operator wants that.
 */
import type { SecureContext, TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';
import { reasonOf } from '#errors';
import { certificateHostOf } from '#routing/match.ts';
import { DEFAULT_CERTIFICATE } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import type { UnknownNames } from '#tls/config.ts';
import { SecureContexts } from '#tls/secure-contexts.ts';
import { CalledNames } from './called-names.ts';
import type { DataPlane } from './data-plane.ts';

/** How a handshake goes on. */
export type HandshakeAnswer =
  | { readonly kind: 'context'; readonly context: SecureContext }
  | { readonly kind: 'alert'; readonly alert: TlsAlert };

/** Descriptions of RFC 8446 §6 and RFC 6066 §3. */
const ALERTS = { 'internal-error': 80, 'unrecognized-name': 112 } as const;
export type TlsAlert = keyof typeof ALERTS;
/** A record of an alert (21) of TLS 1.2, as which TLS 1.3 writes it too, with two bytes: fatal (2), and its description. */
const ALERT_HEAD = [21, 3, 3, 0, 2, 2] as const;

export class ServerNames {
  readonly #plane: DataPlane;
  readonly #unknown: UnknownNames;
  readonly #called: CalledNames | undefined;
  readonly #contexts = new SecureContexts();

  constructor(plane: DataPlane, unknown: UnknownNames, onCalled?: (names: readonly string[]) => void) {
    this.#plane = plane;
    this.#unknown = unknown;
    this.#called = onCalled === undefined ? undefined : new CalledNames(plane.clock, onCalled);
  }

  /** Answers at once, or when the primary has signed one. `serverName` is what a client wrote. */
  answer(serverName: string, done: (answer: HandshakeAnswer) => void): void {
    const name = serverName.toLowerCase();
    const added = this.#plane.certificates.find(name);
    if (added !== undefined) {
      done(this.#with(added));
      return;
    }
    this.#called?.called(name);
    const host = certificateHostOf(this.#plane.table, name);
    if (host === undefined) {
      done(this.#ofUnknown());
      return;
    }
    this.#plane.issued.certificateFor(host, (certificate) => {
      done(certificate === undefined ? { kind: 'alert', alert: 'internal-error' } : this.#with(certificate));
    });
  }

  #ofUnknown(): HandshakeAnswer {
    const fallback = this.#unknown === 'alert' ? undefined : this.#plane.certificates.get(DEFAULT_CERTIFICATE);
    // Without a default the handshake must end: naming another host's would tell clients who else is here.
    return fallback === undefined ? { kind: 'alert', alert: 'unrecognized-name' } : this.#with(fallback);
  }

  #with(certificate: EdgeCertificate): HandshakeAnswer {
    try {
      return { kind: 'context', context: this.#contexts.of(certificate) };
    } catch (error) {
      this.#plane.log.error({ certificate: certificate.name, reason: reasonOf(error) }, 'a certificate cannot be used');
      return { kind: 'alert', alert: 'internal-error' };
    }
  }
}

/**
 * Says why before a handshake is ended: Node has no way to choose the alert. Until the server's first word nothing is encrypted, so that the record can be
 * written beneath TLS, on the connection itself. To be called while the handshake waits for its certificate, and never later.
 */
export function sendAlert(raw: Socket, alert: TlsAlert): void {
  raw.write(Buffer.from([...ALERT_HEAD, ALERTS[alert]]), () => undefined);
}

/** Tells a connection beneath a TLS socket from all others, while both live. One port of a client may have connections to several of our addresses. */
export function connectionKey(socket: Socket | TLSSocket): string {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket;
  return `${remoteAddress} ${String(remotePort)} ${localAddress} ${String(localPort)}`;
}
