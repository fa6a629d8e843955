/**
 * How long the body of a message is: decided once, from its head, in one place.
 *
 * Source: RFC 9112 §6.1–§6.3, RFC 9110 §8.6, §6.4.1. SECURITY: two readings of where a body ends are request smuggling (RFC 9112 §11.2), so
 * whatever two readers could take differently is refused, even where the RFC would let a recipient repair it.
 * Out: one of `FRAMING`, the length in `view.contentLength`; or a code of `REFUSED`. Never throws, allocates nothing.
 */
import { isFolded } from './connection.ts';
import { FIELD, isIn } from './field-names.ts';
import { FIELD_STRIDE as STRIDE, METHOD, OPTION, valueEnd, valueStart } from './head-view.ts';
import type { HeadView } from './head-view.ts';
import { FOLDED as FOLDED_TABLE } from './octets.ts';
import { REFUSED } from './refusal.ts';

// PERF: the optimiser knows a const of this module, not an import: bench/head-codec.ts, small parse 395 → 346 ns, browser 1166 → 1051.
const FOLDED = FOLDED_TABLE;
const FIELD_STRIDE = STRIDE;
const COMMA = 44;
const HTAB = 9;
const SP = 32;

export const FRAMING = {
  none: 1,
  fixed: 2,
  chunked: 3,
  /** The body ends with the connection (responses only). */
  untilClose: 4,
  /** What follows is no HTTP/1.1: after 101, and after 2xx to CONNECT. */
  tunnel: 5,
} as const;

export interface RequestFacts {
  /** One of `METHOD`: of the request that the response answers. */
  readonly method: number;
  /** Whether that request went on with an `Upgrade`. */
  readonly upgrade: boolean;
}

const CHUNKED = Uint8Array.from('chunked', (character) => character.codePointAt(0) ?? 0);
const CODINGS = { malformed: 0, chunkedLast: 1, unknownLast: 2 } as const;
const ZERO = 48;
/** More digits are zeros in front, which no sender needs. */
const LENGTH_DIGITS_MAX = 19;

/** The framing of the request that `view` was read from. */
export function requestFraming(buffer: Buffer, view: HeadView): number {
  const stated = statedFraming(buffer, view);
  if (stated < 0 || stated === FRAMING.none) return stated;
  // RFC 9110 §9.3.6: CONNECT has no content; what follows it is the tunnel's.
  return view.method === METHOD.connect ? REFUSED.bodyNotAllowed : stated;
}

/** The framing of the response that `view` was read from. */
export function responseFraming(buffer: Buffer, view: HeadView, request: RequestFacts): number {
  const stated = statedFraming(buffer, view);
  if (stated < 0) return stated;
  const { status } = view;
  if (status < 200 || status === 204) {
    // RFC 9110 §8.6, RFC 9112 §6.1: neither field may be here. A length of zero is common with 204 and has one reading.
    if (stated === FRAMING.chunked || view.contentLength > 0) return REFUSED.bodyNotAllowed;
    if (status !== 101) return FRAMING.none;
    return request.upgrade && switches(view) ? FRAMING.tunnel : REFUSED.switchUnasked;
  }
  if (request.method === METHOD.connect && status < 300) return stated === FRAMING.none ? FRAMING.tunnel : REFUSED.bodyNotAllowed;
  if (request.method === METHOD.head || status === 304) return FRAMING.none;
  return stated === FRAMING.none ? FRAMING.untilClose : stated;
}

/** RFC 9110 §7.8: who sends Upgrade names it in Connection; HTTP/1.0 knows no 101. */
function switches(view: HeadView): boolean {
  return isIn(view.seen, FIELD.upgrade) && (view.options & OPTION.upgrade) !== 0 && view.minor === 1;
}

/** What Content-Length and Transfer-Encoding say. */
function statedFraming(buffer: Buffer, view: HeadView): number {
  const hasLength = isIn(view.seen, FIELD.contentLength);
  if (isIn(view.seen, FIELD.transferEncoding)) {
    if (hasLength) return REFUSED.lengthWithEncoding;
    return view.minor === 0 ? REFUSED.encodingInOldVersion : readEncoding(buffer, view);
  }
  return hasLength ? readLength(buffer, view) : FRAMING.none;
}

function readLength(buffer: Buffer, view: HeadView): number {
  if (isIn(view.repeated, FIELD.contentLength)) return REFUSED.lengthRepeated;
  const start = valueStart(view, FIELD.contentLength);
  const end = valueEnd(view, FIELD.contentLength);
  if (start === end) return REFUSED.lengthMalformed;
  let length = 0;
  for (let index = start; index < end; index += 1) {
    const digit = (buffer[index] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return REFUSED.lengthMalformed;
    length = length * 10 + digit;
  }
  if (end - start > LENGTH_DIGITS_MAX || length > Number.MAX_SAFE_INTEGER) return REFUSED.lengthTooLarge;
  view.contentLength = length;
  return FRAMING.fixed;
}

function readEncoding(buffer: Buffer, view: HeadView): number {
  const start = valueStart(view, FIELD.transferEncoding);
  const end = valueEnd(view, FIELD.transferEncoding);
  // SECURITY: a tab after the value is white space to RFC 9110 and part of the coding to some, llhttp among them.
  for (let index = end; buffer[index] === SP || buffer[index] === HTAB; index += 1)
    if (buffer[index] === HTAB) return REFUSED.encodingMalformed;
  if (!isIn(view.repeated, FIELD.transferEncoding) && isFolded(buffer, start, end, CHUNKED)) return FRAMING.chunked;
  return encodingFault(buffer, view);
}

/** Off the hot path: what is wrong with a Transfer-Encoding that is not just `chunked`. */
function encodingFault(buffer: Buffer, view: HeadView): number {
  const { fields } = view;
  const last = view.fieldCount * FIELD_STRIDE;
  let ended = false;
  for (let at = view.first[FIELD.transferEncoding] ?? 0; at < last; at += FIELD_STRIDE) {
    if (fields[at + 4] !== FIELD.transferEncoding) continue;
    const coding = readCodings(buffer, fields[at + 2] ?? 0, fields[at + 3] ?? 0);
    if (ended || coding === CODINGS.malformed) return REFUSED.encodingMalformed;
    ended = coding === CODINGS.chunkedLast;
  }
  // Something else than chunked is there, since chunked alone ends the list at once and more than one is malformed.
  return REFUSED.encodingUnknown;
}

/** A list of codings without empty elements or parameters, and nothing after chunked. */
function readCodings(buffer: Buffer, from: number, end: number): number {
  let index = from;
  for (;;) {
    const start = index;
    while (index < end && FOLDED[buffer[index] ?? 0] !== 0) index += 1;
    if (index === start) return CODINGS.malformed;
    const chunked = isFolded(buffer, start, index, CHUNKED);
    index = skipSpace(buffer, index, end);
    if (index === end) return chunked ? CODINGS.chunkedLast : CODINGS.unknownLast;
    if (buffer[index] !== COMMA || chunked) return CODINGS.malformed;
    index = skipSpace(buffer, index + 1, end);
  }
}

function skipSpace(buffer: Buffer, start: number, end: number): number {
  let index = start;
  while (index < end && (buffer[index] === SP || buffer[index] === HTAB)) index += 1;
  return index;
}
