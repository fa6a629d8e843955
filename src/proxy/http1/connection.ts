/**
 * What a head says about its own connection: whether it persists, which fields end with it, whether it is to change protocol.
 *
 * Source: RFC 9110 §7.6.1, §7.8, §10.1.1; RFC 9112 §9.3.
 */
import { FIELD, NEVER_NOMINATED, fieldCode, isIn } from './field-names.ts';
import { FIELD_STRIDE as STRIDE, METHOD, OPTION, valueEnd, valueStart } from './head-view.ts';
import type { HeadView } from './head-view.ts';
import { CONNECTION_OPTIONS_MAX } from './limits.ts';
import { FOLDED as FOLDED_TABLE } from './octets.ts';
import { REFUSED } from './refusal.ts';

// PERF: the optimiser knows a const of this module, not an import: bench/head-codec.ts, small parse 395 → 346 ns, browser 1166 → 1051.
const FOLDED = FOLDED_TABLE;
const FIELD_STRIDE = STRIDE;
const COMMA = 44;
const HTAB = 9;
const SP = 32;

const CONTINUE = octets('100-continue');
const TRAILERS = octets('trailers');
const UNDERSCORE = 95;
const SLASH = 47;
const LETTER_H = 104;
const DIGIT_2 = 50;

/** What a message says about its expectation. */
export const EXPECTATION = { none: 0, continue: 1 } as const;

/** Reads every `Connection` of a head: sets `options`, and marks the fields that it nominates. 0, or why the head is refused. */
export function readConnection(buffer: Buffer, view: HeadView): number {
  if (!isIn(view.seen, FIELD.connection)) return 0;
  const { fields } = view;
  const end = view.fieldCount * FIELD_STRIDE;
  let count = 0;
  for (let at = view.first[FIELD.connection] ?? 0; at < end; at += FIELD_STRIDE) {
    if (fields[at + 4] !== FIELD.connection) continue;
    const options = readOptions(buffer, view, at);
    if (options < 0) return options;
    count += options;
  }
  return count > CONNECTION_OPTIONS_MAX ? REFUSED.connectionMalformed : 0;
}

/** Whether the connection may carry another message after this one (RFC 9112 §9.3). */
export function isPersistent(view: HeadView): boolean {
  if ((view.options & OPTION.close) !== 0) return false;
  return view.minor === 1 || (view.options & OPTION.keepAlive) !== 0;
}

/**
 * Whether `Upgrade` goes on to the endpoint: one protocol, nominated, on a GET without a body. SECURITY: `h2c` never is, because HTTP/2
 * with an endpoint is ours to speak, and tunnelling it would bypass routing (known as h2c smuggling).
 */
export function wantsUpgrade(buffer: Buffer, view: HeadView): boolean {
  if (!isIn(view.seen, FIELD.upgrade) || isIn(view.repeated, FIELD.upgrade) || (view.options & OPTION.upgrade) === 0)
    return false;
  if (view.method !== METHOD.get || view.minor !== 1) return false;
  if (isIn(view.seen, FIELD.transferEncoding) || isIn(view.seen, FIELD.contentLength)) return false;
  const start = valueStart(view, FIELD.upgrade);
  const end = valueEnd(view, FIELD.upgrade);
  for (let index = start; index < end; index += 1) {
    const octet = buffer[index] ?? 0;
    if (FOLDED[octet] === 0 && octet !== SLASH) return false;
  }
  return end > start && !(FOLDED[buffer[start] ?? 0] === LETTER_H && buffer[start + 1] === DIGIT_2);
}

/** What `Expect` asks for: one of `EXPECTATION`, or why it is refused. HTTP/1.0 clients cannot ask (RFC 9110 §10.1.1). */
export function expectationOf(buffer: Buffer, view: HeadView): number {
  if (!isIn(view.seen, FIELD.expect) || view.minor === 0) return EXPECTATION.none;
  if (isIn(view.repeated, FIELD.expect)) return REFUSED.expectation;
  const start = valueStart(view, FIELD.expect);
  return isFolded(buffer, start, valueEnd(view, FIELD.expect), CONTINUE) ? EXPECTATION.continue : REFUSED.expectation;
}

