/** A certificate as the control plane hands it to the workers: plain data, as little of it as can be. */

/** What follows the leaf. Thousands of certificates share one. */
export interface CertificateChain {
  /** Empty: nothing follows. */
  readonly pem: string;
}

/** What of a certificate counts for the choice between them. */
export interface Coverage {
  /** What operators call it; `DEFAULT_CERTIFICATE`: what clients get that name no host, or an unknown one. */
  readonly name: string;
  /** Lower-case names that it covers: exact, or `*.example.com` (one label). Empty for the default. */
  readonly hosts: readonly string[];
  readonly notAfterMs: number;
}

export interface EdgeCertificate extends Coverage {
  readonly leafPem: string;
  readonly chain: CertificateChain;
  readonly keyPem: string;
}

/** No certificate that people add can have this name. */
export const DEFAULT_CERTIFICATE = '*';

/** For a server: the leaf, then its chain. */
export function pemOf({ leafPem, chain }: EdgeCertificate): string {
  return `${leafPem}${chain.pem}`;
}
