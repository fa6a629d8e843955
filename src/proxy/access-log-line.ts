/**
 * A line of the access log, written as bytes.
 *
 * The schema: every line has every key, in the order of `writeLine`; what does not apply is null. `time` is ISO 8601, the start of the exchange;
 * times end in `Ms` and have at most three decimals. `path` is what the client sent, without its query and with its dot segments. SECURITY: no
 * query, no header values, and valid JSON in UTF-8 whatever octets a client sends: they count as Latin-1, as for `JSON.stringify`.
 * INVARIANT: each text is cut before it is escaped, so that no line is longer than `LINE_BYTES_MAX`.
 * PERF: no string and no object a line (`node bench/access-log.ts`). What repeats is kept as bytes: long texts are set in one call, short ones are
 * stored as words of eight octets, what is too much of the last word is written over by what follows.
 */
import type { CompiledRoute, Endpoint } from '#routing/route-table.ts';
import { ACCESS_LOG_PATH_LENGTH_MAX, REQUEST_ID_LENGTH_MAX } from './limits.ts';
import type { ExchangeRecord, TlsFacts } from './record.ts';

/** Texts of clients and names of ours are cut here; DNS names end before (RFC 1035 §2.3.4), and so do ALPN's (RFC 7301 §3.1). */
const TEXT_LENGTH_MAX = 255;
const METHOD_LENGTH_MAX = 64;
const ROUTE_LENGTH_MAX = 2048;
const TRACE_ID_LENGTH = 32;
/** A control octet is six: `\u0001`. */
const ESCAPED_BYTES_MAX = 6;
/** Keys, punctuation, nulls, and up to 25 digits and signs of each of ten numbers. */
const FRAME_BYTES_MAX = 1024;
const TEXTS_LENGTH_MAX =
  ACCESS_LOG_PATH_LENGTH_MAX +
  REQUEST_ID_LENGTH_MAX +
  METHOD_LENGTH_MAX +
  ROUTE_LENGTH_MAX +
  TRACE_ID_LENGTH +
  9 * TEXT_LENGTH_MAX;

/** More than any line is long. `writeLine` may write anything behind its line within that. */
export const LINE_BYTES_MAX: number = FRAME_BYTES_MAX + ESCAPED_BYTES_MAX * TEXTS_LENGTH_MAX;

/** Routes and endpoints whose texts are kept, about 1 KB each. When there are more, all are made anew. */
const KEPT_MAX = 8192;
const STATUS_MAX = 999;
const INT32_MAX = 0x7fff_ffff;
const SECONDS_A_DAY = 86_400;
/** The last millisecond of the year 9999. */
const WALL_MS_MAX = 253_402_300_799_999;

/** A text of at most 24 octets as numbers with the same bits. PERF: three stores, no loop. Never NaN, since it is ASCII. */
interface ShortText {
  readonly length: number;
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
}

const TRACE_NULL = shortText('","traceId":null');
const TRACE = shortText('","traceId":"');
const QUOTE = shortText('"');
const QUOTE_METHOD = shortText('","method":"');
const HOST = shortText('","host":"');
const HOST_NULL = shortText('","host":null');
const NULL_PATH = shortText(',"path":"');
const PATH = shortText('","path":"');
const DOWNSTREAM_OUT = shortText(',"downstreamOutBytes":');
const UPSTREAM_IN = shortText(',"upstreamInBytes":');
const UPSTREAM_OUT = shortText(',"upstreamOutBytes":');
const TOTAL = shortText(',"totalMs":');
const HOLD = shortText(',"holdMs":');
const CONNECT = shortText(',"connectMs":');
const NO_HOLD_CONNECT = shortText(',"holdMs":0,"connectMs":');
const NULL_FIRST_BYTE = shortText('null,"firstByteMs":');
const ZERO_FIRST_BYTE = shortText('0,"firstByteMs":');
const FIRST_BYTE = shortText(',"firstByteMs":');
const NULL = shortText('null');
const ERROR_END = shortText('"}\n');

