/**
 * How endpoints are spoken to over TLS: what OpenSSL makes of a service's wishes, of the CA bundle that they name and of the certificate that is shown.
 *
 * INVARIANT: one object for the same wishes and the same material. Connections that were made with another one are given up when it changes.
 */
import { createSecureContext } from 'node:tls';
import type { ConnectionOptions, SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { reasonOf } from '#errors';
import type { CaBundle, EndpointTls } from '#routing/route-tls.ts';
import { pemOf } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';

export interface EndpointSecurity {
  readonly context: SecureContext;
  readonly serverName: string | undefined;
  /** Whether its certificate has to verify. */
  readonly verifies: boolean;
}

/** What there is now. */
export interface TlsMaterial {
  readonly caBundle: (name: string) => CaBundle | undefined;
  readonly certificate: (name: string) => EdgeCertificate | undefined;
}

interface Made {
  readonly caBundle: CaBundle | undefined;
  readonly certificate: EdgeCertificate | undefined;
  /** A text says why it cannot be used. */
  readonly security: EndpointSecurity | string;
}

/** 50 KB each; a service has one. What is made again costs a millisecond. */
const KEPT_MAX = 500;

export class EndpointSecurities {
  readonly #material: TlsMaterial;
  readonly #made = new LRUCache<string, Made>({ max: KEPT_MAX });

  constructor(material: TlsMaterial) {
    this.#material = material;
  }

  /** A text says why it cannot be spoken to. */
  of(tls: EndpointTls): EndpointSecurity | string {
    const key = JSON.stringify(tls);
    const known = this.#made.get(key);
    if (known !== undefined && !this.#hasChanged(tls, known)) return known.security;
    const { caBundle, certificate } = this.#now(tls);
    const security = securityOf(tls, caBundle, certificate);
    this.#made.set(key, { caBundle, certificate, security });
    return security;
  }

  /** Whether connections that were made are no longer as they would be made now. */
  isStale(tls: EndpointTls): boolean {
    const known = this.#made.peek(JSON.stringify(tls));
    return known !== undefined && this.#hasChanged(tls, known);
  }

  #hasChanged(tls: EndpointTls, known: Made): boolean {
    const { caBundle, certificate } = this.#now(tls);
    return known.caBundle?.pem !== caBundle?.pem || !isSameCertificate(known.certificate, certificate);
  }

  #now({ caBundle, clientCertificate }: EndpointTls): Pick<Made, 'caBundle' | 'certificate'> {
    return {
      caBundle: caBundle === undefined ? undefined : this.#material.caBundle(caBundle),
      certificate: clientCertificate === undefined ? undefined : this.#material.certificate(clientCertificate),
    };
  }
}

/** Versions of a configuration have objects of their own for what did not change. */
function isSameCertificate(one: EdgeCertificate | undefined, other: EdgeCertificate | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one === other || (pemOf(one) === pemOf(other) && one.keyPem === other.keyPem);
}

function securityOf(
  { serverName, caBundle: caBundleName, insecure = false, clientCertificate }: EndpointTls,
  caBundle: CaBundle | undefined,
  certificate: EdgeCertificate | undefined,
): EndpointSecurity | string {
  if (caBundleName !== undefined && caBundle === undefined) return `there is no CA bundle "${caBundleName}"`;
  if (clientCertificate !== undefined && certificate === undefined) return `there is no certificate "${clientCertificate}"`;
  try {
    const context = createSecureContext({
      minVersion: 'TLSv1.2',
      // An intermediate that somebody names is trusted by itself, without its root.
      ...(caBundle === undefined ? {} : { ca: caBundle.pem, allowPartialTrustChain: true }),
      ...(certificate === undefined ? {} : { cert: pemOf(certificate), key: certificate.keyPem }),
    });
    return { context, serverName, verifies: !insecure };
  } catch (error) {
    return `OpenSSL does not take it: ${reasonOf(error)}`;
  }
}

/** For Node's `connect`. */
export function connectOptions({ context, serverName, verifies }: EndpointSecurity): ConnectionOptions {
  return {
    secureContext: context,
    ...(serverName === undefined ? {} : { servername: serverName }),
    rejectUnauthorized: verifies,
    ALPNProtocols: ['http/1.1'],
  };
}
