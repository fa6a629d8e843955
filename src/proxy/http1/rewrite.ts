/**
 * Writes the head that goes on, from the head that came: the lines that stay are copied as ranges, in their order and case.
 *
 * Source: RFC 9110 §7.6, RFC 9112 §3.2, §6.1, §9.3; RFC 7239 §4. In: a head that `parseHead` and the framing took, still in its bytes. Out: how
 * many octets were written, or `NO_FIT` with nothing written.
 * PERF: neighbouring lines that stay are one copy; what is ours and the same for a connection is one more (`createRequestEdits`).
 * INVARIANT: what is written parses to the same framing: exactly one of Content-Length, `Transfer-Encoding: chunked` or neither.
 */
import { FRAMING } from './body-framing.ts';
import { FIELD, FORWARDING, HOP_BY_HOP, isIn } from './field-names.ts';
import { FIELD_STRIDE as STRIDE, METHOD, TARGET_FORM, valueEnd, valueStart } from './head-view.ts';
import type { HeadView } from './head-view.ts';
import { FOLDED } from './octets.ts';
// PERF: a const of this module is a constant to the optimiser, an import is not (`node bench/head-codec.ts`).
const FIELD_STRIDE = STRIDE;

export const NO_FIT = -1;

/** What goes on about the sender's own connection. */
export const PERSISTENCE = { unsaid: 0, close: 1, keepAlive: 2 } as const;

export interface ForwardingFacts {
  readonly clientAddress: string;
  readonly proto: 'http' | 'https';
  /** Name of the Écluse host that the endpoint runs on. */
  readonly hostName: string;
  /** Whether the client is a proxy whose word about its clients is believed. */
  readonly trusted: boolean;
}

/** What a route changes of the fields of a head. */
export interface FieldEdits {
  /** Fields of these names go: in lower case, an underscore as a hyphen (`octets.ts`). */
  readonly drops: readonly Uint8Array[];
  /** Whole lines that are added; may be empty. */
  readonly lines: Buffer;
}

/** What is ours in the requests of one connection. From `requestId` on it is set for each request. */
export interface RequestEdits {
  readonly trusted: boolean;
  readonly address: Buffer;
  /** PERF: what is ours up to the host in `X-Forwarded-Host`, and from there up to the one in `Forwarded`: two copies instead of eight. */
  readonly untilHost: Buffer;
  readonly untilForwardedHost: Buffer;
  readonly protoLine: Buffer;
  readonly hostNameLine: Buffer;
  /** `for=…;proto=…`, an element of Forwarded. */
  readonly forwarded: Buffer;
  requestId: Buffer;
  /** The Host that the endpoint gets; empty: the one that the client named. */
  host: Buffer;
  /** Whether Upgrade goes on (`wantsUpgrade`). */
  upgrade: boolean;
  /** Whether trailers are welcome (`takesTrailers`). */
  trailers: boolean;
  /** The path that the endpoint gets, without the query; empty: the one that came. */
  path: Buffer;
  fields: FieldEdits | undefined;
  /** Whole lines about who the client is by its certificate; may be empty. */
  identity: Buffer;
}

/** Where heads are written: `at` is where the next one begins, and moves on with it. */
export interface HeadWriter {
  readonly out: Buffer;
  at: number;
}

/** What is ours in one response. */
export interface ResponseEdits {
  /** One of `FRAMING`: as it goes to the client. */
  framing: number;
  /** One of `PERSISTENCE`. */
  persistence: number;
  /** Whether Trailer goes on. */
  trailers: boolean;
  /** A Date line for a response that has none (RFC 9110 §6.6.1); may be empty. */
  dateLine: Buffer;
  fields: FieldEdits | undefined;
}

const EMPTY = Buffer.alloc(0);
const CRLF = Buffer.from('\r\n');
const VERSION_CRLF = Buffer.from(' HTTP/1.1\r\n');
const VERSION = Buffer.from('HTTP/1.1 ');
const HOST = Buffer.from('Host: ');
const FOR = Buffer.from('X-Forwarded-For: ');
const FORWARDED_HOST = Buffer.from('X-Forwarded-Host: ');
const FORWARDED = Buffer.from('Forwarded: ');
const SEPARATOR = Buffer.from(', ');
const HOST_PAIR = Buffer.from(';host="');
const QUOTE_REQUEST_ID = Buffer.from('"\r\nX-Request-Id: ');
const CRLF_REQUEST_ID = Buffer.from('\r\nX-Request-Id: ');
const CHUNKED = Buffer.from('Transfer-Encoding: chunked\r\n');
const CLOSE = Buffer.from('Connection: close\r\n');
const KEEP_ALIVE = Buffer.from('Connection: keep-alive\r\n');
const TRAILERS = Buffer.from('Connection: TE\r\nTE: trailers\r\n');
const UPGRADE = Buffer.from('Connection: Upgrade\r\nUpgrade: ');
const UPGRADE_CLOSE = Buffer.from('Connection: close, Upgrade\r\nUpgrade: ');
const SLASH = Buffer.from('/');
const ASTERISK = Buffer.from('*');
const SPACE = Buffer.from(' ');
/** Where the status begins in a status line. */
const STATUS_AT = 9;
/** Below that a loop is faster than the call. */
const LOOP_COPY_MAX = 48;
/** From here on `set` is faster than both, for a whole text. */
const SET_BYTES_LEAST = 16;
/** Everything that is written beside ranges of the head and what `edits` holds, with room to spare. */
const OWN_TEXT_MAX = 512;

