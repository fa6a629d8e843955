/** Every limit of the admin surface, with its reason. */

/** No request of ours has a body near this. */
export const BODY_BYTES_MAX = 1024 * 1024;
/** A hundred thousand short routes are 8 MB (`npm run bench -- reconfigure`). */
export const CONFIG_BYTES_MAX = 32 * 1024 * 1024;
/** A client on the same machine that takes longer to send its request is stuck. */
export const REQUEST_TIMEOUT_MS = 30_000;
/** One operator's scripts and dashboards; bounds file descriptors. */
export const CONNECTIONS_MAX = 256;
/** Each stream asks the store four times a second. */
export const EVENT_STREAMS_MAX = 64;
export const EVENT_POLL_MS = 250;
/** Changes in one answer or one round of a stream. */
export const CHANGES_MAX = 1000;
/** Shorter than the idle limit of any proxy that may be in between. */
export const EVENT_COMMENT_MS = 15_000;
/** How long requests may finish when the API closes. */
export const CLOSE_GRACE_MS = 5_000;
/** An answer larger than this is not one of ours. */
export const ANSWER_BYTES_MAX = 256 * 1024 * 1024;
/** For an answer to the CLI: adding a tenant makes networks on every host. */
export const ANSWER_TIMEOUT_MS = 120_000;
/** Memory of many gigabytes to a slow disk, or a hundred copies of a container. */
export const LIFECYCLE_TIMEOUT_MS = 1_800_000;
/** For another daemon to say that it is there. */
export const PROBE_TIMEOUT_MS = 2_000;
