/** Limits of health checks, with their reasons. */

/** Checks under way in a node: addresses that answer nothing hold one for its whole time-out, and must not keep the others waiting for long. */
export const CHECKS_AT_ONCE = 128;
/** The first check of an endpoint comes within that, at a moment of its own: a thousand that are new do not all connect at once. */
export const FIRST_CHECK_MS = 2_000;
/** Later ones wander by that part of their period, so that those of many nodes and endpoints do not fall into step. */
export const PERIOD_JITTER = 0.1;
/** A head of a health page has some fields. */
export const HEAD_LIMITS = { lineBytesMax: 8 * 1024, headBytesMax: 16 * 1024, fieldCountMax: 128 } as const;
/** 1xx before the answer; more are no answer. */
export const INTERIM_MAX = 8;
/** What is read away of a body, and for how long, before the connection is closed: apps log a reset where they were still writing. */
export const BODY_BYTES_MAX = 64 * 1024;
export const BODY_MS_MAX = 100;
/** Longest text of an endpoint that goes into a reason. */
export const REASON_LENGTH_MAX = 120;
