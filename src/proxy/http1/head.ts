/**
 * Reads the head of a request or response in one pass over its bytes into a `HeadView`.
 *
 * Source: RFC 9112 §2–§5, RFC 9110 §5. In: the bytes `[start, end)`, which may be a part of the head or have more behind it. Out: the offset
 * after the head, `NEED_MORE`, or a code of `REFUSED`.
 *
 * INVARIANT: any split of the bytes into reads gives the same result. A line is therefore judged when its LF is there or a limit is
 * passed, never before; only the very first octet is judged at once, so that a TLS hello or other noise need not wait for a line.
 * The work is linear in the bytes, however they come. Limits: those of the view. Never throws, allocates nothing.
 */
import { readConnection } from './connection.ts';
import { FIELD, fieldCode, isIn } from './field-names.ts';
import { FIELD_STRIDE as STRIDE, METHOD, PHASE, rebaseHeadView, resetHeadView } from './head-view.ts';
import type { HeadView } from './head-view.ts';
import { METHOD_LENGTH_MAX } from './limits.ts';
import { FOLDED as FOLDED_TABLE, IN_TARGET as IN_TARGET_TABLE, IN_VALUE as IN_VALUE_TABLE } from './octets.ts';
import { REFUSED } from './refusal.ts';
import { judgeTarget } from './target.ts';

// PERF: the optimiser knows a const of this module, not an import: bench/head-codec.ts, small parse 395 → 346 ns, browser 1166 → 1051.
const FOLDED = FOLDED_TABLE;
const FIELD_STRIDE = STRIDE;
const IN_TARGET = IN_TARGET_TABLE;
const IN_VALUE = IN_VALUE_TABLE;
const COLON = 58;
const CR = 13;
const HTAB = 9;
const LF = 10;
const SP = 32;

export const NEED_MORE = 0;

/** Beside offsets, of which 0 is one. */
const PENDING = 0x7fff_ffff;
const SLASH = 47;
const DOT = 46;
const ZERO = 48;
const STATUS_LINE_LEAST = 12;
const VERSION_LENGTH = 8;
const METHOD_NAMES: string[] = Array.from({ length: 32 }, () => '');
const METHOD_CODES = new Uint8Array(32);
for (const [name, code] of Object.entries(METHOD)) {
  const slot = methodSlot(name.length, name.toUpperCase().charCodeAt(0));
  if (code === METHOD.other) continue;
  METHOD_NAMES[slot] = name.toUpperCase();
  METHOD_CODES[slot] = code;
}

/**
 * Goes on with the head that begins at `start`. Called again with `start` at the same byte of the same head until it gives something else
 * than `NEED_MORE`; the bytes may have moved to another buffer or offset.
 */
export function parseHead(buffer: Buffer, start: number, end: number, view: HeadView): number {
  const begun = begin(buffer, start, end, view);
  if (begun <= 0) return begun;
  if (view.scanned > view.lineStart && !lineEnds(buffer, end, view)) return awaitLine(view, end);
  if (view.phase === PHASE.startLine) {
    const next = view.kind === 'request' ? readRequestLine(buffer, end, view) : readStatusLine(buffer, end, view);
    if (next <= 0) return settle(buffer, end, view, next);
    if (next - view.lineStart > view.limits.lineBytesMax || next - start > view.limits.headBytesMax)
      return refuse(view, REFUSED.startLineTooLong);
    view.phase = PHASE.fields;
    view.lineStart = next;
    view.fieldsStart = next;
  }
  const after = readFields(buffer, end, view);
  if (after <= 0) return settle(buffer, end, view, after);
  view.phase = PHASE.idle;
  const refused = judge(buffer, view);
  return refused < 0 ? refused : after;
}