const PROXIED_FROM: number = FORWARDING & ~(1 << FIELD.xForwardedFor) & ~(1 << FIELD.forwarded);
/** No code of a field: the start line goes on as it is. */
const START_LINE = 1 << 31;
/** Fields of a request that do not go on as they are, from anybody; and from those who are not believed. */
const REQUEST_DROPS: number = HOP_BY_HOP | (1 << FIELD.xRequestId) | (1 << FIELD.xEcluse) | (1 << FIELD.clientCert);
const TRUSTED_DROPS: number = REQUEST_DROPS | (FORWARDING & ~PROXIED_FROM);
const UNTRUSTED_DROPS: number = REQUEST_DROPS | FORWARDING;

/** What stays the same for every request that comes over one connection. */
export function createRequestEdits(facts: ForwardingFacts): RequestEdits {
  const { clientAddress, proto, hostName } = facts;
  const node = clientAddress.includes(':') ? `"[${clientAddress}]"` : clientAddress;
  const protoLine = `X-Forwarded-Proto: ${proto}\r\n`;
  const forwarded = `for=${node};proto=${proto}`;
  const hostNameLine = `X-Ecluse-Host: ${hostName}\r\n`;
  return {
    trusted: facts.trusted,
    address: Buffer.from(clientAddress, 'latin1'),
    untilHost: Buffer.from(`X-Forwarded-For: ${clientAddress}\r\n${protoLine}${hostNameLine}X-Forwarded-Host: `, 'latin1'),
    untilForwardedHost: Buffer.from(`\r\nForwarded: ${forwarded};host="`, 'latin1'),
    protoLine: Buffer.from(protoLine, 'latin1'),
    hostNameLine: Buffer.from(hostNameLine, 'latin1'),
    forwarded: Buffer.from(forwarded, 'latin1'),
    requestId: EMPTY,
    host: EMPTY,
    upgrade: false,
    trailers: false,
    path: EMPTY,
    fields: undefined,
    identity: EMPTY,
  };
}

export function createResponseEdits(): ResponseEdits {
  return { framing: FRAMING.none, persistence: PERSISTENCE.unsaid, trailers: false, dateLine: EMPTY, fields: undefined };
}

export function createHeadWriter(out: Buffer): HeadWriter {
  return { out, at: 0 };
}

/** Writes the head of a request as it goes to the endpoint. */
export function writeRequestHead(buffer: Buffer, view: HeadView, edits: RequestEdits, writer: HeadWriter): number {
  if (writer.out.length - writer.at < requestBound(view, edits)) return NO_FIT;
  const begin = writer.at;
  const chunked = isIn(view.seen, FIELD.transferEncoding);
  // PERF: the usual request line is as it has to be, and one range with the field lines after it.
  const asIs = view.targetForm !== TARGET_FORM.absolute && view.minor === 1 && edits.path.length === 0;
  if (!asIs) writeRequestLine(buffer, view, edits.path, writer);
  const ownHost = edits.host.length > 0 || view.targetForm === TARGET_FORM.absolute || !isIn(view.seen, FIELD.host);
  putFields(writer, buffer, view, requestDrops(buffer, view, edits) | (ownHost ? 1 << FIELD.host : 0) | (asIs ? START_LINE : 0));
  if (ownHost) writeHost(buffer, view, edits, writer);
  putLines(writer, edits.fields);
  put(writer, edits.identity);
  if (edits.trusted || view.authorityEnd === view.hostStart) writeChain(buffer, view, edits, writer);
  else writeOrigin(buffer, view, edits, writer);
  put(writer, edits.requestId);
  put(writer, CRLF);
  if (chunked) put(writer, CHUNKED);
  if (edits.upgrade) writeUpgrade(buffer, view, writer, UPGRADE);
  else if (edits.trailers) put(writer, TRAILERS);
  put(writer, CRLF);
  return writer.at - begin;
}

