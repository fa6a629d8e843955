/** A bandwidth limit as a bucket of bytes that fills with time. Pure. */

export interface TokenBucket {
  /** Below zero: bytes that went ahead of their time. */
  readonly bytes: number;
  readonly atMs: number;
}

/** What may go at once after a pause: short enough that other traffic of the link does not notice. */
const BURST_MS = 50;

function capacityOf(bytesPerSecond: number): number {
  return (bytesPerSecond * BURST_MS) / 1000;
}

export function fullBucket(bytesPerSecond: number, nowMs: number): TokenBucket {
  return { bytes: capacityOf(bytesPerSecond), atMs: nowMs };
}

/** Takes bytes, of which a frame has more than the bucket may: the debt is waited for. */
export function takeBytes(
  bucket: TokenBucket,
  request: { readonly bytes: number; readonly bytesPerSecond: number; readonly nowMs: number },
): { readonly bucket: TokenBucket; readonly waitMs: number } {
  const { bytesPerSecond, nowMs } = request;
  const filled = bucket.bytes + (bytesPerSecond * Math.max(0, nowMs - bucket.atMs)) / 1000;
  const bytes = Math.min(capacityOf(bytesPerSecond), filled) - request.bytes;
  return { bucket: { bytes, atMs: nowMs }, waitMs: bytes >= 0 ? 0 : (-bytes * 1000) / bytesPerSecond };
}