const TIME_KEY = '{"time":"';
/** From the beginning of the line to the request id. All but the milliseconds stays for a second. */
const START = Buffer.from(`${TIME_KEY}1970-01-01T00:00:00.000Z","requestId":"`);
const START_VIEW = new DataView(START.buffer, START.byteOffset, START.length);
const DAY_AT = TIME_KEY.length;
const SECOND_AT: number = DAY_AT + '1970-01-01T'.length;
const MS_AT: number = SECOND_AT + '00:00:00.'.length;
const NO_ERROR = 'null}\n';
const NO_TLS: Buffer = tlsText(undefined);

/** 0 for octets that stand in a JSON string as they are, and are one octet in UTF-8. */
const ODD: Uint8Array = Uint8Array.from({ length: 256 }, (_, octet) =>
  octet < 0x20 || octet >= 0x80 || octet === 0x22 || octet === 0x5c ? 1 : 0,
);
/** `00` to `99`, as two octets each. */
const PAIRS: Uint16Array = Uint16Array.from({ length: 100 }, (_, pair) => 0x3030 + Math.floor(pair / 10) + 256 * (pair % 10));

/** What is the same in all lines of one route, endpoint and config version. */
interface RouteTexts {
  readonly endpoint: Endpoint | undefined;
  /** From `configVersion` to the quote that opens the client. */
  readonly untilClient: Buffer;
  /** From `method` to the quote that opens the path, for the route's own host and each method of `METHODS`. */
  readonly untilPath: readonly Buffer[];
}

interface KeptRoute {
  last: RouteTexts;
  readonly all: Map<Endpoint | undefined, RouteTexts>;
}

const METHODS = ['GET', 'POST'] as const;
const OTHER_METHOD = -1;

interface Pen {
  out: Buffer;
  view: DataView;
  at: number;
}

const pen: Pen = { out: Buffer.alloc(0), view: new DataView(new ArrayBuffer(0)), at: 0 };

let writtenDay = 0;
let writtenSecondMs = 0;
const statusTexts: (Buffer | undefined)[] = Array.from({ length: STATUS_MAX + 1 });
const tlsTexts = new WeakMap<TlsFacts, Buffer>();
let keptVersion = 0;
let keptCount = 0;
const keptRoutes = new Map<CompiledRoute | undefined, KeptRoute>();

/** Writes the line of an exchange at `at`, where `out` has room for `LINE_BYTES_MAX`. Returns the offset of its end. Never throws. */
export function writeLine(out: Buffer, at: number, record: ExchangeRecord, totalMs: number): number {
  if (pen.out !== out) {
    pen.out = out;
    pen.view = new DataView(out.buffer, out.byteOffset, out.length);
  }
  pen.at = at;
  putStart(pen, record.startWallMs);
  const id = record.requestId;
  putBytes(pen, id.length > REQUEST_ID_LENGTH_MAX ? id.subarray(0, REQUEST_ID_LENGTH_MAX) : id);
  const { traceIdStart } = record;
  if (traceIdStart < 0) putShort(pen, TRACE_NULL);
  else {
    putShort(pen, TRACE);
    putOctets(pen, record.head, traceIdStart, traceIdStart + TRACE_ID_LENGTH);
    putShort(pen, QUOTE);
  }
  const texts = routeTexts(record);
  putBytes(pen, texts.untilClient);
  putText(pen, record.client, TEXT_LENGTH_MAX);
  putRequest(pen, record, texts);
  putStatus(pen, record.status);
  putCount(pen, record.downstreamInBytes);
  putShort(pen, DOWNSTREAM_OUT);
  putCount(pen, record.downstreamOutBytes);
  putShort(pen, UPSTREAM_IN);
  putCount(pen, record.upstreamInBytes);
  putShort(pen, UPSTREAM_OUT);
  putCount(pen, record.upstreamOutBytes);
  putShort(pen, TOTAL);
  putMs(pen, totalMs);
  putWaits(pen, record);
  putEnd(pen, record);
  return pen.at;
}

