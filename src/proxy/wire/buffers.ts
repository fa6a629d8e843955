/**
 * The buffers of a worker: one that all sockets read short messages into, and those that long bodies are passed on in without a copy.
 *
 * INVARIANT: what is in `SHARED` is valid until the read callback returns. A lent buffer belongs to the write that it was lent to until that is
 * done, and comes back here once.
 */

/** What sockets read into: bytes come at `READ_AT`, so that a head that is longer than the one it replaces has room before its body. */
export interface ReadBuffer {
  readonly bytes: Buffer;
  /** `bytes` from `READ_AT` on. */
  readonly room: Buffer;
}

/** Longer than what we add to a head, but for hosts and addresses of unusual length. */
export const READ_AT = 1024;
/** A read into this brings whole requests and most responses. */
export const SHARED: ReadBuffer = createReadBuffer(READ_AT + 64 * 1024);
/** PERF: a 1 MiB response takes 8 reads of this size instead of 16; beyond that nothing was gained (`npm run bench -- proxy`). */
const LONG_BYTES = READ_AT + 128 * 1024;
/** With that much lent out, clients do not keep up: reads become small, so that a thousand of them cost megabytes, not hundreds. */
const LENT_BYTES_MANY = 32 * 1024 * 1024;
const SHORT_BYTES = READ_AT + 16 * 1024;
/** Buffers that are kept for later: 8 MiB. */
const FREE_MAX = 64;
/** Buffers that connections may hold while they are idle, because their messages are long: 32 MiB. */
const IDLE_MAX = 256;

const free: ReadBuffer[] = [];
let lentBytes = 0;
let taken = 0;

/** A buffer for long reads. */
export function takeBuffer(): ReadBuffer {
  taken += 1;
  if (lentBytes > LENT_BYTES_MANY) return createReadBuffer(SHORT_BYTES);
  return free.pop() ?? createReadBuffer(LONG_BYTES);
}

/** Gives a buffer back that nobody reads or writes any more. */
export function giveBuffer(buffer: ReadBuffer): void {
  taken -= 1;
  if (buffer.bytes.length === LONG_BYTES && free.length < FREE_MAX) free.push(buffer);
}

/** A buffer that was taken is left to the garbage collector. */
export function dropBuffer(): void {
  taken -= 1;
}

/** Whether one more connection may keep a buffer of its own while it is idle. */
export function mayKeepBuffer(): boolean {
  return taken < IDLE_MAX;
}

export function bufferLent(buffer: ReadBuffer): void {
  lentBytes += buffer.bytes.length;
}

export function bufferReturned(buffer: ReadBuffer): void {
  lentBytes -= buffer.bytes.length;
}

function createReadBuffer(length: number): ReadBuffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  return { bytes, room: bytes.subarray(READ_AT) };
}
