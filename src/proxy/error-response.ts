/** Answers that Écluse gives itself. Names in `Proxy-Status` are those of RFC 9209 §2.3, which say whose fault it was. */
import { STATUS_CODES } from 'node:http';

/** Why an exchange did not end well; also the `errorCode` of the access log. */
export type ExchangeError =
  | 'bad-request'
  | 'head-too-large'
  | 'method-refused'
  | 'unknown-host'
  | 'unknown-path'
  | 'no-endpoint'
  | 'unhealthy'
  | 'endpoint-busy'
  | 'hold-full'
  | 'hold-expired'
  | 'wake-failed'
  | 'connect-failed'
  | 'connect-timeout'
  | 'upstream-certificate'
  | 'upstream-tls'
  | 'upstream-tls-alert'
  | 'upstream-tls-unusable'
  | 'upstream-reset'
  | 'upstream-invalid'
  | 'upstream-truncated'
  | 'first-byte-timeout'
  | 'stream-idle'
  | 'request-timeout'
  | 'cut-by-freeze'
  | 'cut-by-drain'
  | 'client-aborted'
  | 'client-too-slow'
  | 'uri-too-long'
  | 'body-too-large'
  | 'expectation-failed'
  | 'misdirected'
  | 'method-unknown'
  | 'version-refused'
  | 'overloaded'
  | 'tenant-busy'
  | 'total-timeout'
  | 'rate-limited'
  | 'unauthenticated'
  | 'auth-unavailable'
  | 'https-needed'
  | 'client-certificate-missing'
  | 'client-certificate-expired'
  | 'client-certificate-invalid'
  | 'internal';

interface ErrorAnswer {
  readonly status: number;
  readonly proxyStatus: string;
  readonly text: string;
  readonly again: boolean;
}

const ANSWERS: Readonly<Record<ExchangeError, ErrorAnswer>> = {
  'bad-request': answer(400, 'http_request_error', 'the request is malformed'),
  'head-too-large': answer(431, 'http_request_error', 'the request head is too large'),
  'method-refused': answer(405, 'http_request_denied', 'this method is not served'),
  'unknown-host': answer(404, 'destination_not_found', 'no route for this host'),
  'unknown-path': answer(404, 'destination_not_found', 'no route for this path'),
  'no-endpoint': answer(503, 'destination_unavailable', 'no endpoint is available', true),
  unhealthy: answer(503, 'destination_unavailable', 'no endpoint of the service is healthy', true),
  'endpoint-busy': answer(503, 'connection_limit_reached', 'the endpoint has too many requests in flight', true),
  'hold-full': answer(503, 'destination_unavailable', 'too many requests wait for this service', true),
  'hold-expired': answer(503, 'destination_unavailable', 'the service did not come back in time', true),
  'wake-failed': answer(503, 'destination_unavailable', 'the service sleeps and could not be woken', true),
  'connect-failed': answer(502, 'connection_refused', 'the endpoint refused the connection'),
  'connect-timeout': answer(504, 'connection_timeout', 'the endpoint did not accept the connection in time'),
  'upstream-certificate': answer(502, 'tls_certificate_error', 'the certificate of the endpoint does not verify'),
  'upstream-tls': answer(502, 'tls_protocol_error', 'the endpoint does not speak TLS as it should'),
  'upstream-tls-alert': answer(502, 'tls_alert_received', 'the endpoint ended TLS with an alert'),
  'upstream-tls-unusable': answer(500, 'proxy_configuration_error', 'what the endpoint is to be shown or judged by is not there'),
  'upstream-reset': answer(502, 'connection_terminated', 'the endpoint closed the connection without a response'),
  'upstream-invalid': answer(502, 'http_protocol_error', 'the response of the endpoint is malformed'),
  'upstream-truncated': answer(502, 'http_response_incomplete', 'the response of the endpoint was cut'),
  'first-byte-timeout': answer(504, 'http_response_timeout', 'the endpoint did not respond in time'),
  'stream-idle': answer(504, 'http_response_timeout', 'nothing moved for too long'),
  'request-timeout': answer(408, 'http_request_error', 'the request body did not come in time'),
  'cut-by-freeze': answer(503, 'destination_unavailable', 'the service moved while the request was under way', true),
  'cut-by-drain': answer(503, 'destination_unavailable', 'the proxy is shutting down', true),
  'client-aborted': answer(499, 'http_request_error', 'the client went away'),
  'client-too-slow': answer(408, 'http_request_error', 'the client reads or writes too slowly'),
  'uri-too-long': answer(414, 'http_request_error', 'the request line is too long'),
  'body-too-large': answer(413, 'http_request_error', 'the request body is too large'),
  'expectation-failed': answer(417, 'http_request_error', 'only the expectation 100-continue can be met'),
  misdirected: answer(421, 'http_request_error', 'this connection does not serve that authority'),
  'method-unknown': answer(501, 'http_request_error', 'the method or transfer coding is not one that can be served'),
  'version-refused': answer(505, 'http_request_error', 'the HTTP version is not 1.0 or 1.1'),
  overloaded: answer(503, 'proxy_internal_response', 'the proxy has too many requests under way', true),
  'tenant-busy': answer(503, 'connection_limit_reached', 'this tenant has too many requests under way', true),
  'total-timeout': answer(504, 'http_response_timeout', 'the exchange took too long'),
  'rate-limited': answer(429, 'http_request_denied', 'too many requests', true),
  unauthenticated: answer(401, 'http_request_denied', 'name and password are needed'),
  'auth-unavailable': answer(503, 'destination_unavailable', 'whether the request may pass could not be found out', true),
  'https-needed': answer(403, 'http_request_denied', 'this is served over HTTPS only, to clients with a certificate'),
  'client-certificate-missing': answer(403, 'http_request_denied', 'a client certificate is needed, and none was sent'),
  'client-certificate-expired': answer(403, 'http_request_denied', 'the client certificate has expired'),
  'client-certificate-invalid': answer(403, 'http_request_denied', 'the client certificate is not accepted'),
  internal: answer(500, 'proxy_internal_error', 'the proxy failed'),
};

