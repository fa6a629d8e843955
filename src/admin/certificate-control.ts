/** What an operator can see and change of the edge's certificates. A private key goes in, and never comes out. */
import type { CertificateRow, CertificateSource } from '#state/certificates.ts';

export interface CertificateView extends CertificateRow {
  /** What is not as it should be, for people. */
  readonly warnings: readonly string[];
}

export interface CertificateUpload {
  readonly name: string;
  /** The leaf, and what signed it. */
  readonly certPem: string;
  readonly keyPem: string;
  /** Takes one that is not valid today as well. */
  readonly force: boolean;
}

export interface CertificateAdded {
  readonly certificate: CertificateView;
  /** What was put right or is to be known. */
  readonly notes: readonly string[];
}

/** What the handshake of a request would get. */
export interface CertificateExplanation {
  /** `added`: one that people added. `internal`: of the node's own CA, for the host of a route. `none`: an alert. */
  readonly kind: 'added' | 'internal' | 'default' | 'none';
  /** What operators call one that was added; empty for others. */
  readonly name: string;
  readonly hosts: readonly string[];
  /** Where one that was added came from; null for others. */
  readonly source: CertificateSource | null;
  /** Null for `none`. */
  readonly notAfterMs: number | null;
}

export interface CertificateControl {
  /** By name. */
  list(): Promise<readonly CertificateView[]>;
  /**
   * Serves a certificate, in place of what has its name, from the next handshake of every worker on. Errors: ECLUSE_CERTIFICATE_REFUSED,
   * ECLUSE_CERTIFICATES_TOO_MANY; what was served stays.
   */
  add(upload: CertificateUpload): Promise<CertificateAdded>;
  /** Errors: ECLUSE_CERTIFICATE_UNKNOWN. */
  remove(name: string): Promise<void>;
}