/** Writes the head of a response as it goes to the client: final, 1xx or 101. */
export function writeResponseHead(buffer: Buffer, view: HeadView, edits: ResponseEdits, writer: HeadWriter): number {
  if (writer.out.length - writer.at < responseBound(view, edits)) return NO_FIT;
  const begin = writer.at;
  const { status } = view;
  put(writer, VERSION);
  putRange(writer, buffer, view.start + STATUS_AT, view.start + STATUS_AT + 3);
  put(writer, SPACE);
  putRange(writer, buffer, view.reasonStart, view.reasonEnd);
  put(writer, CRLF);
  putFields(writer, buffer, view, responseDrops(buffer, view, edits));
  if (edits.framing === FRAMING.chunked) put(writer, CHUNKED);
  if ((status === 101 || status === 426) && isIn(view.seen, FIELD.upgrade))
    writeUpgrade(buffer, view, writer, status === 426 && edits.persistence === PERSISTENCE.close ? UPGRADE_CLOSE : UPGRADE);
  else if (edits.persistence === PERSISTENCE.close) put(writer, CLOSE);
  else if (edits.persistence === PERSISTENCE.keepAlive) put(writer, KEEP_ALIVE);
  if (status >= 200 && !isIn(view.seen, FIELD.date)) put(writer, edits.dateLine);
  putLines(writer, edits.fields);
  put(writer, CRLF);
  return writer.at - begin;
}

function requestDrops(buffer: Buffer, view: HeadView, edits: RequestEdits): number {
  if (edits.fields !== undefined) markDrops(buffer, view, edits.fields.drops);
  let drops = edits.trusted ? TRUSTED_DROPS : UNTRUSTED_DROPS;
  if (!isIn(view.seen, FIELD.transferEncoding)) drops |= 1 << FIELD.trailer;
  if (view.minor === 0) drops |= 1 << FIELD.expect;
  return drops;
}

function responseDrops(buffer: Buffer, view: HeadView, edits: ResponseEdits): number {
  if (edits.fields !== undefined) markDrops(buffer, view, edits.fields.drops);
  const { framing } = edits;
  let drops = HOP_BY_HOP;
  if (framing !== FRAMING.chunked || !edits.trailers) drops |= 1 << FIELD.trailer;
  // A length stays where it is the framing, and where it tells what HEAD and 304 leave out.
  const described = framing === FRAMING.none && view.status >= 200 && view.status !== 204;
  if (framing !== FRAMING.fixed && !described) drops |= 1 << FIELD.contentLength;
  return drops;
}

/** More than any rewritten request takes: its host is written up to twice more, values that are joined only lose. */
function requestBound(view: HeadView, edits: RequestEdits): number {
  const named = edits.host.length + 2 * (view.authorityEnd - view.hostStart);
  const own = edits.untilHost.length + edits.untilForwardedHost.length + edits.requestId.length;
  return view.fieldsEnd - view.start + OWN_TEXT_MAX + named + own + edits.path.length + edits.identity.length + linesOf(edits);
}

function responseBound(view: HeadView, edits: ResponseEdits): number {
  return view.fieldsEnd - view.start + OWN_TEXT_MAX + edits.dateLine.length + linesOf(edits);
}

function linesOf({ fields }: RequestEdits | ResponseEdits): number {
  return fields === undefined ? 0 : fields.lines.length;
}

/** The request line with the target in origin form, or as CONNECT and OPTIONS have it (RFC 9112 §3.2.4). */
function writeRequestLine(buffer: Buffer, view: HeadView, path: Buffer, writer: HeadWriter): void {
  putRange(writer, buffer, view.start, view.methodEnd + 1);
  if (path.length > 0) {
    put(writer, path);
    putRange(writer, buffer, view.queryStart, view.pathEnd);
  } else if (view.targetForm !== TARGET_FORM.absolute) putRange(writer, buffer, view.targetStart, view.targetEnd);
  else if (view.pathStart === view.pathEnd) put(writer, view.method === METHOD.options ? ASTERISK : SLASH);
  else {
    if (view.queryStart === view.pathStart) put(writer, SLASH);
    putRange(writer, buffer, view.pathStart, view.pathEnd);
  }
  put(writer, VERSION_CRLF);
}

/** Gives all fields of these names a code that is always left out. */
function markDrops(buffer: Buffer, view: HeadView, names: readonly Uint8Array[]): void {
  const { fields } = view;
  const last = view.fieldCount * FIELD_STRIDE;
  for (let at = 0; at < last; at += FIELD_STRIDE)
    for (const name of names) if (isNamed(buffer, fields[at] ?? 0, fields[at + 1] ?? 0, name)) fields[at + 4] = FIELD.nominated;
}

function isNamed(buffer: Buffer, start: number, end: number, name: Uint8Array): boolean {
  if (end - start !== name.length) return false;
  for (let index = 0; index < name.length; index += 1) if (FOLDED[buffer[start + index] ?? 0] !== name[index]) return false;
  return true;
}