/** Finds the first line of a head, or the place where it was left. Positive where there is something to read. */
function begin(buffer: Buffer, start: number, end: number, view: HeadView): number {
  if (view.phase === PHASE.idle) resetHeadView(view, start);
  else if (view.base !== start) rebaseHeadView(view, start);
  if (view.lineStart !== start || view.kind === 'response') return 1;
  const line = skipEmptyLine(buffer, start, end);
  if (line < 0) return refuse(view, line);
  if (line === PENDING) return NEED_MORE;
  view.lineStart = line;
  if (view.scanned < line) view.scanned = line;
  return 1;
}

/** Forgets a head that was read in part. */
export function abandonHead(view: HeadView): void {
  view.phase = PHASE.idle;
}

function judge(buffer: Buffer, view: HeadView): number {
  if (view.kind === 'request') {
    const refused = judgeTarget(buffer, view);
    if (refused < 0) return refused;
  }
  return isIn(view.seen, FIELD.connection) ? readConnection(buffer, view) : 0;
}

function refuse(view: HeadView, code: number): number {
  view.phase = PHASE.idle;
  return code;
}

/** Where the request line begins, `PENDING` or a refusal: one empty line before it is passed over (RFC 9112 §2.2). */
function skipEmptyLine(buffer: Buffer, start: number, end: number): number {
  if (start >= end) return PENDING;
  const first = buffer[start] ?? 0;
  if (first !== CR) return FOLDED[first] === 0 ? firstOctet(first) : start;
  if (start + 1 >= end) return PENDING;
  if (buffer[start + 1] !== LF) return REFUSED.lineEnd;
  if (start + 2 >= end) return PENDING;
  const next = buffer[start + 2] ?? 0;
  if (next === CR) return REFUSED.emptyLines;
  return FOLDED[next] === 0 ? firstOctet(next) : start + 2;
}

function firstOctet(octet: number): number {
  if (octet === LF) return REFUSED.lineEnd;
  return octet === SP || octet === HTAB ? REFUSED.foldedLine : REFUSED.requestLine;
}

function lineEnds(buffer: Buffer, end: number, view: HeadView): boolean {
  for (let index = view.scanned; index < end; index += 1) if (buffer[index] === LF) return true;
  return false;
}

/** The line that begins at `lineStart` has no end yet in `[…, end)`. */
function awaitLine(view: HeadView, end: number): number {
  view.scanned = end;
  return end > lineBound(view) ? refuse(view, tooLong(view)) : NEED_MORE;
}

/** The line at `lineStart` was not read to its end: for want of bytes, or because of `code`. */
function settle(buffer: Buffer, end: number, view: HeadView, code: number): number {
  if (code === REFUSED.headTooLong || code === REFUSED.fieldLineTooLong || code === REFUSED.fieldsTooMany)
    return refuse(view, code);
  let index = view.scanned > view.lineStart ? view.scanned : view.lineStart;
  while (index < end && buffer[index] !== LF) index += 1;
  if (index >= end) return awaitLine(view, end);
  if (index + 1 > lineBound(view)) return refuse(view, tooLong(view));
  return refuse(view, code === NEED_MORE ? cutLine(view) : code);
}

/** A line that ends before its parts do. */
function cutLine(view: HeadView): number {
  if (view.phase === PHASE.fields) return REFUSED.lineEnd;
  return view.kind === 'request' ? REFUSED.requestLine : REFUSED.statusLine;
}

function lineBound(view: HeadView): number {
  return Math.min(view.lineStart + view.limits.lineBytesMax, view.base + view.limits.headBytesMax);
}

function tooLong(view: HeadView): number {
  if (view.phase === PHASE.startLine) return REFUSED.startLineTooLong;
  return view.lineStart + view.limits.lineBytesMax < view.base + view.limits.headBytesMax
    ? REFUSED.fieldLineTooLong
    : REFUSED.headTooLong;
}

