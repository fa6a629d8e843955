/** Certificates as CAs and careless people make them: with any names, dates, keys and signers. */
import { KeyObject, webcrypto } from 'node:crypto';
// Before the library: it needs what this one sets up.
import { isCertificateName } from '#tls/issue.ts';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { X509Certificate } from '@peculiar/x509';

const KINDS = {
  ec: { name: 'ECDSA', namedCurve: 'P-256' },
  'rsa-1024': { name: 'RSASSA-PKCS1-v1_5', modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
  'rsa-2048': { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
} as const;

export interface Made {
  readonly certificate: X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Making {
  /** Common name. */
  readonly subject?: string;
  /** Subject alternative names; none: the extension is not there. */
  readonly names?: readonly string[];
  /** Absent: by itself. */
  readonly by?: Made;
  readonly kind?: keyof typeof KINDS;
  readonly isCa?: boolean;
  /** Days from now. */
  readonly fromDays?: number;
  readonly untilDays?: number;
  /** Extended key usages. */
  readonly uses?: readonly string[];
}

let serial = 1;

export async function makeSigned(making: Making = {}): Promise<Made> {
  const { subject = 'test', names = [], by, kind = 'ec', isCa = false, fromDays = -1, untilDays = 60, uses } = making;
  const algorithm = KINDS[kind];
  const keys =
    algorithm.name === 'ECDSA'
      ? await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
      : await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const at = (days: number): Date => new Date(Date.now() + days * 86_400_000);
  serial += 1;
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial.toString(16).padStart(4, '0'),
    subject: [{ CN: [subject] }],
    issuer: by === undefined ? [{ CN: [subject] }] : by.certificate.subjectName,
    notBefore: at(fromDays),
    notAfter: at(untilDays),
    publicKey: keys.publicKey,
    signingKey: (by?.keys ?? keys).privateKey,
    signingAlgorithm: { name: (by?.keys ?? keys).privateKey.algorithm.name, hash: 'SHA-256' },
    extensions: [
      new BasicConstraintsExtension(isCa, undefined, true),
      ...(names.length === 0
        ? []
        : [new SubjectAlternativeNameExtension(names.map((value) => ({ type: isAddress(value) ? 'ip' : 'dns', value })))]),
      ...(uses === undefined ? [] : [new ExtendedKeyUsageExtension([...uses])]),
    ],
  });
  const keyPem = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' });
  return { certificate, keys, certPem: `${certificate.toString('pem')}\n`, keyPem };
}

function isAddress(name: string): boolean {
  return /^[\d.]+$/.test(name) && isCertificateName(name);
}

export interface MadeChain {
  readonly root: Made;
  readonly intermediate: Made;
  readonly leaf: Made;
}

/** A leaf for `names`, its intermediate and its root. */
export async function makeChain(names: readonly string[], leaf: Making = {}): Promise<MadeChain> {
  const root = await makeSigned({ subject: 'Test Root', isCa: true });
  const intermediate = await makeSigned({ subject: 'Test Intermediate', isCa: true, by: root });
  return { root, intermediate, leaf: await makeSigned({ subject: names[0] ?? 'leaf', names, by: intermediate, ...leaf }) };
}
