/** Proofs that CAs look for at the edge, as the primary hands them to the workers: all that are to be shown, each time that one comes or goes. */
import type { EdgeCertificate } from '#tls/certificate.ts';

export interface ShownProofs {
  /** For HTTP-01, by the last part of their path. */
  readonly http: readonly { readonly token: string; readonly keyAuthorization: string }[];
  /** For TLS-ALPN-01, by their one host. */
  readonly tls: readonly EdgeCertificate[];
}

export const NO_PROOFS: ShownProofs = { http: [], tls: [] };
