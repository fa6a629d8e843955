/** The keys of this CA and what they sign: leaves for a certificate request, under an intermediate, under a root. */
import { createPublicKey, randomBytes, webcrypto } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
// Before the library: it needs what this one sets up.
import { isCertificateName } from '#tls/issue.ts';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { PublicKey, X509Certificate } from '@peculiar/x509';
import { Problem } from './problem.ts';

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' } as const;
const YEAR_MS = 365 * 86_400_000;

export interface LeafOptions {
  readonly publicKey: PublicKey | webcrypto.CryptoKey;
  readonly names: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface SignedLeaf {
  readonly leafPem: string;
  readonly serial: string;
  /** base64url of the key's identifier, a stop, base64url of the serial number (RFC 9773 §4.1). */
  readonly renewalId: string;
}

/** 16 octets whose first neither is zero nor has the sign bit: they are the same in DER. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString('hex');
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
}

export class IssuingCa {
  readonly #intermediate: X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #identifier: AuthorityKeyIdentifierExtension;
  readonly rootPem: string;
  readonly intermediatePem: string;

  private constructor(
    root: X509Certificate,
    intermediate: X509Certificate,
    key: webcrypto.CryptoKey,
    identifier: AuthorityKeyIdentifierExtension,
  ) {
    this.#intermediate = intermediate;
    this.#key = key;
    this.#identifier = identifier;
    this.rootPem = `${root.toString('pem')}\n`;
    this.intermediatePem = `${intermediate.toString('pem')}\n`;
  }

  static async open(nowMs: number): Promise<IssuingCa> {
    const [rootKeys, keys] = [await newKeys(), await newKeys()];
    const common = {
      notBefore: new Date(nowMs - YEAR_MS),
      notAfter: new Date(nowMs + 10 * YEAR_MS),
      signingKey: rootKeys.privateKey,
      signingAlgorithm: SIGNING,
      extensions: [new BasicConstraintsExtension(true, undefined, true), new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true)],
    };
    const issuer = [{ CN: ['Test ACME Root'] }];
    const root = await X509CertificateGenerator.create({
      ...common,
      serialNumber: newSerial(),
      subject: issuer,
      issuer,
      publicKey: rootKeys.publicKey,
    });
    const intermediate = await X509CertificateGenerator.create({
      ...common,
      serialNumber: newSerial(),
      subject: [{ CN: ['Test ACME Intermediate'] }],
      issuer,
      publicKey: keys.publicKey,
    });
    const identifier = await AuthorityKeyIdentifierExtension.create(intermediate.publicKey);
    return new IssuingCa(root, intermediate, keys.privateKey, identifier);
  }

  async sign({ publicKey, names, notBeforeMs, notAfterMs }: LeafOptions): Promise<SignedLeaf> {
    const serial = newSerial();
    const leaf = await X509CertificateGenerator.create({
      serialNumber: serial,
      subject: [],
      issuer: this.#intermediate.subjectName,
      notBefore: new Date(notBeforeMs),
      notAfter: new Date(notAfterMs),
      publicKey,
      signingKey: this.#key,
      signingAlgorithm: SIGNING,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        this.#identifier,
        new SubjectAlternativeNameExtension(
          names.map((value) => ({ type: 'dns', value }) as const),
          true,
        ),
      ],
    });
    const keyId = Buffer.from(this.#identifier.keyId ?? '', 'hex').toString('base64url');
    const renewalId = `${keyId}.${Buffer.from(serial, 'hex').toString('base64url')}`;
    return { leafPem: `${leaf.toString('pem')}\n`, serial, renewalId };
  }
}

/** A key that nobody has: for certificates that do not fit. */
export async function foreignKey(): Promise<webcrypto.CryptoKey> {
  return (await newKeys()).publicKey;
}

export interface CertificateRequest {
  readonly publicKey: PublicKey;
  readonly key: KeyObject;
  readonly names: readonly string[];
}

const RSA_BITS_MIN = 2048;
const CSR_BYTES_MAX = 16_384;

/** Reads a request and verifies that it is signed by its own key. */
export async function readCsr(der: Buffer): Promise<CertificateRequest> {
  if (der.length === 0 || der.length > CSR_BYTES_MAX) throw badCsr('it is empty or too long');
  let request: Pkcs10CertificateRequest;
  let isSigned: boolean;
  try {
    request = new Pkcs10CertificateRequest(der);
    isSigned = await request.verify();
  } catch {
    throw badCsr('it cannot be read');
  }
  if (!isSigned) throw badCsr('its signature is not of its key');
  const alternatives = request.extensions.find((extension) => extension instanceof SubjectAlternativeNameExtension);
  const general = alternatives === undefined ? [] : alternatives.names.items;
  const other = general.find(({ type, value }) => type !== 'dns' || !isCertificateName(value));
  if (other !== undefined) throw badCsr(`it asks for ${other.type} ${other.value}`);
  const common = request.subjectName.getField('CN');
  const names = [...general.map(({ value }) => value), ...common].map((name) => name.toLowerCase());
  return { publicKey: request.publicKey, key: readKey(request.publicKey), names: [...new Set(names)].toSorted() };
}

function readKey({ rawData }: PublicKey): KeyObject {
  const key = createPublicKey({ key: Buffer.from(rawData), format: 'der', type: 'spki' });
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (namedCurve === 'prime256v1' || namedCurve === 'secp384r1' || modulusLength >= RSA_BITS_MIN) return key;
  throw badCsr('its key is neither P-256 nor P-384 nor RSA with 2048 bits at least');
}

function badCsr(why: string): Problem {
  return new Problem('badCSR', 400, `the certificate request is refused: ${why}`);
}
