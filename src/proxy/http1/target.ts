/**
 * Where a request wants to go: the form of its target, the authority it names, and that all it says of it agrees.
 *
 * Source: RFC 9112 §3.2, §3.3; RFC 9110 §7.2; RFC 3986 §3.2. SECURITY: two readings of where a request goes are two requests.
 */
import { FIELD, isIn } from './field-names.ts';
import { METHOD, TARGET_FORM, valueEnd, valueStart } from './head-view.ts';
import type { HeadView } from './head-view.ts';
import { FOLDED as FOLDED_TABLE, HEX as HEX_TABLE, IN_HOST as IN_HOST_TABLE } from './octets.ts';
import { REFUSED } from './refusal.ts';

// PERF: the optimiser knows a const of this module, not an import: bench/head-codec.ts, small parse 395 → 346 ns, browser 1166 → 1051.
const FOLDED = FOLDED_TABLE;
const HEX = HEX_TABLE;
const IN_HOST = IN_HOST_TABLE;
const COLON = 58;

const SLASH = 47;
const QUESTION = 63;
const ASTERISK = 42;
const DOT = 46;
const OPENING = 91;
const CLOSING = 93;
const LETTER_S = 115;
const HTTP = [104, 116, 116, 112] as const;
/** RFC 1035 §2.3.4. */
const HOST_LENGTH_MAX = 253;
const PORT_MAX = 65_535;
const PORT_ABSENT = -1;
const PORT_MALFORMED = -2;

/** Judges target and Host of a request whose fields are read. 0, or why it is refused. */
export function judgeTarget(buffer: Buffer, view: HeadView): number {
  const form = readTarget(buffer, view);
  return form < 0 ? form : judgeHost(buffer, view);
}

/** The host that a request is for, in lower case, without port or trailing dot: half of the route key. */
export function hostKey(buffer: Buffer, view: HeadView): string {
  const { hostStart, hostEnd } = view;
  const end = hostEnd > hostStart && buffer[hostEnd - 1] === DOT ? hostEnd - 1 : hostEnd;
  const host = buffer.toString('latin1', hostStart, end);
  for (let index = hostStart; index < end; index += 1) {
    const octet = buffer[index] ?? 0;
    if (octet >= 65 && octet <= 90) return host.toLowerCase();
  }
  return host;
}

/** The path that a request is for, without its query: the other half. */
export function pathKey(buffer: Buffer, view: HeadView): string {
  return view.queryStart === view.pathStart ? '/' : buffer.toString('latin1', view.pathStart, view.queryStart);
}

function readTarget(buffer: Buffer, view: HeadView): number {
  const { targetStart, targetEnd, method } = view;
  const first = buffer[targetStart];
  if (method === METHOD.connect) return readAuthorityForm(buffer, view);
  if (first === SLASH) {
    view.targetForm = TARGET_FORM.origin;
    setPath(buffer, view, targetStart);
    return 0;
  }
  if (first === ASTERISK) {
    if (targetEnd - targetStart !== 1 || method !== METHOD.options) return REFUSED.targetForm;
    view.targetForm = TARGET_FORM.asterisk;
    view.pathStart = targetStart;
    view.pathEnd = targetEnd;
    view.queryStart = targetEnd;
    return 0;
  }
  return readAbsoluteForm(buffer, view);
}

function readAuthorityForm(buffer: Buffer, view: HeadView): number {
  const end = hostEndOf(buffer, view.targetStart, view.targetEnd);
  if (end < 0 || portOf(buffer, end, view.targetEnd) < 0) return REFUSED.targetForm;
  view.targetForm = TARGET_FORM.authority;
  view.targetSecure = false;
  view.pathStart = view.targetEnd;
  view.queryStart = view.targetEnd;
  view.pathEnd = view.targetEnd;
  return nameHost(view, view.targetStart, end, view.targetEnd);
}

function readAbsoluteForm(buffer: Buffer, view: HeadView): number {
  const { targetStart, targetEnd } = view;
  for (let index = 0; index < HTTP.length; index += 1)
    if (FOLDED[buffer[targetStart + index] ?? 0] !== HTTP[index]) return REFUSED.targetForm;
  const secure = FOLDED[buffer[targetStart + 4] ?? 0] === LETTER_S;
  const colon = targetStart + (secure ? 5 : 4);
  const start = colon + 3;
  if (buffer[colon] !== COLON || buffer[colon + 1] !== SLASH || buffer[colon + 2] !== SLASH || start > targetEnd)
    return REFUSED.targetForm;
  let end = start;
  while (end < targetEnd && buffer[end] !== SLASH && buffer[end] !== QUESTION) end += 1;
  const hostEnd = hostEndOf(buffer, start, end);
  if (hostEnd < 0 || portOf(buffer, hostEnd, end) === PORT_MALFORMED) return REFUSED.targetForm;
  view.targetForm = TARGET_FORM.absolute;
  view.targetSecure = secure;
  setPath(buffer, view, end);
  return nameHost(view, start, hostEnd, end);
}