/** All field lines whose codes are not in `drops`, neighbours in one piece; the start line before them if `START_LINE` is in it. */
function putFields(writer: HeadWriter, buffer: Buffer, view: HeadView, drops: number): void {
  const { fields, fieldsEnd } = view;
  const last = view.fieldCount * FIELD_STRIDE;
  let from = (drops & START_LINE) === 0 ? view.fieldsStart : view.start;
  for (let at = 0; at < last; at += FIELD_STRIDE) {
    if (((drops >>> (fields[at + 4] ?? 0)) & 1) === 0) continue;
    const lineStart = fields[at] ?? 0;
    if (lineStart > from) putRange(writer, buffer, from, lineStart);
    from = fields[at + FIELD_STRIDE] ?? 0;
  }
  if (fieldsEnd > from) putRange(writer, buffer, from, fieldsEnd);
}

/** RFC 9112 §3.2.2: the authority of the target is the Host, whatever the field said. */
function writeHost(buffer: Buffer, view: HeadView, edits: RequestEdits, writer: HeadWriter): void {
  put(writer, HOST);
  if (edits.host.length > 0) put(writer, edits.host);
  else putRange(writer, buffer, view.hostStart, view.authorityEnd);
  put(writer, CRLF);
}

/** Where a request comes from whose sender is not believed: all of it is ours. Up to the value of X-Request-Id. */
function writeOrigin(buffer: Buffer, view: HeadView, edits: RequestEdits, writer: HeadWriter): void {
  put(writer, edits.untilHost);
  putRange(writer, buffer, view.hostStart, view.authorityEnd);
  put(writer, edits.untilForwardedHost);
  putRange(writer, buffer, view.hostStart, view.authorityEnd);
  put(writer, QUOTE_REQUEST_ID);
}

/** The same with what a sender who is believed says of its clients before it; also where no host is named. */
function writeChain(buffer: Buffer, view: HeadView, edits: RequestEdits, writer: HeadWriter): void {
  const named = view.authorityEnd > view.hostStart;
  const seen = edits.trusted ? view.seen : 0;
  put(writer, FOR);
  if (isIn(seen, FIELD.xForwardedFor)) putJoined(writer, buffer, view, FIELD.xForwardedFor);
  put(writer, edits.address);
  put(writer, CRLF);
  if (!isIn(seen, FIELD.xForwardedProto)) put(writer, edits.protoLine);
  put(writer, edits.hostNameLine);
  if (named && !isIn(seen, FIELD.xForwardedHost)) {
    put(writer, FORWARDED_HOST);
    putRange(writer, buffer, view.hostStart, view.authorityEnd);
    put(writer, CRLF);
  }
  put(writer, FORWARDED);
  if (isIn(seen, FIELD.forwarded)) putJoined(writer, buffer, view, FIELD.forwarded);
  put(writer, edits.forwarded);
  if (named) {
    // A host needs quotes for its port and brackets, and holds none (RFC 7239 §4).
    put(writer, HOST_PAIR);
    putRange(writer, buffer, view.hostStart, view.authorityEnd);
    put(writer, QUOTE_REQUEST_ID);
  } else put(writer, CRLF_REQUEST_ID);
}

/** The values of all fields of `code` that have one, each followed by a comma. */
function putJoined(writer: HeadWriter, buffer: Buffer, view: HeadView, code: number): void {
  const { fields } = view;
  const last = view.fieldCount * FIELD_STRIDE;
  for (let at = view.first[code] ?? 0; at < last; at += FIELD_STRIDE) {
    const start = fields[at + 2] ?? 0;
    const end = fields[at + 3] ?? 0;
    if (fields[at + 4] !== code || start === end) continue;
    putRange(writer, buffer, start, end);
    put(writer, SEPARATOR);
  }
}

function writeUpgrade(buffer: Buffer, view: HeadView, writer: HeadWriter, lines: Buffer): void {
  put(writer, lines);
  putRange(writer, buffer, valueStart(view, FIELD.upgrade), valueEnd(view, FIELD.upgrade));
  put(writer, CRLF);
}

function putLines(writer: HeadWriter, fields: FieldEdits | undefined): void {
  if (fields !== undefined) put(writer, fields.lines);
}

function put(writer: HeadWriter, text: Buffer): void {
  const { length } = text;
  if (length < SET_BYTES_LEAST) putRange(writer, text, 0, length);
  else {
    writer.out.set(text, writer.at);
    writer.at += length;
  }
}

function putRange(writer: HeadWriter, buffer: Buffer, start: number, end: number): void {
  const { out, at } = writer;
  const length = end - start;
  writer.at = at + length;
  if (length > LOOP_COPY_MAX) buffer.copy(out, at, start, end);
  else for (let index = 0; index < length; index += 1) out[at + index] = buffer[start + index] ?? 0;
}
