/**
 * Who a client is by its certificate, as routes ask.
 *
 * OpenSSL has judged the chain at the handshake, against all CA bundles that the host asks for. What is left to a route is whether the certificate is of its
 * own CA bundle, whether it is still valid, and whether that CA bundle was asked for at all: it may be newer than the connection.
 */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { CaBundle } from '#routing/route-tls.ts';
import { certificatesIn } from '#tls/pem-certificates.ts';

/** What a certificate is to a CA bundle. */
export type CertificateVerdict =
  /** `lines`: fields that tell endpoints whose it is. */
  | { readonly kind: 'valid'; readonly lines: Buffer }
  | { readonly kind: 'refused'; readonly why: CertificateFault; readonly detail: string }
  /** The connection was not asked for one of this CA bundle: another one has to be made. */
  | { readonly kind: 'unasked' };

export type CertificateFault = 'missing' | 'expired' | 'invalid';

/** Heads are written to a buffer that has that much room besides. */
const LINES_LENGTH_MAX = 16 * 1024;
const SUBJECT_LENGTH_MAX = 1024;
/** More than that is no chain. */
const CHAIN_LENGTH_MAX = 10;

const REASONS: ReadonlyMap<string, string> = new Map([
  ['CERT_NOT_YET_VALID', 'it is not valid yet'],
  ['INVALID_PURPOSE', 'it is not for clients'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'it is signed by itself'],
  ['UNABLE_TO_GET_ISSUER_CERT', 'it is not of the CA that is asked for, or a certificate between them is missing'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'it is not of the CA that is asked for, or a certificate between them is missing'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'it is not of the CA that is asked for, or a certificate between them is missing'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'it is not of the CA that is asked for'],
  ['CERT_SIGNATURE_FAILURE', 'its signature is not of the CA that is asked for'],
  ['CERT_CHAIN_TOO_LONG', 'its chain is too long'],
]);

export class ClientCertificate {
  readonly #asked: readonly CaBundle[];
  /** The client's, then what it sent with it. */
  readonly #chain: readonly X509Certificate[];
  /** The code of OpenSSL; empty: its chain holds. */
  readonly #fault: string;
  readonly #notAfterMs: number;
  readonly #verdicts = new Map<CaBundle, CertificateVerdict>();

  /** `asked`: whose certificates the handshake asked for. */
  constructor(socket: TLSSocket, asked: readonly CaBundle[]) {
    this.#asked = asked;
    this.#chain = chainOf(socket);
    this.#fault = socket.authorized ? '' : String(socket.authorizationError);
    this.#notAfterMs = this.#chain[0]?.validToDate.getTime() ?? Number.MAX_VALUE;
  }

  /** `caBundle` as routes have it now. */
  judge(caBundle: CaBundle, nowMs: number): CertificateVerdict {
    // A connection may last longer than the certificate that it began with.
    if (this.#fault === '' && nowMs >= this.#notAfterMs) return refused('expired', 'the client certificate has expired');
    const known = this.#verdicts.get(caBundle);
    if (known !== undefined) return known;
    const verdict = this.#judge(caBundle);
    this.#verdicts.set(caBundle, verdict);
    return verdict;
  }

  #judge({ name, pem }: CaBundle): CertificateVerdict {
    const asked = this.#asked.find((one) => one.name === name);
    if (asked?.pem !== pem) return { kind: 'unasked' };
    const [leaf, ...rest] = this.#chain;
    if (leaf === undefined) return refused('missing', 'a client certificate is needed, and none was sent');
    if (this.#fault === 'CERT_HAS_EXPIRED') return refused('expired', 'the client certificate has expired');
    if (this.#fault !== '')
      return refused('invalid', `the client certificate is not accepted: ${REASONS.get(this.#fault) ?? this.#fault}`);
    if (this.#asked.length > 1 && !leadsTo(leaf, rest, certificatesIn(pem)))
      return refused('invalid', 'the client certificate is not accepted: it is of another CA than this path asks for');
    const lines = linesOf(leaf, rest);
    if (lines.length > LINES_LENGTH_MAX)
      return refused(
        'invalid',
        `the client certificate and its chain are longer than ${String(LINES_LENGTH_MAX)} octets as fields`,
      );
    return { kind: 'valid', lines };
  }
}

function refused(why: CertificateFault, detail: string): CertificateVerdict {
  return { kind: 'refused', why, detail };
}

function chainOf(socket: TLSSocket): readonly X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  while (next !== undefined && chain.length < CHAIN_LENGTH_MAX) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

/**
 * Whether a chain that OpenSSL has found good, of several CA bundles, leads to one of `anchors`. Signatures, dates, and whether they may sign are looked at
 * again; constraints were OpenSSL's to judge.
 */
function leadsTo(leaf: X509Certificate, sent: readonly X509Certificate[], anchors: readonly X509Certificate[]): boolean {
  const trusted = new Set(anchors.map(({ fingerprint256 }) => fingerprint256));
  const nowMs = Date.now();
  let [at, left] = [leaf, [...anchors, ...sent]];
  for (let step = 0; step < CHAIN_LENGTH_MAX; step += 1) {
    if (trusted.has(at.fingerprint256)) return true;
    const signed = at;
    const issuer = left.find((one) => isIssuer(one, signed, nowMs));
    if (issuer === undefined) return false;
    left = left.filter((one) => one !== issuer);
    at = issuer;
  }
  return false;
}

function isIssuer(one: X509Certificate, signed: X509Certificate, nowMs: number): boolean {
  const isValid = one.validFromDate.getTime() <= nowMs && nowMs < one.validToDate.getTime();
  return one.ca && isValid && signed.checkIssued(one) && signed.verify(one.publicKey);
}

/** RFC 9440 §2, and for people and simple programs the subject and the fingerprint. */
function linesOf(leaf: X509Certificate, rest: readonly X509Certificate[]): Buffer {
  const sent = rest.filter(({ fingerprint256 }) => fingerprint256 !== leaf.fingerprint256);
  const fields = [
    ['Client-Cert', octetsField(leaf)],
    ...(sent.length === 0 ? [] : [['Client-Cert-Chain', sent.map(octetsField).join(', ')]]),
    ['X-Ecluse-Client-Cert-Fingerprint', leaf.fingerprint256.replaceAll(':', '').toLowerCase()],
    ['X-Ecluse-Client-Cert-Subject', subjectText(leaf.subject)],
  ];
  return Buffer.from(fields.map(([name = '', value = '']) => `${name}: ${value}\r\n`).join(''), 'latin1');
}

/** A byte sequence of RFC 9651 §3.3.5. */
function octetsField({ raw }: X509Certificate): string {
  return `:${raw.toString('base64')}:`;
}

/** SECURITY: what a CA wrote goes into a head: on one line, in visible ASCII, the rest as percent and hex. */
function subjectText(subject: string | undefined): string {
  return (subject ?? '')
    .split('\n')
    .join(', ')
    .replaceAll(/[^\u0020-\u0024\u0026-\u007e]/gu, (character) => encodeURIComponent(character.toWellFormed()))
    .slice(0, SUBJECT_LENGTH_MAX);
}
