/** What is made for a CA: a key with a request for its certificate, the certificate of a TLS-ALPN-01 challenge, and the name of a certificate for ARI. */
import { createHash, X509Certificate as NodeCertificate } from 'node:crypto';
// Before the library: it needs what this one sets up.
import { SIGNING_ALGORITHM, keyPemOf, newKeys } from '#tls/issue.ts';
import {
  AuthorityKeyIdentifierExtension,
  Extension,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { EdgeCertificate } from '#tls/certificate.ts';

export interface CertificateRequest {
  readonly keyPem: string;
  /** DER as base64url, as RFC 8555 §7.4 wants it. */
  readonly csr: string;
}

/** id-pe-acmeIdentifier (RFC 8737 §3). */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31';
/** Of DER: an OCTET STRING of 32 octets. */
const DIGEST_HEAD = Buffer.from([0x04, 0x20]);
const DAY_MS = 86_400_000;

function namesExtension(names: readonly string[], critical: boolean): SubjectAlternativeNameExtension {
  return new SubjectAlternativeNameExtension(
    names.map((value) => ({ type: 'dns', value }) as const),
    critical,
  );
}

/** With a key of its own, EC P-256, which nobody else has had. */
export async function newCertificateRequest(names: readonly string[]): Promise<CertificateRequest> {
  const keys = await newKeys();
  const request = await Pkcs10CertificateRequestGenerator.create({
    // No common name: it is longer than 64 characters for some, and clients do not look at it.
    name: [],
    keys,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [namesExtension(names, false)],
  });
  return { keyPem: keyPemOf(keys.privateKey), csr: Buffer.from(request.rawData).toString('base64url') };
}

/** What a CA looks for at a handshake with `acme-tls/1` (RFC 8737 §3). */
export async function newChallengeCertificate(host: string, keyAuthorization: string, nowMs: number): Promise<EdgeCertificate> {
  const keys = await newKeys();
  const digest = createHash('sha256').update(keyAuthorization).digest();
  const notAfterMs = nowMs + DAY_MS;
  const certificate = await X509CertificateGenerator.createSelfSigned({
    notBefore: new Date(nowMs - DAY_MS),
    notAfter: new Date(notAfterMs),
    serialNumber: '01',
    name: [{ CN: ['ACME challenge'] }],
    keys,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [namesExtension([host], false), new Extension(ACME_IDENTIFIER, true, Buffer.concat([DIGEST_HEAD, digest]))],
  });
  const leafPem = `${certificate.toString('pem')}\n`;
  return { name: host, hosts: [host], notAfterMs, leafPem, chain: { pem: '' }, keyPem: keyPemOf(keys.privateKey) };
}

/** RFC 9773 §4.1: the key identifier of who signed it, and its serial number. Undefined: it names no key identifier, and so has none. */
export function certificateIdOf(leafPem: string): string | undefined {
  const keyId = new X509Certificate(leafPem).getExtension(AuthorityKeyIdentifierExtension)?.keyId;
  if (keyId === undefined) return undefined;
  const serial = new NodeCertificate(leafPem).serialNumber;
  const even = serial.length % 2 === 0 ? serial : `0${serial}`;
  // As DER writes it: a number whose first bit is set has a zero before it.
  const bytes = Buffer.from(Number.parseInt(even.slice(0, 2), 16) >= 0x80 ? `00${even}` : even, 'hex');
  return `${Buffer.from(keyId, 'hex').toString('base64url')}.${bytes.toString('base64url')}`;
}
