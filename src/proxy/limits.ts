/** Every limit of the data plane, with its reason. What a tenant or client can make grow has an entry here. */

/** nginx takes 32 KiB as well; browsers and SSO cookies stay below. Applies to heads of both sides. */
export const HEAD_BYTES_MAX = 32 * 1024;
/** More header fields than any real client sends; bounds what a head costs to check. */
export const HEADER_COUNT_MAX = 128;
/** A head that takes longer comes from a stalled or hostile client (slowloris). */
export const HEADERS_TIMEOUT_MS = 30_000;
/** How often Node looks for connections whose head is overdue. */
export const CONNECTIONS_CHECK_MS = 5_000;
export const TLS_HANDSHAKE_TIMEOUT_MS = 10_000;
/** How long an idle client connection is kept: longer than browsers pause between clicks. */
export const DOWNSTREAM_IDLE_MS = 60_000;
/** Bounds memory and file descriptors of one worker (two per exchange). */
export const CONNECTIONS_PER_WORKER_MAX = 20_000;

/** Containers are one hop away: a connection that takes longer will not come. */
export const UPSTREAM_CONNECT_TIMEOUT_MS = 2_000;
/** From the last byte of the request to the first of the response. */
export const UPSTREAM_FIRST_BYTE_TIMEOUT_MS = 60_000;
/** A body or an upgraded stream in which nothing moved in either direction for that long is dead. */
export const STREAM_IDLE_TIMEOUT_MS = 300_000;
/** Idle connections kept per endpoint: enough for bursts, few enough for small containers. */
export const UPSTREAM_IDLE_SOCKETS_MAX = 64;
/** Idle upstream connections are closed after that; most servers keep them longer. */
export const UPSTREAM_IDLE_MS = 30_000;
/** Requests that one endpoint gets at once from one worker; more would queue where nobody sees them. */
export const UPSTREAM_CONNECTIONS_MAX = 1024;
/** Attempts to reach an endpoint for one request, the first included. */
export const ATTEMPTS_MAX = 3;

/** Requests of one tenant that may wait in one worker for frozen endpoints. Their bodies stay in TCP: held bytes need no limit. */
export const HELD_PER_TENANT_MAX = 1024;
/** What a refused client is told to wait. */
export const RETRY_AFTER_SECONDS = 1;
/** How long the rest of a request body is read away after its response, so that the client gets to read the response. */
export const LINGER_MS = 2_000;
/** And how much of it: what was on its way when we answered. */
export const LINGER_BYTES_MAX = 4 * 1024 * 1024;
/** Longest X-Request-Id that is taken over from a client. */
export const REQUEST_ID_LENGTH_MAX = 128;

/** Access log lines that may wait for the disk, in bytes; more are dropped and counted. */
export const ACCESS_LOG_BUFFER_BYTES_MAX = 8 * 1024 * 1024;
export const ACCESS_LOG_FLUSH_MS = 1_000;
/** A path in the access log is cut here. */
export const ACCESS_LOG_PATH_LENGTH_MAX = 1024;
export const TRAFFIC_PERIOD_MS = 1_000;

/** For an answer of a worker to the primary: preparing 100 000 routes takes a second. */
export const WORKER_ACK_TIMEOUT_MS = 10_000;
export const WORKER_START_TIMEOUT_MS = 20_000;
/** A stop is promised within ten seconds, and containers get their time after this. */
export const WORKER_DRAIN_MS = 4_000;
export const WORKER_BACKOFF_FIRST_MS = 100;
export const WORKER_BACKOFF_MAX_MS = 5_000;
/** A worker that lived that long was healthy: the next back-off starts anew. */
export const WORKER_BACKOFF_RESET_MS = 30_000;