function putStart(to: Pen, wallMs: number): void {
  let ms = wallMs - writtenSecondMs;
  if (!(ms >= 0 && ms < 1000)) ms = writeSecond(wallMs);
  const { out, view, at } = to;
  const rest = ms | 0;
  const hundreds = (rest / 100) | 0;
  out.set(START, at);
  out[at + MS_AT] = 0x30 + hundreds;
  view.setUint16(at + MS_AT + 1, PAIRS[rest - hundreds * 100] ?? 0, true);
  to.at = at + START.length;
}

/** Makes `START` that of another second. Returns the milliseconds in it. */
function writeSecond(wallMs: number): number {
  const ms = wallMs >= 0 ? Math.min(wallMs, WALL_MS_MAX) : 0;
  const second = Math.floor(ms / 1000);
  const day = Math.floor(second / SECONDS_A_DAY);
  if (day !== writtenDay) START.write(new Date(day * SECONDS_A_DAY * 1000).toISOString().slice(0, 10), DAY_AT, 'latin1');
  const rest = second - day * SECONDS_A_DAY;
  const minute = Math.floor(rest / 60);
  START_VIEW.setUint16(SECOND_AT, PAIRS[Math.floor(rest / 3600)] ?? 0, true);
  START_VIEW.setUint16(SECOND_AT + 3, PAIRS[minute % 60] ?? 0, true);
  START_VIEW.setUint16(SECOND_AT + 6, PAIRS[rest % 60] ?? 0, true);
  writtenDay = day;
  writtenSecondMs = second * 1000;
  return ms - writtenSecondMs;
}

/** The texts of the record's route and endpoint. They are kept for the newest config version: older ones are on their way out. */
function routeTexts(record: ExchangeRecord): RouteTexts {
  const { configVersion, route, endpoint } = record;
  if (configVersion !== keptVersion) {
    if (configVersion < keptVersion) return makeRouteTexts(record);
    keptRoutes.clear();
    keptCount = 0;
    keptVersion = configVersion;
  }
  const kept = keptRoutes.get(route);
  if (kept === undefined) return keepRouteTexts(record);
  if (kept.last.endpoint !== endpoint) kept.last = kept.all.get(endpoint) ?? keepRouteTexts(record);
  return kept.last;
}

function keepRouteTexts(record: ExchangeRecord): RouteTexts {
  if (keptCount >= KEPT_MAX) {
    keptRoutes.clear();
    keptCount = 0;
  }
  keptCount += 1;
  const texts = makeRouteTexts(record);
  const kept = keptRoutes.get(record.route);
  if (kept === undefined) keptRoutes.set(record.route, { last: texts, all: new Map([[record.endpoint, texts]]) });
  else kept.all.set(record.endpoint, texts);
  return texts;
}

function makeRouteTexts({ configVersion, route, endpoint }: ExchangeRecord): RouteTexts {
  const path = route === undefined ? undefined : `${route.route.host}${route.route.path}`;
  const names = [
    `,"configVersion":${JSON.stringify(configVersion)},"route":${jsonText(path, ROUTE_LENGTH_MAX)}`,
    `"service":${jsonText(route?.route.serviceId)},"endpoint":${jsonText(endpoint?.id)}`,
    `"tenant":${jsonText(route?.tenant)},"client":"`,
  ];
  const host = jsonText(route?.route.host);
  return {
    endpoint,
    untilClient: Buffer.from(names.join(',')),
    untilPath: METHODS.map((method) => Buffer.from(`","method":"${method}","host":${host},"path":"`)),
  };
}

