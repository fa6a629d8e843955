/**
 * The schema of the access log: a line as whoever reads it has it. `writeLine` writes these keys in this order.
 *
 * Every line has every key; what does not apply is null. SECURITY: no query, no header values.
 */
export interface AccessLogLine {
  /** ISO 8601, the start of the exchange. */
  readonly time: string;
  readonly requestId: string;
  /** Of a valid `traceparent`. */
  readonly traceId: string | null;
  /** The version that was served when the request came. */
  readonly configVersion: number;
  /** Host and prefix. */
  readonly route: string | null;
  readonly service: string | null;
  readonly endpoint: string | null;
  readonly tenant: string | null;
  /** The client's address: the peer's, or what a trusted proxy says. */
  readonly client: string;
  /** Empty where the head was refused before there was one; so is `path`. */
  readonly method: string;
  /** In lower case, without port. */
  readonly host: string | null;
  /** As the client sent it, without its query, at most `ACCESS_LOG_PATH_LENGTH_MAX` characters. */
  readonly path: string;
  /** 499: the client went away. */
  readonly status: number;
  /** HTTP on the wire: heads, bodies and their chunk framing, without TLS. */
  readonly downstreamInBytes: number;
  readonly downstreamOutBytes: number;
  readonly upstreamInBytes: number;
  readonly upstreamOutBytes: number;
  readonly totalMs: number;
  readonly holdMs: number;
  /** 0: over a connection that was there. */
  readonly connectMs: number | null;
  /** From the start of the exchange. */
  readonly firstByteMs: number | null;
  readonly tlsVersion: string | null;
  readonly sni: string | null;
  readonly alpn: string | null;
  /** An `ExchangeError`. */
  readonly errorCode: string | null;
}