/** method SP request-target SP HTTP-version CRLF. */
// oxlint-disable-next-line complexity -- a wire parser: a branch for each part of the grammar
function readRequestLine(buffer: Buffer, end: number, view: HeadView): number {
  const start = view.lineStart;
  let index = start;
  let capitals = true;
  while (index < end) {
    const octet = buffer[index] ?? 0;
    if (FOLDED[octet] === 0) break;
    if (octet >= 97 && octet <= 122) capitals = false;
    index += 1;
  }
  if (index >= end) return NEED_MORE;
  if (buffer[index] !== SP || index === start) return REFUSED.requestLine;
  // SECURITY: methods are case-sensitive, and a server that takes `head` for HEAD answers without the body that we wait for.
  if (!capitals || index - start > METHOD_LENGTH_MAX) return REFUSED.method;
  view.start = start;
  view.methodEnd = index;
  view.method = methodOf(buffer, start, index);
  index += 1;
  view.targetStart = index;
  while (index < end && IN_TARGET[buffer[index] ?? 0] === 1) index += 1;
  if (index >= end) return NEED_MORE;
  if (buffer[index] !== SP) return index === view.targetStart || isLineEnd(buffer[index]) ? REFUSED.requestLine : REFUSED.target;
  if (index === view.targetStart) return REFUSED.requestLine;
  view.targetEnd = index;
  return readVersionEnd(buffer, index + 1, end, view);
}

function readVersionEnd(buffer: Buffer, index: number, end: number, view: HeadView): number {
  const version = readVersion(buffer, index, end, view);
  return version <= 0 ? version : crlfAt(buffer, version, end, REFUSED.requestLine);
}

/** The offset after `HTTP/1.x` at `index`. */
// oxlint-disable-next-line complexity -- a wire parser: a branch for each part of the grammar
function readVersion(buffer: Buffer, index: number, end: number, view: HeadView): number {
  if (index + VERSION_LENGTH > end) return NEED_MORE;
  const malformed = view.kind === 'request' ? REFUSED.requestLine : REFUSED.statusLine;
  if (buffer[index] !== 72 || buffer[index + 1] !== 84 || buffer[index + 2] !== 84 || buffer[index + 3] !== 80) return malformed;
  if (buffer[index + 4] !== SLASH || buffer[index + 6] !== DOT) return malformed;
  const major = (buffer[index + 5] ?? 0) - ZERO;
  const minor = (buffer[index + 7] ?? 0) - ZERO;
  if (major < 0 || major > 9 || minor < 0 || minor > 9) return malformed;
  if (major !== 1 || minor > 1) return REFUSED.version;
  view.minor = minor;
  return index + VERSION_LENGTH;
}

/** HTTP-version SP status-code SP [ reason-phrase ] CRLF; the second SP may be missing where the reason is, as some servers have it. */
// oxlint-disable-next-line complexity -- a wire parser: a branch for each part of the grammar
function readStatusLine(buffer: Buffer, end: number, view: HeadView): number {
  const start = view.lineStart;
  const version = readVersion(buffer, start, end, view);
  if (version <= 0) return version;
  if (start + STATUS_LINE_LEAST > end) return NEED_MORE;
  const hundreds = (buffer[version + 1] ?? 0) - ZERO;
  const tens = (buffer[version + 2] ?? 0) - ZERO;
  const ones = (buffer[version + 3] ?? 0) - ZERO;
  if (buffer[version] !== SP || hundreds < 1 || hundreds > 5 || tens < 0 || tens > 9 || ones < 0 || ones > 9)
    return REFUSED.statusLine;
  view.start = start;
  view.status = hundreds * 100 + tens * 10 + ones;
  let index = start + STATUS_LINE_LEAST;
  if (index >= end) return NEED_MORE;
  if (buffer[index] === SP) index += 1;
  else if (buffer[index] !== CR) return buffer[index] === LF ? REFUSED.lineEnd : REFUSED.statusLine;
  view.reasonStart = index;
  while (index < end && IN_VALUE[buffer[index] ?? 0] === 1) index += 1;
  view.reasonEnd = index;
  return crlfAt(buffer, index, end, REFUSED.statusLine);
}

/**
 * The field lines and the empty line after them, from `lineStart`.
 * PERF: the loop that most of a head is spent in. Lines are delimited by two tables; what a name means is one hash and one comparison.
 */