function setPath(buffer: Buffer, view: HeadView, start: number): void {
  const { targetEnd } = view;
  let query = start;
  while (query < targetEnd && buffer[query] !== QUESTION) query += 1;
  view.pathStart = start;
  view.queryStart = query;
  view.pathEnd = targetEnd;
}

function nameHost(view: HeadView, start: number, end: number, authorityEnd: number): number {
  view.hostStart = start;
  view.hostEnd = end;
  view.authorityEnd = authorityEnd;
  return 0;
}

function judgeHost(buffer: Buffer, view: HeadView): number {
  if (isIn(view.repeated, FIELD.host)) return REFUSED.hostRepeated;
  if (!isIn(view.seen, FIELD.host)) return view.minor === 0 ? 0 : REFUSED.hostMissing;
  const start = valueStart(view, FIELD.host);
  const end = valueEnd(view, FIELD.host);
  const hostEnd = hostEndOf(buffer, start, end);
  if (hostEnd < 0) return REFUSED.hostMalformed;
  const port = portOf(buffer, hostEnd, end);
  if (port === PORT_MALFORMED) return REFUSED.hostMalformed;
  if (view.hostEnd === 0) return nameHost(view, start, hostEnd, end);
  return sameName(buffer, view, start, hostEnd) && samePort(portOf(buffer, view.hostEnd, view.authorityEnd), port, view)
    ? 0
    : REFUSED.hostDisagrees;
}

function samePort(targetPort: number, port: number, view: HeadView): boolean {
  // A target of CONNECT has no scheme to know by which port a Host without one means.
  if (view.targetForm === TARGET_FORM.authority) return port === PORT_ABSENT || port === targetPort;
  const schemePort = view.targetSecure ? 443 : 80;
  return (targetPort === PORT_ABSENT ? schemePort : targetPort) === (port === PORT_ABSENT ? schemePort : port);
}

function sameName(buffer: Buffer, view: HeadView, start: number, end: number): boolean {
  const { hostStart } = view;
  if (end - start !== view.hostEnd - hostStart) return false;
  for (let index = 0; index < end - start; index += 1) {
    const one = buffer[hostStart + index] ?? 0;
    const other = buffer[start + index] ?? 0;
    // Brackets and colons are no tokens and fold to nothing; an underscore is not a hyphen here.
    if (one !== other && (FOLDED[one] !== FOLDED[other] || FOLDED[one] === 0 || one === 95 || other === 95)) return false;
  }
  return true;
}

/** Where the host ends that begins at `start`: at `end` or before the colon of its port. -1 where it is none. */
function hostEndOf(buffer: Buffer, start: number, end: number): number {
  if (start < end && buffer[start] === OPENING) return literalEnd(buffer, start, end);
  let index = start;
  let labelStart = start;
  while (index < end) {
    const octet = buffer[index] ?? 0;
    if (IN_HOST[octet] !== 1) break;
    if (octet === DOT) {
      if (index === labelStart) return -1;
      labelStart = index + 1;
    }
    index += 1;
  }
  if (index === start || index - start > HOST_LENGTH_MAX) return -1;
  return index === end || buffer[index] === COLON ? index : -1;
}

/** The same for an IPv6 literal in brackets. */
function literalEnd(buffer: Buffer, start: number, end: number): number {
  let index = start + 1;
  while (index < end) {
    const octet = buffer[index] ?? 0;
    if ((HEX[octet] ?? -1) < 0 && octet !== COLON && octet !== DOT) break;
    index += 1;
  }
  if (index >= end || buffer[index] !== CLOSING || index < start + 3 || index - start > HOST_LENGTH_MAX) return -1;
  return index + 1 === end || buffer[index + 1] === COLON ? index + 1 : -1;
}

/** The port in `[start, end)`, which is empty or begins with a colon. An empty port is an absent one (RFC 3986 §3.2.3). */
function portOf(buffer: Buffer, start: number, end: number): number {
  if (end - start <= 1) return PORT_ABSENT;
  if (end - start > 6) return PORT_MALFORMED;
  let port = 0;
  for (let index = start + 1; index < end; index += 1) {
    const digit = (buffer[index] ?? 0) - 48;
    if (digit < 0 || digit > 9) return PORT_MALFORMED;
    port = port * 10 + digit;
  }
  return port > PORT_MAX ? PORT_MALFORMED : port;
}
