/** Ids of requests: unique over workers and restarts, not secret. */
import { randomBytes } from 'node:crypto';

const LENGTH = 24;
const DIGITS = Buffer.from('0123456789abcdef');
/** The first half: this worker's. */
const PREFIX = Buffer.from(randomBytes(LENGTH / 4).toString('hex'));
const HALF = LENGTH / 2;

let low = 0;
let high = 0;

/** Room for an id; `writeRequestId` fills it, again and again. */
export function createRequestId(): Buffer {
  const id = Buffer.allocUnsafe(LENGTH).fill(0x30); // From Node's pool: one for each connection.
  PREFIX.copy(id);
  return id;
}

/** PERF: twelve digits counted up in place, where a UUID is a string and a conversion. */
export function writeRequestId(id: Buffer): void {
  low += 1;
  if (low > 0xff_ffff) {
    low = 0;
    high = (high + 1) & 0xff_ffff;
  }
  for (let digit = 0, rest = low; digit < HALF / 2; digit += 1, rest >>>= 4) id[LENGTH - 1 - digit] = DIGITS[rest & 15] ?? 0;
  for (let digit = 0, rest = high; digit < HALF / 2; digit += 1, rest >>>= 4)
    id[LENGTH - 1 - HALF / 2 - digit] = DIGITS[rest & 15] ?? 0;
}
