/**
 * What people hand in as a certificate and its key: looked at before anything of it is kept, and rebuilt, not passed on. What a client would refuse is
 * refused here, with what is wrong and how to mend it; what may be meant is taken, with a note.
 */
import './reflect-metadata.ts';
import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { SubjectAlternativeNameExtension, X509Certificate as ParsedCertificate } from '@peculiar/x509';
import { EcluseError, reasonOf } from '#errors';
import { readPem } from './pem-blocks.ts';
import type { PemBlock } from './pem-blocks.ts';
import { chainOf } from './chain.ts';
import { isCertificateName } from './issue.ts';
import { faultOf } from './secure-contexts.ts';

export interface Upload {
  readonly certPem: string;
  readonly keyPem: string;
  /** Takes one that is not valid today as well. */
  readonly force: boolean;
}

export interface CheckedCertificate {
  readonly leafPem: string;
  /** What follows the leaf, in order, without the root; empty: nothing. */
  readonly chainPem: string;
  readonly keyPem: string;
  readonly hosts: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly issuer: string;
  readonly keyKind: string;
  readonly fingerprint: string;
  /** What was put right or is to be known, for people. */
  readonly notes: readonly string[];
}

/** The longest chains that are in use have 10 KB, a certificate with a hundred names 6 KB. */
export const PEM_BYTES_MAX = 64 * 1024;
/** NIST SP 800-57 and all CAs; a key of 8192 bits costs a worker 20 ms a handshake. */
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192;
const CURVES: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };
/** id-kp-serverAuth and anyExtendedKeyUsage (RFC 5280 §4.2.1.12). */
const SERVER_USES = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0'];
/** id-kp-clientAuth. */
const CLIENT_USE = '1.3.6.1.5.5.7.3.2';
const CLIENT_NOTE =
  'it is for clients: it answers no handshake, and services can show it to their endpoints (tls.clientCertificate)';
const MEND_FILE = 'give the leaf and its intermediates in PEM form, as the CA gave them';

/** Throws ECLUSE_CERTIFICATE_REFUSED, whose message begins with the key of the request that is wrong. */
export function checkCertificate({ certPem, keyPem, force }: Upload, nowMs: number): CheckedCertificate {
  const key = readKey(keyPem);
  const given = readCertificates(certPem);
  const leaf = given.find((certificate) => certificate.checkPrivateKey(key));
  if (leaf === undefined)
    throw refused('keyPem', 'the key does not belong to the certificate', 'give the key that the certificate was asked for with');
  const purpose = purposeOf(leaf);
  checkDates(leaf, force, nowMs);
  const hosts = purpose === 'client' ? [] : namesOf(leaf);
  const { chain, notes } = chainOf(leaf, given, nowMs);
  const checked = {
    leafPem: leaf.toString(),
    chainPem: chain.map(String).join(''),
    keyPem: key.export({ type: 'pkcs8', format: 'pem' }),
    hosts,
    notBeforeMs: leaf.validFromDate.getTime(),
    notAfterMs: leaf.validToDate.getTime(),
    issuer: nameText(leaf.issuer),
    keyKind: kindOf(key),
    fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
    notes: purpose === 'client' ? [CLIENT_NOTE, ...notes] : notes,
  };
  const { leafPem, chainPem, notAfterMs } = checked;
  const fault = faultOf({ name: '', hosts, notAfterMs, leafPem, chain: { pem: chainPem }, keyPem: checked.keyPem });
  if (fault !== undefined) throw refused('certPem', `OpenSSL does not take it: ${fault}`, MEND_FILE);
  return checked;
}

/** What it is for: one that is for clients only covers no name. */
function purposeOf(leaf: X509Certificate): 'server' | 'client' {
  const uses = usesOf(leaf);
  if (uses === undefined || uses.some((use) => SERVER_USES.includes(use))) return 'server';
  if (uses.includes(CLIENT_USE)) return 'client';
  throw refused(
    'certPem',
    'the certificate is neither for servers nor for clients: its extended key usage says so',
    'ask the CA for a TLS server certificate, or a client certificate to show to endpoints',
  );
}

function readKey(pem: string): KeyObject {
  const at = 'keyPem';
  const blocks = blocksOf(at, pem, 'give one private key in PEM form').filter(({ label }) => label !== 'EC PARAMETERS');
  const [block, another] = blocks;
  if (block === undefined) throw refused(at, 'there is no private key in it', 'give one private key in PEM form');
  if (another !== undefined)
    throw refused(
      at,
      `there are ${String(blocks.length)} blocks in it, and one private key is wanted`,
      'give the one that belongs to the certificate',
    );
  if (!block.label.endsWith('PRIVATE KEY'))
    throw refused(at, `there is no private key in it, but: ${block.label.slice(0, 40)}`, 'give one private key in PEM form');
  if (block.label.startsWith('ENCRYPTED') || block.text.includes('Proc-Type: 4,ENCRYPTED'))
    throw refused(
      at,
      'the key is encrypted, and a node starts with nobody there to type its password',
      'decrypt it first: openssl pkey -in key.pem -out plain.pem',
    );
  let key: KeyObject;
  try {
    key = createPrivateKey(block.text);
  } catch (error) {
    // OpenSSL's reason names no byte of it.
    throw refused(at, `the private key cannot be read: ${reasonOf(error)}`, 'give one private key in PEM form');
  }
  checkKind(key);
  return key;
}

