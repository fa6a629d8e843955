/**
 * Follows the chunked coding octet by octet: judges it, tells where its payload lies, copies nothing. Valid octets can be passed on as they are.
 *
 * Source: RFC 9112 §7.1, RFC 9110 §6.5. SECURITY: every line ends with CRLF, sizes are plain hexadecimal digits, and there is no white space
 * around extensions: what RFC 9110 §5.6.3 lets recipients remove has been read as more than one thing too often.
 * INVARIANT: an automaton over single octets, so any split of the bytes into reads gives the same result.
 * Limits: those of the scanner. Never throws, allocates nothing.
 */
import { FIELD, NEVER_TRAILING, fieldCode, isIn } from './field-names.ts';
import type { ChunkLimits } from './limits.ts';
import { FOLDED as FOLDED_TABLE, HEX as HEX_TABLE, IN_VALUE as IN_VALUE_TABLE } from './octets.ts';
import { REFUSED } from './refusal.ts';

// PERF: the optimiser knows a const of this module, not an import: bench/head-codec.ts, small parse 395 → 346 ns, browser 1166 → 1051.
const FOLDED = FOLDED_TABLE;
const HEX = HEX_TABLE;
const IN_VALUE = IN_VALUE_TABLE;
const COLON = 58;
const CR = 13;
const LF = 10;
const SEMICOLON = 59;

const STATE = {
  size: 0,
  extensionName: 1,
  extensionValue: 2,
  extensionToken: 3,
  quoted: 4,
  quotedPair: 5,
  quotedEnd: 6,
  sizeLf: 7,
  payload: 8,
  payloadCr: 9,
  payloadLf: 10,
  trailerStart: 11,
  trailerName: 12,
  trailerValue: 13,
  trailerLf: 14,
  endLf: 15,
  done: 16,
} as const;

const EQUALS = 61;
const QUOTE = 34;
const BACKSLASH = 92;
/** More digits than any size needs, so that zeros in front have a limit as well. */
const SIZE_DIGITS_MAX = 16;
/** Names are judged by what is kept of them: longer than any that is known, and than the prefixes. */
const NAME_KEPT = 32;

export interface ChunkScanner {
  readonly limits: ChunkLimits;
  state: number;
  /** Of the current chunk: its size and how many digits it was written with, then what is left of its payload. */
  size: number;
  digits: number;
  left: number;
  extensionBytes: number;
  extensionBytesTotal: number;
  trailerBytes: number;
  trailerCount: number;
  readonly name: Buffer;
  nameLength: number;
  /** Payload followed so far: what accounts and body limits count. */
  payloadBytes: number;
  /** Where the payload lies that the last call ended with; both are the same where it ended with none. */
  payloadStart: number;
  payloadEnd: number;
}

export function createChunkScanner(limits: ChunkLimits): ChunkScanner {
  return {
    limits,
    state: STATE.size,
    size: 0,
    digits: 0,
    left: 0,
    extensionBytes: 0,
    extensionBytesTotal: 0,
    trailerBytes: 0,
    trailerCount: 0,
    name: Buffer.alloc(NAME_KEPT),
    nameLength: 0,
    payloadBytes: 0,
    payloadStart: 0,
    payloadEnd: 0,
  };
}

/** Makes `scanner` ready for the body of another message. */
export function resetChunkScanner(scanner: ChunkScanner): void {
  scanner.state = STATE.size;
  scanner.size = 0;
  scanner.digits = 0;
  scanner.left = 0;
  scanner.extensionBytes = 0;
  scanner.extensionBytesTotal = 0;
  scanner.trailerBytes = 0;
  scanner.trailerCount = 0;
  scanner.nameLength = 0;
  scanner.payloadBytes = 0;
}

/** Whether the body is over: everything up to the offset that the last call returned is this message's, everything after it is not. */
export function isChunkedDone(scanner: ChunkScanner): boolean {
  return scanner.state === STATE.done;
}

