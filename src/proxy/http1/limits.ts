/** Limits of the HTTP/1.1 codec, with their reasons. They are given to what they bound when that is made. */

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

/** As nginx's and HAProxy's defaults: browsers and SSO cookies stay below. */
export const HEAD_LIMITS: HeadLimits = { lineBytesMax: 16 * 1024, headBytesMax: 32 * 1024, fieldCountMax: 128 };
/** Nobody is known to use chunk extensions; Node takes 16 KiB of them in a message. gRPC-Web and checksums need few trailers. */
export const CHUNK_LIMITS: ChunkLimits = {
  extensionBytesMax: 256,
  extensionBytesTotalMax: 16 * 1024,
  trailerBytesMax: 8 * 1024,
  trailerCountMax: 32,
};
/** WebDAV's longest is UPDATEREDIRECTREF. */
export const METHOD_LENGTH_MAX = 24;
/** Each option of Connection is compared with every field. */
export const CONNECTION_OPTIONS_MAX = 32;
