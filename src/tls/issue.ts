/** Makes X.509 certificates with P-256 keys: the CA's own, servers' and clients'. No files, no clock. */
import './reflect-metadata.ts';
import { KeyObject, randomBytes, webcrypto, X509Certificate as NodeCertificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
  cryptoProvider,
} from '@peculiar/x509';
import type { Extension } from '@peculiar/x509';
import { EcluseError } from '#errors';

cryptoProvider.set(webcrypto);

/** Who signs: the CA's parsed certificate and its key. */
export interface Issuer {
  readonly certificate: X509Certificate;
  readonly key: webcrypto.CryptoKey;
  /** What its certificates say of its key. */
  readonly identifier: AuthorityKeyIdentifierExtension;
}

export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export interface Issued {
  readonly certPem: string;
  readonly keyPem: string;
}

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
export const SIGNING_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const;
const SERIAL_BYTES = 16;
/** Upper bound of a common name (X.520). */
const COMMON_NAME_CHARS_MAX = 64;
/** The library reads quotes, backslashes and # in a name as syntax, and a client's common name is who it is: only plain text. */
const COMMON_NAME = /^[\p{L}\p{N}_](?:[\p{L}\p{N}._@ -]*[\p{L}\p{N}_])?$/u;
const DNS_NAME_CHARS_MAX = 253;
const MEND_HOST = 'give a DNS name like shop.example.com or *.example.com, or an IP address';
const DNS_LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

function invalidName(name: string, why: string, mend: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_NAME_INVALID',
    source: 'usage',
    message: `no certificate for the name "${name.slice(0, 100)}": ${why}`,
    mend,
    status: 400,
  });
}

/** 16 random octets. The top bits are 01, so that the number is positive and none of its octets is dropped. */
function randomSerial(): string {
  const bytes = randomBytes(SERIAL_BYTES);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString('hex');
}

/** PKCS #8. */
export function keyPemOf(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' });
}

/** A key pair that certificates can be issued for, with what is the same in all of them: to export and to hash it takes a third of the time of a signature. */
export interface LeafKeys {
  readonly publicKey: webcrypto.CryptoKey;
  readonly keyPem: string;
  readonly identifier: SubjectKeyIdentifierExtension;
}

export async function newLeafKeys(): Promise<LeafKeys> {
  const { publicKey, privateKey } = await newKeys();
  return { publicKey, keyPem: keyPemOf(privateKey), identifier: await SubjectKeyIdentifierExtension.create(publicKey) };
}

/** P-256. */
export async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify']);
}

/** True for a name that can stand in a certificate: a DNS name, also with a first label `*`, or an IP address. */
export function isCertificateName(name: string): boolean {
  if (isIP(name) !== 0) return !name.includes('%'); // A zone (fe80::1%eth0) has no place in a certificate.
  const plain = name.startsWith('*.') ? name.slice(2) : name;
  return plain !== '' && name.length <= DNS_NAME_CHARS_MAX && plain.split('.').every((label) => DNS_LABEL.test(label));
}

/** Takes a CA's certificate and its P-256 key for signing. */
export async function issuerOf(caPem: string, key: KeyObject): Promise<Issuer> {
  const certificate = new X509Certificate(caPem);
  const identifier = await AuthorityKeyIdentifierExtension.create(certificate.publicKey);
  return { certificate, key: key.toCryptoKey(KEY_ALGORITHM, false, ['sign']), identifier };
}

/** A self-signed CA that may sign leaves only. */
export async function issueSelfSignedCa(commonName: string, validity: Validity): Promise<Issued> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: randomSerial(),
    name: [{ CN: [commonName] }],
    keys,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certPem: `${certificate.toString('pem')}\n`, keyPem: keyPemOf(keys.privateKey) };
}

async function issueLeaf(
  issuer: Issuer,
  validity: Validity,
  leaf: {
    readonly commonName: string | undefined;
    readonly extensions: readonly Extension[];
    readonly keys?: LeafKeys | undefined;
  },
): Promise<Issued> {
  const keys = leaf.keys ?? (await newLeafKeys());
  const certificate = await X509CertificateGenerator.create({
    ...validity,
    serialNumber: randomSerial(),
    subject: leaf.commonName === undefined ? [] : [{ CN: [leaf.commonName] }],
    issuer: issuer.certificate.subjectName,
    publicKey: keys.publicKey,
    signingKey: issuer.key,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      keys.identifier,
      issuer.identifier,
      ...leaf.extensions,
    ],
  });
  return { certPem: `${certificate.toString('pem')}\n`, keyPem: keys.keyPem };
}

/** A server's certificate. The first name is its common name too, where it is short enough for one. `keys` undefined: it gets its own. */
export async function issueServerLeaf(
  issuer: Issuer,
  validity: Validity,
  { names, keys }: { readonly names: readonly string[]; readonly keys?: LeafKeys | undefined },
): Promise<Issued> {
  const [first] = names;
  if (first === undefined) throw invalidName('', 'a server needs at least one', MEND_HOST);
  const lowerCased = names.map((name) => name.toLowerCase());
  const refused = lowerCased.find((name) => !isCertificateName(name));
  if (refused !== undefined) throw invalidName(refused, 'it is neither a DNS name nor an IP address', MEND_HOST);
  const commonName = first.length <= COMMON_NAME_CHARS_MAX ? first.toLowerCase() : undefined;
  const alternatives = lowerCased.map((name) =>
    isIP(name) === 0 ? ({ type: 'dns', value: name } as const) : ({ type: 'ip', value: name } as const),
  );
  return await issueLeaf(issuer, validity, {
    commonName,
    keys,
    extensions: [
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      // Without a subject the alternative names are the only identity, and then RFC 5280 wants them critical.
      new SubjectAlternativeNameExtension(alternatives, commonName === undefined),
    ],
  });
}

/** A client's certificate: who it is stands in the common name. */
export async function issueClientLeaf(issuer: Issuer, validity: Validity, commonName: string): Promise<Issued> {
  if (commonName.length > COMMON_NAME_CHARS_MAX || !COMMON_NAME.test(commonName)) {
    throw invalidName(
      commonName,
      `a common name has 1 to ${String(COMMON_NAME_CHARS_MAX)} characters`,
      'use letters, digits and . _ - @ only',
    );
  }
  return await issueLeaf(issuer, validity, {
    commonName,
    extensions: [new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth])],
  });
}

/** What others know a certificate by. */
export function identityOf(certPem: string): { fingerprintSha256: string; serial: string; notAfterMs: number } {
  const certificate = new NodeCertificate(certPem);
  return {
    fingerprintSha256: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    serial: certificate.serialNumber.toLowerCase(),
    notAfterMs: certificate.validToDate.getTime(),
  };
}