function checkKind(key: KeyObject): void {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  if (key.asymmetricKeyType === 'rsa' && bits !== undefined) {
    if (bits < RSA_BITS_MIN)
      throw refused(
        'keyPem',
        `an RSA key of ${String(bits)} bits is too weak`,
        `use one of at least ${String(RSA_BITS_MIN)} bits, or EC P-256`,
      );
    if (bits > RSA_BITS_MAX)
      throw refused(
        'keyPem',
        `an RSA key of ${String(bits)} bits would keep workers from their work at every handshake`,
        'use 2048 to 4096 bits, or EC P-256',
      );
    return;
  }
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === 'ec' && curve !== undefined && CURVES[curve] !== undefined) return;
  throw refused(
    'keyPem',
    `browsers know no keys of the kind ${key.asymmetricKeyType ?? '?'} ${curve ?? ''}`.trimEnd(),
    'use EC P-256, or RSA with 2048 to 4096 bits',
  );
}

function kindOf(key: KeyObject): string {
  const { modulusLength, namedCurve = '' } = key.asymmetricKeyDetails ?? {};
  return modulusLength === undefined ? `EC ${CURVES[namedCurve] ?? namedCurve}` : `RSA ${String(modulusLength)}`;
}

function readCertificates(pem: string): readonly X509Certificate[] {
  const at = 'certPem';
  const blocks = blocksOf(at, pem, MEND_FILE);
  if (blocks.length === 0) throw refused(at, 'there is no certificate in it', MEND_FILE);
  return blocks.map(({ label, text }, index) => {
    if (label.endsWith('PRIVATE KEY'))
      throw refused(at, 'there is a private key among the certificates', 'give the key on its own, as keyPem');
    if (label !== 'CERTIFICATE')
      throw refused(at, `block ${String(index + 1)} is no certificate, but: ${label.slice(0, 40)}`, MEND_FILE);
    try {
      return new X509Certificate(text);
    } catch (error) {
      throw refused(at, `certificate ${String(index + 1)} cannot be read: ${reasonOf(error)}`, MEND_FILE);
    }
  });
}

function blocksOf(at: string, pem: string, mend: string): readonly PemBlock[] {
  if (Buffer.byteLength(pem) > PEM_BYTES_MAX) throw refused(at, `it has more than ${String(PEM_BYTES_MAX / 1024)} KiB`, mend);
  const reading = readPem(pem);
  if (reading.kind === 'cut') throw refused(at, `block ${String(reading.at)} has no end`, mend);
  return reading.blocks;
}

function checkDates(leaf: X509Certificate, force: boolean, nowMs: number): void {
  if (force) return;
  if (leaf.validToDate.getTime() <= nowMs)
    throw refused(
      'certPem',
      `the certificate has expired: it was valid until ${leaf.validToDate.toISOString()}`,
      'get a new one; --force takes it all the same',
    );
  if (leaf.validFromDate.getTime() > nowMs)
    throw refused(
      'certPem',
      `the certificate is not valid before ${leaf.validFromDate.toISOString()}`,
      'check the clock, or add it then; --force takes it now',
    );
}

/** Undefined where it does not say: Node's types do not know that. */
function usesOf(leaf: X509Certificate): readonly string[] | undefined {
  return leaf.keyUsage;
}

/** The DNS names of its subject alternative names: clients look at nothing else (RFC 9525 §2). */
function namesOf(leaf: X509Certificate): readonly string[] {
  const names = new ParsedCertificate(leaf.raw).getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
  const hosts = names.filter(({ type }) => type === 'dns').map(({ value }) => value.toLowerCase());
  if (hosts.length === 0)
    throw refused(
      'certPem',
      'the certificate names no host: it has no DNS name among its subject alternative names, and clients look at no other',
      'ask the CA for one with subject alternative names',
    );
  for (const host of hosts) {
    const why = nameFault(host);
    if (why !== undefined)
      throw refused(
        'certPem',
        `its name "${host.slice(0, 100)}" ${why}`,
        'ask the CA for names like shop.example.com or *.example.com',
      );
  }
  return [...new Set(hosts)];
}

function nameFault(host: string): string | undefined {
  const stars = host.split('*').length - 1;
  if (stars > 1) return 'has more than one wildcard, and clients take one label only';
  if (stars === 1 && !host.startsWith('*.')) return 'has its wildcard elsewhere than as its whole first label';
  return isCertificateName(host) ? undefined : 'is no DNS name';
}

/** A distinguished name on one line. */
function nameText(name: string): string {
  return name.split('\n').join(', ').slice(0, 500);
}

function refused(at: string, why: string, mend: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_REFUSED',
    source: 'usage',
    message: `${at}: ${why}`,
    mend: `nothing was changed; ${mend}`,
    status: 400,
  });
}
