/** Limits of the data plane that nobody sets, with their reasons; those that an operator may set are in `edge-limits.ts`. */

/** Attempts to reach an endpoint for one request, the first included. */
export const ATTEMPTS_MAX = 3;

/** What a refused client is told to wait. */
export const RETRY_AFTER_SECONDS = 1;

/** How often a freeze looks at what is left. */
export const DRAIN_STEP_MS = 50;
/** A stream is ended between two of its messages if it comes to that in this time; later within one. */
export const STREAM_END_MS = 100;
/** A request waits that long at most for a service that sleeps, or that is full after a thaw: browsers and proxies give up then. */
export const HOLD_MS_MAX = 60_000;
/** How often who waits is looked at. */
export const HOLD_TICK_MS = 250;
/** A program gets that long from its container's start to listen; meanwhile requests wait for it, and none is answered that it refuses. */
export const LISTEN_MS_MAX = 10_000;
/** How often a worker tries whether it listens: a start takes 200 to 400 ms. */
export const LISTEN_STEP_MS = 25;
/** What waited goes on as it is answered, as in TCP's slow start (RFC 5681 §3.1): so many at first, and for each answer one more than it makes room for. */
export const RELEASE_FIRST = 2;
/** And in each such time twice as many, whatever is answered: some requests are meant to last. A thousand are on their way in 0.2 s. */
export const RELEASE_STEP_MS = 10;
/** But no more than that are added then: they would overflow the queue of connections of an app that was just woken. */
export const RELEASE_BATCH = 64;
/** While requests wait, the primary is told again that a service is wanted: the message may be lost with a process. */
export const WAKE_AGAIN_MS = 5_000;
/** The primary hears of a service from every worker; a repetition is one that comes after most of `WAKE_AGAIN_MS`. */
export const WAKE_SAME_MS = 4_000;
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
/**
 * A worker whose primary is gone serves on for that long while it looks for the next one: a supervisor starts it within seconds. After that nobody is
 * in charge, and what it serves grows old.
 */
export const SUCCESSOR_WAIT_MS = 20_000;
/** What connections of an earlier generation get to end by themselves where nobody said how long. */
export const RETIRE_DRAIN_MS = 60_000;
/** A stop is promised within ten seconds, and containers get their time after this. */
export const WORKER_DRAIN_MS = 3_000;
export const WORKER_BACKOFF_FIRST_MS = 100;
export const WORKER_BACKOFF_MAX_MS = 5_000;
/** A worker that lived that long was healthy: the next back-off starts anew. */
export const WORKER_BACKOFF_RESET_MS = 30_000;
