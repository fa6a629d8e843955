/**
 * What OpenSSL makes of certificates, made at the first handshake that wants it. A context is some 50 KB, and parsing a hundred thousand of them would
 * take half a minute and gigabytes: what a worker holds of each certificate is its bytes.
 */
import { createSecureContext } from 'node:tls';
import type { SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { reasonOf } from '#errors';
import { pemOf } from './certificate.ts';
import type { EdgeCertificate } from './certificate.ts';
import { PackedCertificate } from './certificate-pack.ts';

/** 50 MB at most. The busiest thousand stay, the rest is made again in well under a millisecond. */
const CONTEXTS_MAX = 1000;

export class SecureContexts {
  /** Packed certificates by their number: objects come and go, and hold the memory of their neighbours. The internal CA's by themselves. */
  readonly #made = new LRUCache<EdgeCertificate | number, SecureContext>({ max: CONTEXTS_MAX });

  /** Throws OpenSSL's error where it cannot be used. */
  of(certificate: EdgeCertificate): SecureContext {
    const key = certificate instanceof PackedCertificate ? certificate.id : certificate;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const made = contextOf(certificate);
    this.#made.set(key, made);
    return made;
  }
}

/** Why a certificate cannot be used; undefined: it can. What is made for that is not kept: it would push out what is in use. */
export function faultOf(certificate: EdgeCertificate): string | undefined {
  try {
    contextOf(certificate);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function contextOf(certificate: EdgeCertificate): SecureContext {
  return createSecureContext({ cert: pemOf(certificate), key: certificate.keyPem, minVersion: 'TLSv1.2' });
}
