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

/** The whole answer in HTTP/1.1. `detail` says more exactly what is wrong; `connection` is `close`, `keep-alive` or nothing. */
export function errorText(
  error: ExchangeError,
  facts: {
    readonly requestId: string;
    readonly detail: string | undefined;
    readonly connection: string;
    readonly bodyless: boolean;
    /** Where waiting helps. */
    readonly retryAfterSeconds: number;
  },
): { readonly head: string; readonly body: string } {
  const { status, proxyStatus, text, again } = ANSWERS[error];
  const body = `${facts.detail ?? text}\n`;
  const head =
    `HTTP/1.1 ${String(status)} ${STATUS_CODES[status] ?? ''}\r\n` +
    `Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${String(Buffer.byteLength(body))}\r\n` +
    `Cache-Control: no-store\r\nDate: ${new Date().toUTCString()}\r\nProxy-Status: ecluse; error=${proxyStatus}\r\n` +
    (facts.requestId === '' ? '' : `X-Request-Id: ${facts.requestId}\r\n`) +
    (again ? `Retry-After: ${String(facts.retryAfterSeconds)}\r\n` : '') +
    (status === 405 ? 'Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n' : '') +
    (facts.connection === '' ? '' : `Connection: ${facts.connection}\r\n`);
  return { head: `${head}\r\n`, body: facts.bodyless ? '' : body };
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
