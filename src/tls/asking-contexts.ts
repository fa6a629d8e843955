/** Contexts of handshakes that ask clients for certificates: a certificate of ours, and the CAs whose certificates may answer. Made when they are wanted. */
import { createSecureContext } from 'node:tls';
import type { SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { pemOf } from './certificate.ts';
import type { EdgeCertificate } from './certificate.ts';

/** 50 KB each and what their CAs take; few hosts ask. */
const CONTEXTS_MAX = 200;

interface Made {
  readonly pems: readonly string[];
  readonly context: SecureContext;
}

export class AskingContexts {
  /** By the certificate itself; hosts that share one ask mostly for the same. */
  readonly #made = new LRUCache<EdgeCertificate, readonly Made[]>({ max: CONTEXTS_MAX });

  /** Throws OpenSSL's error where one of them cannot be used. */
  of(certificate: EdgeCertificate, caBundles: readonly { readonly pem: string }[]): SecureContext {
    const pems = caBundles.map(({ pem }) => pem);
    const known = this.#made.get(certificate) ?? [];
    const found = known.find((one) => one.pems.length === pems.length && one.pems.every((pem, index) => pem === pems[index]));
    if (found !== undefined) return found.context;
    const context = createSecureContext({
      cert: pemOf(certificate),
      key: certificate.keyPem,
      ca: pems,
      // An intermediate that somebody names is trusted by itself, without its root.
      allowPartialTrustChain: true,
      minVersion: 'TLSv1.2',
    });
    this.#made.set(certificate, [{ pems, context }, ...known.slice(0, OF_ONE_MAX - 1)]);
    return context;
  }
}

/** For the hosts of one certificate, with different CAs. */
const OF_ONE_MAX = 8;