// oxlint-disable-next-line complexity -- a wire parser: a branch for each part of the grammar
function readFields(buffer: Buffer, end: number, view: HeadView): number {
  const headBound = view.base + view.limits.headBytesMax;
  const { lineBytesMax } = view.limits;
  const { fields } = view;
  let index = view.lineStart;
  for (;;) {
    const nameStart = index;
    view.lineStart = nameStart;
    if (index >= end) return NEED_MORE;
    while (index < end && FOLDED[buffer[index] ?? 0] !== 0) index += 1;
    if (index >= end) return NEED_MORE;
    if (buffer[index] !== COLON || index === nameStart) return endOrFault(buffer, index, end, view);
    const nameEnd = index;
    index += 1;
    while (index < end && (buffer[index] === SP || buffer[index] === HTAB)) index += 1;
    const start = index;
    while (index < end && IN_VALUE[buffer[index] ?? 0] === 1) index += 1;
    let valueEnd = index;
    index = crlfAt(buffer, index, end, REFUSED.fieldValue);
    if (index <= 0) return index;
    if (index - nameStart > lineBytesMax || index > headBound) return tooLong(view);
    while (valueEnd > start && (buffer[valueEnd - 1] === SP || buffer[valueEnd - 1] === HTAB)) valueEnd -= 1;
    if (view.fieldCount >= view.limits.fieldCountMax) return REFUSED.fieldsTooMany;
    const at = view.fieldCount * FIELD_STRIDE;
    const code = fieldCode(buffer, nameStart, nameEnd);
    fields[at] = nameStart;
    fields[at + 1] = nameEnd;
    fields[at + 2] = start;
    fields[at + 3] = valueEnd;
    fields[at + 4] = code;
    view.fieldCount += 1;
    if (code !== FIELD.other) see(view, code, at);
  }
}

function see(view: HeadView, code: number, at: number): void {
  const bit = 1 << code;
  if ((view.seen & bit) === 0) {
    view.seen |= bit;
    view.first[code] = at;
  } else view.repeated |= bit;
}

/** What stands at `index` ends no name: the end of the head, or a fault. */
function endOrFault(buffer: Buffer, index: number, end: number, view: HeadView): number {
  const octet = buffer[index];
  if (index > view.lineStart) return octet === LF ? REFUSED.lineEnd : REFUSED.fieldName;
  if (octet === CR) {
    const after = crlfAt(buffer, index, end, REFUSED.lineEnd);
    if (after <= 0) return after;
    if (after > view.base + view.limits.headBytesMax) return REFUSED.headTooLong;
    view.fieldsEnd = index;
    view.fields[view.fieldCount * FIELD_STRIDE] = index;
    return after;
  }
  if (octet === LF) return REFUSED.lineEnd;
  return octet === SP || octet === HTAB ? REFUSED.foldedLine : REFUSED.fieldName;
}

/** The offset after the CRLF at `index`; `other` where some other octet stands there. */
function crlfAt(buffer: Buffer, index: number, end: number, other: number): number {
  if (index >= end) return NEED_MORE;
  const octet = buffer[index];
  if (octet !== CR) return octet === LF ? REFUSED.lineEnd : other;
  if (index + 1 >= end) return NEED_MORE;
  return buffer[index + 1] === LF ? index + 2 : REFUSED.lineEnd;
}

function isLineEnd(octet: number | undefined): boolean {
  return octet === CR || octet === LF;
}

/** One of `METHOD`: every method that is known has a slot of its own. */
function methodOf(buffer: Buffer, start: number, end: number): number {
  const slot = methodSlot(end - start, buffer[start] ?? 0);
  const name = METHOD_NAMES[slot] ?? '';
  if (name.length !== end - start) return METHOD.other;
  for (let index = 0; index < name.length; index += 1) if (buffer[start + index] !== name.charCodeAt(index)) return METHOD.other;
  return METHOD_CODES[slot] ?? METHOD.other;
}

function methodSlot(length: number, first: number): number {
  return (length * 3 + first) & 31;
}