/** Whether a chunk is over and the next one has not begun. */
export function isBetweenChunks(scanner: ChunkScanner): boolean {
  return scanner.state === STATE.size && scanner.digits === 0;
}

/** Whether the payload of a chunk is over and the chunk is not. */
export function isChunkEnding(scanner: ChunkScanner): boolean {
  return scanner.state === STATE.payloadCr || scanner.state === STATE.payloadLf;
}

/**
 * Follows `[start, end)` up to the next piece of payload, the end of the body or `end`. Returns the offset after what it followed, or a code of
 * `REFUSED`; the piece of payload, if any, is `[payloadStart, payloadEnd)`. To take the payload out, call until the offset is `end` or the body
 * is over.
 */
export function nextChunkPiece(buffer: Buffer, start: number, end: number, scanner: ChunkScanner): number {
  let index = start;
  scanner.payloadStart = start;
  scanner.payloadEnd = start;
  while (index < end) {
    if (scanner.state === STATE.payload) {
      const stop = Math.min(end, index + scanner.left);
      scanner.payloadStart = index;
      scanner.payloadEnd = stop;
      scanner.left -= stop - index;
      scanner.payloadBytes += stop - index;
      if (scanner.left === 0) scanner.state = STATE.payloadCr;
      return stop;
    }
    if (scanner.state === STATE.done) return index;
    const next = step(buffer[index] ?? 0, scanner);
    if (next < 0) return next;
    scanner.state = next;
    index += 1;
  }
  return index;
}

/** Follows all of `[start, end)` that belongs to the body: for bodies that are passed on as they are. */
export function followChunks(buffer: Buffer, start: number, end: number, scanner: ChunkScanner): number {
  let index = start;
  while (index < end && scanner.state !== STATE.done) {
    index = nextChunkPiece(buffer, index, end, scanner);
    if (index < 0) return index;
  }
  return index;
}

/** The state after `octet`, or why it is refused. */
function step(octet: number, scanner: ChunkScanner): number {
  const { state } = scanner;
  if (state === STATE.size) return inSize(octet, scanner);
  if (state < STATE.sizeLf) return inExtension(octet, scanner);
  if (state > STATE.payloadLf) return inTrailers(octet, scanner);
  switch (state) {
    case STATE.sizeLf:
      return octet === LF ? afterSize(scanner) : REFUSED.chunkSize;
    case STATE.payloadCr:
      return octet === CR ? STATE.payloadLf : REFUSED.chunkEnd;
    default:
      return octet === LF ? STATE.size : REFUSED.chunkEnd;
  }
}

function inSize(octet: number, scanner: ChunkScanner): number {
  const digit = HEX[octet] ?? -1;
  if (digit >= 0) {
    scanner.digits += 1;
    scanner.size = scanner.size * 16 + digit;
    return scanner.digits > SIZE_DIGITS_MAX || scanner.size > Number.MAX_SAFE_INTEGER ? REFUSED.chunkSizeTooLarge : STATE.size;
  }
  if (scanner.digits === 0) return REFUSED.chunkSize;
  if (octet === CR) return STATE.sizeLf;
  return octet === SEMICOLON ? extend(STATE.extensionName, scanner) : REFUSED.chunkSize;
}

function afterSize(scanner: ChunkScanner): number {
  scanner.left = scanner.size;
  scanner.size = 0;
  scanner.digits = 0;
  scanner.extensionBytes = 0;
  return scanner.left === 0 ? STATE.trailerStart : STATE.payload;
}

