/**
 * The buffers of a worker: one that all sockets read short messages into, and those that long bodies are passed on in without a copy.
 *
 * INVARIANT: what is in `SHARED_BUFFER` is valid until the read callback returns. A lent buffer belongs to the write that it was lent to
 * until that is done, and comes back here once.
 */

/** A read into this brings whole requests and most responses. */
export const SHARED_BUFFER: Buffer = Buffer.allocUnsafeSlow(64 * 1024);
/** PERF: a 1 MiB response takes 8 reads of this size instead of 16; beyond that nothing was gained (`npm run bench -- proxy`). */
const LONG_BYTES = 128 * 1024;
/** With that much lent out, clients do not keep up: reads become small, so that a thousand of them cost megabytes, not hundreds. */
const LENT_BYTES_MANY = 32 * 1024 * 1024;
const SHORT_BYTES = 16 * 1024;
/** Buffers that are kept for later: 8 MiB. */
const FREE_MAX = 64;

const free: Buffer[] = [];
let lentBytes = 0;

/** A buffer for one long read. */
export function takeBuffer(): Buffer {
  if (lentBytes > LENT_BYTES_MANY) return Buffer.allocUnsafeSlow(SHORT_BYTES);
  return free.pop() ?? Buffer.allocUnsafeSlow(LONG_BYTES);
}

/** Gives a buffer back that nobody reads or writes any more. */
export function giveBuffer(buffer: Buffer): void {
  if (buffer.length === LONG_BYTES && free.length < FREE_MAX) free.push(buffer);
}

export function bufferLent(bytes: number): void {
  lentBytes += bytes;
}

export function bufferReturned(bytes: number): void {
  lentBytes -= bytes;
}

/** Bytes that wait in writes now. */
export function lentBytesNow(): number {
  return lentBytes;
}