/** Method, host and path. */
function putRequest(to: Pen, record: ExchangeRecord, texts: RouteTexts): void {
  const { head, host, route, pathStart } = record;
  const known = route !== undefined && route.route.host === host ? methodIndex(head, record.methodEnd) : OTHER_METHOD;
  const untilPath = texts.untilPath[known];
  if (untilPath === undefined) {
    putShort(to, QUOTE_METHOD);
    putOctets(to, head, 0, Math.min(record.methodEnd, METHOD_LENGTH_MAX));
    if (host === '') {
      putShort(to, HOST_NULL);
      putShort(to, NULL_PATH);
    } else {
      putShort(to, HOST);
      putText(to, host, TEXT_LENGTH_MAX);
      putShort(to, PATH);
    }
  } else putBytes(to, untilPath);
  putOctets(to, head, pathStart, Math.min(record.pathEnd, pathStart + ACCESS_LOG_PATH_LENGTH_MAX));
}

function methodIndex(head: Buffer, end: number): number {
  if (end === 3 && head[0] === 0x47 && head[1] === 0x45 && head[2] === 0x54) return 0;
  if (end === 4 && head[0] === 0x50 && head[1] === 0x4f && head[2] === 0x53 && head[3] === 0x54) return 1;
  return OTHER_METHOD;
}

function putStatus(to: Pen, status: number): void {
  let text = statusTexts[status];
  if (text === undefined) {
    text = Buffer.from(`","status":${JSON.stringify(status)},"downstreamInBytes":`);
    if (Number.isInteger(status) && status >= 0 && status <= STATUS_MAX) statusTexts[status] = text;
  }
  putBytes(to, text);
}

function putEnd(to: Pen, { tls, error }: ExchangeRecord): void {
  if (tls === undefined) putBytes(to, NO_TLS);
  else {
    let text = tlsTexts.get(tls);
    if (text === undefined) {
      text = tlsText(tls);
      tlsTexts.set(tls, text);
    }
    putBytes(to, text);
  }
  if (error === undefined) return;
  to.at -= NO_ERROR.length;
  putShort(to, QUOTE);
  putText(to, error, TEXT_LENGTH_MAX);
  putShort(to, ERROR_END);
}

function tlsText(tls: TlsFacts | undefined): Buffer {
  const names = `,"tlsVersion":${jsonText(tls?.version)},"sni":${jsonText(tls?.sni)},"alpn":${jsonText(tls?.alpn)}`;
  return Buffer.from(`${names},"errorCode":${NO_ERROR}`);
}

function jsonText(text: string | undefined, lengthMax = TEXT_LENGTH_MAX): string {
  return text === undefined ? 'null' : JSON.stringify(text.slice(0, lengthMax));
}

function shortText(text: string): ShortText {
  const bytes = new DataView(new ArrayBuffer(24));
  for (let at = 0; at < text.length; at += 1) bytes.setUint8(at, text.charCodeAt(at));
  return {
    length: text.length,
    word0: bytes.getFloat64(0, true),
    word1: bytes.getFloat64(8, true),
    word2: bytes.getFloat64(16, true),
  };
}

function putShort(to: Pen, text: ShortText): void {
  const { view, at } = to;
  view.setFloat64(at, text.word0, true);
  view.setFloat64(at + 8, text.word1, true);
  view.setFloat64(at + 16, text.word2, true);
  to.at = at + text.length;
}

function putBytes(to: Pen, bytes: Buffer): void {
  to.out.set(bytes, to.at);
  to.at += bytes.length;
}

/** Octets of a head inside a JSON string. PERF: four at once. */
function putOctets(to: Pen, source: Buffer, start: number, end: number): void {
  const { out, view, at } = to;
  const shift = at - start;
  let odd = 0;
  let index = start;
  for (; index + 3 < end; index += 4) {
    const octet0 = source[index] ?? 0;
    const octet1 = source[index + 1] ?? 0;
    const octet2 = source[index + 2] ?? 0;
    const octet3 = source[index + 3] ?? 0;
    odd |= (ODD[octet0] ?? 0) | (ODD[octet1] ?? 0) | (ODD[octet2] ?? 0) | (ODD[octet3] ?? 0);
    view.setInt32(index + shift, octet0 | (octet1 << 8) | (octet2 << 16) | (octet3 << 24), true);
  }
  for (; index < end; index += 1) {
    const octet = source[index] ?? 0;
    odd |= ODD[octet] ?? 0;
    out[index + shift] = octet;
  }
  if (odd === 0) to.at = end + shift;
  else putEscaped(to, source.toString('latin1', start, end));
}

