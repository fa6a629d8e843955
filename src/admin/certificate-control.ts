/** What an operator can see and change of the edge's certificates. A private key goes in, and never comes out. */
import type { CertificateRow, CertificateSource } from '#state/certificates.ts';

/** Where a CA has to be asked, and how that stands. */
export interface RenewalView {
  /** When the next one is asked for; null: it is not known yet, or as soon as it may be. */
  readonly renewAtMs: number | null;
  /** Why the last attempt came to nothing; null: it did not, or there was none since. */
  readonly lastError: string | null;
}

export interface CertificateView extends CertificateRow {
  /** Null: nobody asks for the next one. */
  readonly renewal: RenewalView | null;
  /** What is not as it should be, for people. */
  readonly warnings: readonly string[];
}

export interface CertificateList {
  /** By name. */
  readonly certificates: readonly CertificateView[];
  /** Hosts that are to get one of a CA, and have none yet: the first of them. */
  readonly waiting: readonly { readonly host: string; readonly lastError: string | null }[];
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
  list(): Promise<CertificateList>;
  /**
   * Has CAs asked again, whatever failed before, for one host or (null) for all; `force`: also where it is not time yet. Returns for how many. Errors:
   * ECLUSE_ACME_OFF, ECLUSE_ACME_HOST_UNKNOWN.
   */
  renew(renewal: { readonly host: string | null; readonly force: boolean }): Promise<{ readonly hosts: number }>;
  /**
   * Serves a certificate, in place of what has its name, from the next handshake of every worker on. Errors: ECLUSE_CERTIFICATE_REFUSED,
   * ECLUSE_CERTIFICATES_TOO_MANY; what was served stays.
   */
  add(upload: CertificateUpload): Promise<CertificateAdded>;
  /** Errors: ECLUSE_CERTIFICATE_UNKNOWN. */
  remove(name: string): Promise<void>;
}
