/** Limits of the HTTP/1.1 codec. Those that can be set are given to what they bound when that is made; `edge-limits.ts` has their reasons. */

export interface HeadLimits {
  /** Longest start line or field line, its CRLF included. */
  readonly lineBytesMax: number;
  /** Longest head, both empty lines included. */
  readonly headBytesMax: number;
  readonly fieldCountMax: number;
}

export interface ChunkLimits {
  /** Longest extensions of one chunk. */
  readonly extensionBytesMax: number;
  /** All extensions of a message together: one octet of payload could carry hundreds of them each. */
  readonly extensionBytesTotalMax: number;
  readonly trailerBytesMax: number;
  readonly trailerCountMax: number;
}

/** WebDAV's longest is UPDATEREDIRECTREF. */
export const METHOD_LENGTH_MAX = 24;
/** Each option of Connection is compared with every field. */
export const CONNECTION_OPTIONS_MAX = 32;