/** *( ";" name [ "=" ( token / quoted-string ) ] ). `nameLength` counts the octets of the token at hand. */
// oxlint-disable-next-line complexity -- a wire parser: a branch for each octet that a state takes
function inExtension(octet: number, scanner: ChunkScanner): number {
  switch (scanner.state) {
    case STATE.extensionName:
      if (FOLDED[octet] !== 0) return extendToken(STATE.extensionName, scanner);
      if (octet === EQUALS && scanner.nameLength > 0) return extend(STATE.extensionValue, scanner);
      return endExtension(octet, scanner, scanner.nameLength > 0);
    case STATE.extensionValue:
      if (octet === QUOTE) return extend(STATE.quoted, scanner);
      return FOLDED[octet] === 0 ? REFUSED.chunkExtension : extend(STATE.extensionToken, scanner);
    case STATE.extensionToken:
      return FOLDED[octet] === 0 ? endExtension(octet, scanner, true) : extend(STATE.extensionToken, scanner);
    case STATE.quoted:
      if (octet === QUOTE) return extend(STATE.quotedEnd, scanner);
      if (octet === BACKSLASH) return extend(STATE.quotedPair, scanner);
      return IN_VALUE[octet] === 1 ? extend(STATE.quoted, scanner) : REFUSED.chunkExtension;
    case STATE.quotedPair:
      return IN_VALUE[octet] === 1 ? extend(STATE.quoted, scanner) : REFUSED.chunkExtension;
    default:
      return endExtension(octet, scanner, true);
  }
}

function endExtension(octet: number, scanner: ChunkScanner, whole: boolean): number {
  if (!whole) return REFUSED.chunkExtension;
  if (octet === CR) {
    scanner.nameLength = 0;
    return STATE.sizeLf;
  }
  return octet === SEMICOLON ? extend(STATE.extensionName, scanner) : REFUSED.chunkExtension;
}

function extendToken(state: number, scanner: ChunkScanner): number {
  scanner.nameLength += 1;
  return count(state, scanner);
}

function extend(state: number, scanner: ChunkScanner): number {
  scanner.nameLength = 0;
  return count(state, scanner);
}

function count(state: number, scanner: ChunkScanner): number {
  scanner.extensionBytes += 1;
  scanner.extensionBytesTotal += 1;
  const { extensionBytesMax, extensionBytesTotalMax } = scanner.limits;
  return scanner.extensionBytes > extensionBytesMax || scanner.extensionBytesTotal > extensionBytesTotalMax
    ? REFUSED.chunkExtensionTooLong
    : state;
}

// oxlint-disable-next-line complexity -- a wire parser: a branch for each octet that a state takes
function inTrailers(octet: number, scanner: ChunkScanner): number {
  if (scanner.state === STATE.endLf) return octet === LF ? STATE.done : REFUSED.trailerMalformed;
  scanner.trailerBytes += 1;
  if (scanner.state === STATE.trailerStart && octet === CR) return STATE.endLf;
  if (scanner.trailerBytes > scanner.limits.trailerBytesMax) return REFUSED.trailersTooLong;
  switch (scanner.state) {
    case STATE.trailerStart:
      scanner.nameLength = 0;
      scanner.trailerCount += 1;
      if (FOLDED[octet] === 0) return REFUSED.trailerMalformed;
      return scanner.trailerCount > scanner.limits.trailerCountMax ? REFUSED.trailersTooLong : keepName(octet, scanner);
    case STATE.trailerName:
      if (octet === COLON) return judgeTrailer(scanner);
      return FOLDED[octet] === 0 ? REFUSED.trailerMalformed : keepName(octet, scanner);
    case STATE.trailerValue:
      if (octet === CR) return STATE.trailerLf;
      return IN_VALUE[octet] === 1 ? STATE.trailerValue : REFUSED.trailerMalformed;
    default:
      return octet === LF ? STATE.trailerStart : REFUSED.trailerMalformed;
  }
}

function keepName(octet: number, scanner: ChunkScanner): number {
  if (scanner.nameLength < NAME_KEPT) scanner.name[scanner.nameLength] = octet;
  scanner.nameLength += 1;
  return STATE.trailerName;
}

function judgeTrailer(scanner: ChunkScanner): number {
  const code = fieldCode(scanner.name, 0, Math.min(scanner.nameLength, NAME_KEPT));
  return code !== FIELD.other && isIn(NEVER_TRAILING, code) ? REFUSED.trailerForbidden : STATE.trailerValue;
}