/** The status an error is answered with; 499 for a client that went away stands in logs only. */
export function statusOf(error: ExchangeError): number {
  return ANSWERS[error].status;
}

/** The error that a status of the codec stands for. */
export function errorOfStatus(status: number): ExchangeError {
  return BY_STATUS.get(status) ?? 'bad-request';
}

/** An answer of our own, to an error or where a route says so. */
export interface OwnResponse {
  readonly status: number;
  /** Without those of framing and connection, `Date` and `X-Request-Id`. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** Octets, as Latin-1. */
  readonly body: string;
}

/** `detail` says more exactly what is wrong; `fields` come on top. */
export function errorResponse(
  error: ExchangeError,
  facts: {
    readonly detail?: string | undefined;
    /** Where waiting helps. */
    readonly retryAfterSeconds: number;
    readonly fields?: OwnResponse['fields'] | undefined;
  },
): OwnResponse {
  const { status, proxyStatus, text, again } = ANSWERS[error];
  const fields: (readonly [string, string])[] = [
    ['Content-Type', 'text/plain; charset=utf-8'],
    ['Cache-Control', 'no-store'],
    ['Proxy-Status', `ecluse; error=${proxyStatus}`],
    ...(facts.fields ?? []),
  ];
  if (again) fields.push(['Retry-After', String(facts.retryAfterSeconds)]);
  if (status === 405) fields.push(['Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
  return { status, fields, body: `${facts.detail ?? text}\n` };
}

/** What a route sets in answers of our own; without a line: it takes the field away. */
export interface OwnField {
  /** In lower case. */
  readonly name: string;
  readonly line: string | undefined;
}

/** RFC 9110 §6.4.1: they never have a body. */
const BODYLESS: ReadonlySet<number> = new Set([204, 205, 304]);

/** The whole answer in HTTP/1.1. `connection` is `close`, `keep-alive` or nothing. */
export function responseText(
  { status, fields, body }: OwnResponse,
  facts: {
    readonly requestId: string;
    readonly connection: string;
    /** An answer to HEAD. */
    readonly bodyless: boolean;
    readonly ownFields: readonly OwnField[];
  },
): { readonly head: string; readonly body: string } {
  const { ownFields } = facts;
  const changed = new Set(ownFields.map(({ name }) => name));
  const sent = BODYLESS.has(status) ? '' : body;
  const kept = fields.filter(([name]) => !changed.has(name.toLowerCase()));
  const head =
    `HTTP/1.1 ${String(status)} ${STATUS_CODES[status] ?? ''}\r\n` +
    kept.map(([name, value]) => `${name}: ${value}\r\n`).join('') +
    (status === 204 || status === 304 ? '' : `Content-Length: ${String(sent.length)}\r\n`) +
    `Date: ${new Date().toUTCString()}\r\n` +
    (facts.requestId === '' ? '' : `X-Request-Id: ${facts.requestId}\r\n`) +
    ownFields.map(({ line }) => line ?? '').join('') +
    (facts.connection === '' ? '' : `Connection: ${facts.connection}\r\n`);
  return { head: `${head}\r\n`, body: facts.bodyless ? '' : sent };
}

const BY_STATUS: ReadonlyMap<number, ExchangeError> = new Map([
  [400, 'bad-request'],
  [413, 'body-too-large'],
  [414, 'uri-too-long'],
  [417, 'expectation-failed'],
  [421, 'misdirected'],
  [431, 'head-too-large'],
  [501, 'method-unknown'],
  [503, 'overloaded'],
  [505, 'version-refused'],
]);

function answer(status: number, proxyStatus: string, text: string, again = false): ErrorAnswer {
  return { status, proxyStatus, text, again };
}