/** A text inside a JSON string. */
function putText(to: Pen, text: string, lengthMax: number): void {
  const { out, at } = to;
  const length = Math.min(text.length, lengthMax);
  for (let index = 0; index < length; index += 1) {
    const unit = text.charCodeAt(index);
    if (ODD[unit] !== 0) {
      putEscaped(to, text.slice(0, length));
      return;
    }
    out[at + index] = unit;
  }
  to.at = at + length;
}

function putEscaped(to: Pen, text: string): void {
  to.at += to.out.write(JSON.stringify(text).slice(1, -1), to.at);
}

function putCount(to: Pen, count: number): void {
  const whole = count | 0;
  if (whole === count && whole >= 0) putDigits(to, whole);
  else putOdd(to, count);
}

/** A number that is not usual. */
function putOdd(to: Pen, value: number): void {
  to.at += to.out.write(JSON.stringify(value), to.at);
}

/** Hold, connect and first byte. PERF: most were not held and found a connection. */
function putWaits(to: Pen, { holdMs, connectMs, firstByteMs }: ExchangeRecord): void {
  if (holdMs === 0) putShort(to, NO_HOLD_CONNECT);
  else {
    putShort(to, HOLD);
    putMs(to, holdMs);
    putShort(to, CONNECT);
  }
  if (connectMs === 0) putShort(to, ZERO_FIRST_BYTE);
  else if (connectMs < 0) putShort(to, NULL_FIRST_BYTE);
  else {
    putMs(to, connectMs);
    putShort(to, FIRST_BYTE);
  }
  if (firstByteMs < 0) putShort(to, NULL);
  else putMs(to, firstByteMs);
}

/** Milliseconds with at most three decimals. */
function putMs(to: Pen, ms: number): void {
  const scaled = ms * 1000;
  // PERF: from 1 on `Math.round` is the same, and slower.
  const micros = scaled >= 1 && scaled < INT32_MAX ? (scaled + 0.5) | 0 : Math.round(scaled);
  const known = micros | 0;
  if (known !== micros || known < 0) {
    putOdd(to, micros / 1000);
    return;
  }
  const whole = (known / 1000) | 0;
  putDigits(to, whole);
  const rest = known - whole * 1000;
  if (rest === 0) return;
  const { out, view, at } = to;
  const tens = (rest / 10) | 0;
  const last = rest - tens * 10;
  out[at] = 0x2e;
  view.setUint16(at + 1, PAIRS[tens] ?? 0, true);
  out[at + 3] = 0x30 + last;
  if (last !== 0) to.at = at + 4;
  else to.at = tens % 10 === 0 ? at + 2 : at + 3;
}

/** A 32-bit integer from 0 on. PERF: two digits at once. */
function putDigits(to: Pen, value: number): void {
  if (value >= 10_000) {
    const high = (value / 10_000) | 0;
    putDigits(to, high);
    putFour(to, value - high * 10_000);
    return;
  }
  const { out, view, at } = to;
  if (value < 10) {
    out[at] = 0x30 + value;
    to.at = at + 1;
  } else if (value < 100) {
    view.setUint16(at, PAIRS[value] ?? 0, true);
    to.at = at + 2;
  } else if (value < 1000) {
    const hundreds = (value / 100) | 0;
    out[at] = 0x30 + hundreds;
    view.setUint16(at + 1, PAIRS[value - hundreds * 100] ?? 0, true);
    to.at = at + 3;
  } else putFour(to, value);
}

/** Four digits, with leading zeros. */
function putFour(to: Pen, value: number): void {
  const { view, at } = to;
  const high = (value / 100) | 0;
  view.setUint16(at, PAIRS[high] ?? 0, true);
  view.setUint16(at + 2, PAIRS[value - high * 100] ?? 0, true);
  to.at = at + 4;
}