/** Whether `TE` says that trailers are welcome (RFC 9110 §10.1.4). */
export function takesTrailers(buffer: Buffer, view: HeadView): boolean {
  if (!isIn(view.seen, FIELD.te) || isIn(view.repeated, FIELD.te)) return false;
  const end = valueEnd(view, FIELD.te);
  let start = valueStart(view, FIELD.te);
  while (start < end) {
    let next = start;
    while (next < end && buffer[next] !== COMMA) next += 1;
    let last = next;
    while (last > start && isSpace(buffer[last - 1])) last -= 1;
    if (isFolded(buffer, start, last, TRAILERS)) return true;
    start = next + 1;
    while (start < end && isSpace(buffer[start])) start += 1;
  }
  return false;
}

/** Whether `[start, end)` is `text`, which is in lower case, in any case. An underscore is no hyphen here. */
export function isFolded(buffer: Buffer, start: number, end: number, text: Uint8Array): boolean {
  if (end - start !== text.length) return false;
  for (let index = 0; index < text.length; index += 1) {
    const octet = buffer[start + index] ?? 0;
    if (FOLDED[octet] !== text[index] || octet === UNDERSCORE) return false;
  }
  return true;
}

/** Counts and takes the options of the `Connection` at `at`: a list of tokens whose elements may be empty (RFC 9110 §5.6.1). */
function readOptions(buffer: Buffer, view: HeadView, at: number): number {
  const end = view.fields[at + 3] ?? 0;
  let index = view.fields[at + 2] ?? 0;
  let count = 0;
  while (index < end) {
    if (buffer[index] === COMMA || isSpace(buffer[index])) {
      index += 1;
      continue;
    }
    const start = index;
    while (index < end && FOLDED[buffer[index] ?? 0] !== 0) index += 1;
    count += 1;
    if (index === start || count > CONNECTION_OPTIONS_MAX) return REFUSED.connectionMalformed;
    takeOption(buffer, view, start, index);
    while (index < end && isSpace(buffer[index])) index += 1;
    if (index < end && buffer[index] !== COMMA) return REFUSED.connectionMalformed;
  }
  return count;
}

function takeOption(buffer: Buffer, view: HeadView, start: number, end: number): void {
  const code = fieldCode(buffer, start, end);
  switch (code) {
    case FIELD.close:
      view.options |= OPTION.close;
      nominate(buffer, view, start, end);
      return;
    case FIELD.keepAlive:
      view.options |= OPTION.keepAlive;
      return;
    case FIELD.upgrade:
      view.options |= OPTION.upgrade;
      return;
    case FIELD.te:
      view.options |= OPTION.te;
      return;
    default:
      if (!isIn(NEVER_NOMINATED, code)) nominate(buffer, view, start, end);
  }
}

/** Marks every field of that name. */
function nominate(buffer: Buffer, view: HeadView, start: number, end: number): void {
  const { fields } = view;
  const last = view.fieldCount * FIELD_STRIDE;
  for (let at = 0; at < last; at += FIELD_STRIDE) {
    const nameStart = fields[at] ?? 0;
    if ((fields[at + 1] ?? 0) - nameStart !== end - start || !sameToken(buffer, nameStart, start, end - start)) continue;
    if (isIn(NEVER_NOMINATED, fields[at + 4] ?? 0)) continue;
    view.seen &= ~(1 << (fields[at + 4] ?? 0));
    fields[at + 4] = FIELD.nominated;
  }
}

/** SECURITY: an underscore is no hyphen here: `Content_Length` may not nominate `Content-Length` away. */
function sameToken(buffer: Buffer, one: number, other: number, length: number): boolean {
  for (let index = 0; index < length; index += 1) {
    const octet = buffer[one + index] ?? 0;
    const wanted = buffer[other + index] ?? 0;
    if (octet !== wanted && (FOLDED[octet] !== FOLDED[wanted] || octet === UNDERSCORE || wanted === UNDERSCORE)) return false;
  }
  return true;
}

function isSpace(octet: number | undefined): boolean {
  return octet === SP || octet === HTAB;
}

function octets(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.codePointAt(0) ?? 0);
}
