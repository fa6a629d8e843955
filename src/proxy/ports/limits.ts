/** Limits of published ports that nobody sets, with their reasons. */

/** Docker has none: a database's connection may be silent over a weekend's night. Dead peers are found by probes of the kernel before that. */
export const STREAM_IDLE_TIMEOUT_MS = 24 * 3_600_000;
/** When the kernel begins to probe a silent peer. */
export const KEEP_ALIVE_MS = 60_000;
/** The container of a stream is gone: what was received is still delivered, to clients that take it. */
export const GONE_IDLE_TIMEOUT_MS = 2_000;
/** A stream in which nothing moved for that long waits for nothing that a drain could bring: it is cut first. */
export const QUIET_MS = 1_000;
/** How often a drain looks. */
export const DRAIN_STEP_MS = 20;
/** A port that could not be listened on is tried again: what held it may have gone. */
export const UNBOUND_RETRY_MS = 1_000;

/** As long as Docker's proxy keeps the state of a silent client. */
export const SESSION_IDLE_TIMEOUT_MS = 90_000;
/** Sessions of one UDP port in one worker, each a socket: more clients than that at once are made-up ones, and the most silent makes room. */
export const SESSIONS_MAX = 1_024;
export const SESSION_SWEEP_MS = 5_000;
/** Datagrams that wait for a container on the move, of one port in one worker; more are dropped, as UDP may. */
export const HELD_DATAGRAMS_MAX = 256;
export const HELD_BYTES_MAX = 256 * 1024;
/** Bytes that the kernel has not taken yet, of one socket; more are dropped. */
export const DATAGRAM_QUEUE_BYTES_MAX = 1024 * 1024;
