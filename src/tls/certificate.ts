/** A certificate as the control plane hands it to the workers: plain data. */
export interface HostCertificate {
  /** Exact, or `*.example.com` (one label), or `*`: the default for clients that name no host or one without a certificate. */
  readonly host: string;
  /** The leaf first, then its chain. */
  readonly certPem: string;
  readonly keyPem: string;
}
