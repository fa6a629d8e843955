/**
 * What a TLS handshake gets: the certificate that people added for its name, else what the internal CA gives a host that there is a route for, else the
 * node's default, or an alert where the operator wants that.
 */
import type { SecureContext, TLSSocket } from 'node:tls';
import { Socket } from 'node:net';
import { reasonOf } from '#errors';
import { normaliseRequestHost } from '#routing/host-name.ts';
import { certificateHostOf } from '#routing/match.ts';
import { handshakeWishOf } from '#routing/route-tls.ts';
import type { CaBundle } from '#routing/route-tls.ts';
import { DEFAULT_CERTIFICATE } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import type { UnknownNames } from '#tls/config.ts';
import { AskingContexts } from '#tls/asking-contexts.ts';
import type { HandshakeKind } from '#tls/policy.ts';
import { SecureContexts } from '#tls/secure-contexts.ts';
import { CalledNames } from './called-names.ts';
import type { DataPlane } from './data-plane.ts';

/** How a handshake goes on. */
export type HandshakeAnswer =
  /** `asked`: whose certificates clients are asked for. */
  | { readonly kind: 'context'; readonly context: SecureContext; readonly asked: readonly CaBundle[] }
  | { readonly kind: 'alert'; readonly alert: TlsAlert };

/** Descriptions of RFC 8446 §6 and RFC 6066 §3. */
const ALERTS = { 'protocol-version': 70, 'internal-error': 80, 'unrecognized-name': 112 } as const;
export type TlsAlert = keyof typeof ALERTS;
/** A record of an alert (21) of TLS 1.2, as which TLS 1.3 writes it too, with two bytes: fatal (2), and its description. */
const ALERT_HEAD = [21, 3, 3, 0, 2, 2] as const;

/** The handshake that is under way. */
interface Shaking {
  /** Undefined where Node does not tell. */
  readonly socket: TLSSocket | undefined;
  readonly kind: HandshakeKind;
}

export class ServerNames {
  readonly #plane: DataPlane;
  readonly #unknown: UnknownNames;
  readonly #called: CalledNames | undefined;
  readonly #contexts = new SecureContexts();
  readonly #asking = new AskingContexts();

  constructor(plane: DataPlane, unknown: UnknownNames, onCalled?: (names: readonly string[]) => void) {
    this.#plane = plane;
    this.#unknown = unknown;
    this.#called = onCalled === undefined ? undefined : new CalledNames(plane.clock, onCalled);
  }

  /** Answers at once, or when the primary has signed one. `serverName` is what a client wrote. */
  answer(serverName: string, shaking: Shaking, done: (answer: HandshakeAnswer) => void): void {
    const name = serverName.toLowerCase();
    const asked = this.#askedFor(name, shaking);
    if (asked === 'protocol-version') done({ kind: 'alert', alert: asked });
    else
      this.#find(name, (answer) => {
        done(typeof answer === 'string' ? { kind: 'alert', alert: answer } : this.#with(answer, asked));
      });
  }

  /** Whose certificates are asked for. An alert where the handshake has not the version that the host wants, as one may whose hello could not be read. */
  #askedFor(name: string, { socket, kind }: Shaking): readonly CaBundle[] | 'protocol-version' {
    const { table } = this.#plane;
    if (table.handshakeRoutes === 0) return [];
    const wish = handshakeWishOf(table, normaliseRequestHost(name) ?? name);
    if (wish?.minVersion === 'TLSv1.3' && kind.minVersion !== 'TLSv1.3' && socket?.getProtocol() !== 'TLSv1.3')
      return 'protocol-version';
    return kind.asks ? (wish?.caBundles ?? []).flatMap((one) => table.caBundles.get(one) ?? []) : [];
  }

  #find(name: string, done: (found: EdgeCertificate | TlsAlert) => void): void {
    const added = this.#plane.certificates.find(name);
    if (added !== undefined) {
      done(added);
      return;
    }
    this.#called?.called(name);
    const host = certificateHostOf(this.#plane.table, name);
    if (host === undefined) {
      done(this.#ofUnknown());
      return;
    }
    this.#plane.issued.certificateFor(host, (certificate) => {
      done(certificate ?? 'internal-error');
    });
  }

  #ofUnknown(): EdgeCertificate | TlsAlert {
    const fallback = this.#unknown === 'alert' ? undefined : this.#plane.certificates.get(DEFAULT_CERTIFICATE);
    // Without a default the handshake must end: naming another host's would tell clients who else is here.
    return fallback ?? 'unrecognized-name';
  }

  #with(certificate: EdgeCertificate, asked: readonly CaBundle[]): HandshakeAnswer {
    try {
      const context = asked.length === 0 ? this.#contexts.of(certificate) : this.#asking.of(certificate, asked);
      return { kind: 'context', context, asked };
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

/**
 * What a TLS socket of a server reads from. Node keeps it, and says so nowhere: where it did not, a handshake that is refused would end without an alert. PERF:
 * a map of what is beneath handshakes, by addresses and ports, was asked twice for each.
 */
export function connectionBeneath(socket: Socket): Socket | undefined {
  const parent: unknown = Reflect.get(socket, '_parent');
  return parent instanceof Socket ? parent : undefined;
}

/** Tells a connection beneath a TLS socket from all others, while both live. One port of a client may have connections to several of our addresses. */
export function connectionKey(socket: Socket | TLSSocket): string {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket;
  return `${remoteAddress} ${String(remotePort)} ${localAddress} ${String(localPort)}`;
}
