/**
 * Reads `traceparent`: the id that a request has in a trace. Pure, on bytes where they lie.
 *
 * Source: W3C Trace Context level 1, §3.2. A header that is not valid is as good as none: the trace starts anew, nothing is refused.
 */

/** Version 00: version, trace id, parent id and flags, with their dashes. */
const LENGTH = 55;
const TRACE_ID_OFFSET = 3;
const PARENT_ID_OFFSET = 36;
const FLAGS_OFFSET = 53;
const DASH = 45;
const ZERO = 48;
const LETTER_F = 102;

/**
 * Whether `[start, end)` is a valid value, with no white space around it. Later versions may have more after a dash (§4); `ff` is none (§3.2.2.1),
 * and ids of zeros only are invalid (§3.2.2.3, §3.2.2.4). Hexadecimal digits are in lower case. Allocates nothing; reads 56 bytes at most.
 */
export function readTraceparent(buffer: Buffer, start: number, end: number): boolean {
  const length = end - start;
  if (length < LENGTH || buffer[start + 2] !== DASH) return false;
  if (buffer[start + PARENT_ID_OFFSET - 1] !== DASH || buffer[start + FLAGS_OFFSET - 1] !== DASH) return false;
  const isFirstVersion = buffer[start] === ZERO && buffer[start + 1] === ZERO;
  if (length > LENGTH && (isFirstVersion || buffer[start + LENGTH] !== DASH)) return false;
  if (buffer[start] === LETTER_F && buffer[start + 1] === LETTER_F) return false;
  return (
    digits(buffer, start, start + 2) !== NOT_DIGITS &&
    digits(buffer, start + TRACE_ID_OFFSET, start + PARENT_ID_OFFSET - 1) === DIGITS &&
    digits(buffer, start + PARENT_ID_OFFSET, start + FLAGS_OFFSET - 1) === DIGITS &&
    digits(buffer, start + FLAGS_OFFSET, start + LENGTH) !== NOT_DIGITS
  );
}

const NOT_DIGITS = 0;
const ZEROS = 1;
const DIGITS = 2;

function digits(buffer: Buffer, start: number, end: number): number {
  let seen = ZEROS;
  for (let index = start; index < end; index += 1) {
    const octet = buffer[index] ?? 0;
    if (octet < ZERO || (octet > 57 && octet < 97) || octet > LETTER_F) return NOT_DIGITS;
    if (octet !== ZERO) seen = DIGITS;
  }
  return seen;
}
