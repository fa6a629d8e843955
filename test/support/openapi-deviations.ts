/** Where the published documents are wrong about what Docker answers. Each entry must be needed by us, and be seen in a plain dockerd's answers. */

export interface Deviation {
  /** Places in the schemas, as `OpenApi` names them. */
  readonly at: readonly string[];
  readonly found: string;
  readonly reason: string;
  /** From this API version on only: newer than the dockerd of this machine, which therefore cannot be asked. */
  readonly since?: string;
}

export const DEVIATIONS: readonly Deviation[] = [];
