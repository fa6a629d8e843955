/**
 * DNS messages (RFC 1035, EDNS of RFC 6891) as far as a responder needs them. Pure, for hostile bytes: nothing here throws on any input.
 *
 * The question's bytes are kept as they came, because an answer must repeat them; `name` is for lookups only. Names are sequences of bytes, so a
 * label with a dot in it has no `name`: it must not be taken for two labels.
 */
import { UDP_BYTES_MAX, UDP_BYTES_MIN } from './limits.ts';

export const TYPE = { a: 1, ptr: 12, opt: 41, ixfr: 251, axfr: 252, any: 255 } as const;
export const RCODE = { ok: 0, malformed: 1, failed: 2, noSuchName: 3, notImplemented: 4, refused: 5, badVersion: 16 } as const;

const CLASS_IN = 1;
const HEADER_BYTES = 12;
const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;
const FLAG = {
  response: 0x8000,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  checkingDisabled: 0x0010,
};
const OPCODE = 0x7800;
const DNSSEC_OK = 0x8000;
/** A pointer to the question's name, which stands right behind the header. */
const POINTER_TO_QUESTION = Buffer.from([0xc0, HEADER_BYTES]);

export interface DnsQuery {
  readonly id: number;
  readonly flags: number;
  /** Name, type and class as they came. */
  readonly question: Buffer;
  /** In lower case, without the last dot; undefined where it is not letters, digits, `-` and `_`. */
  readonly name: string | undefined;
  readonly type: number;
  readonly isInternet: boolean;
  /** Whether it has an OPT record, so that the answer must have one. */
  readonly hasOptions: boolean;
  readonly wantsDnssec: boolean;
  /** What the client takes over UDP. */
  readonly udpBytesMax: number;
}

export type ParsedQuery =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  /** To be answered with what `reply` holds. */
  | { readonly kind: 'refused'; readonly reply: Buffer }
  /** Not to be answered: an answer itself, or no message. */
  | { readonly kind: 'noise' };

interface Place {
  /** Behind the name. */
  readonly end: number;
  readonly labels: readonly string[];
  readonly hasPointer: boolean;
}

/** The name at `start`; of a compressed one the labels before the pointer. undefined: no name. */
function readName(message: Buffer, start: number): Place | undefined {
  const labels: string[] = [];
  let at = start;
  for (;;) {
    const length = message[at];
    if (length === undefined || at - start > NAME_BYTES_MAX - 1) return undefined;
    if (length === 0) return { end: at + 1, labels, hasPointer: false };
    if (length >= 0xc0) return at + 2 <= message.length ? { end: at + 2, labels, hasPointer: true } : undefined;
    if (length > LABEL_BYTES_MAX || at + 1 + length > message.length) return undefined;
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
}

interface RecordPlace {
  readonly end: number;
  readonly nameBytes: number;
  readonly type: number;
  readonly class: number;
  readonly ttl: number;
}

function readRecord(message: Buffer, start: number): RecordPlace | undefined {
  const name = readName(message, start);
  if (name === undefined || name.end + 10 > message.length) return undefined;
  const end = name.end + 10 + message.readUInt16BE(name.end + 8);
  if (end > message.length) return undefined;
  return {
    end,
    nameBytes: name.end - start,
    type: message.readUInt16BE(name.end),
    class: message.readUInt16BE(name.end + 2),
    ttl: message.readUInt32BE(name.end + 4),
  };
}

function nameOf(labels: readonly string[]): string | undefined {
  return labels.every((label) => /^[\w-]+$/.test(label)) ? labels.join('.').toLowerCase() : undefined;
}

/** Reads a client's message. */
export function parseQuery(message: Buffer): ParsedQuery {
  if (message.length < HEADER_BYTES) return { kind: 'noise' };
  const [id, flags] = [message.readUInt16BE(0), message.readUInt16BE(2)];
  if ((flags & FLAG.response) !== 0) return { kind: 'noise' };
  const refuse = (rcode: number): ParsedQuery => ({
    kind: 'refused',
    reply: headerOf({ id, flags, rcode, counts: [0, 0, 0, 0] }),
  });
  if ((flags & OPCODE) !== 0) return refuse(RCODE.notImplemented);
  const query = readQuery(message);
  if (query === undefined) return refuse(RCODE.malformed);
  if (query.optionsVersion !== 0) return { kind: 'refused', reply: replyTo(query, RCODE.badVersion, []) };
  return { kind: 'query', query };
}

function readQuery(message: Buffer): (DnsQuery & { readonly optionsVersion: number }) | undefined {
  const [questions, answers, authorities, additional = 0] = [4, 6, 8, 10].map((at) => message.readUInt16BE(at));
  if (questions !== 1 || answers !== 0 || authorities !== 0) return undefined;
  const name = readName(message, HEADER_BYTES);
  if (name === undefined || name.hasPointer || name.end + 4 > message.length) return undefined;
  const options = readOptions(message, name.end + 4, additional);
  if (options === 'malformed') return undefined;
  const { class: size = UDP_BYTES_MIN, ttl = 0 } = options ?? {};
  return {
    id: message.readUInt16BE(0),
    flags: message.readUInt16BE(2),
    question: Buffer.from(message.subarray(HEADER_BYTES, name.end + 4)),
    name: nameOf(name.labels),
    type: message.readUInt16BE(name.end),
    isInternet: message.readUInt16BE(name.end + 2) === CLASS_IN,
    hasOptions: options !== undefined,
    wantsDnssec: (ttl & DNSSEC_OK) !== 0,
    udpBytesMax: Math.min(Math.max(size, UDP_BYTES_MIN), UDP_BYTES_MAX),
    optionsVersion: (ttl >>> 16) & 0xff,
  };
}

/** The OPT record among the additional ones. There is at most one, and nothing behind the last record. */
function readOptions(message: Buffer, start: number, count: number): RecordPlace | undefined | 'malformed' {
  let at = start;
  let options: RecordPlace | undefined;
  for (let index = 0; index < count; index += 1) {
    const record = readRecord(message, at);
    if (record === undefined) return 'malformed';
    if (record.type === TYPE.opt) {
      if (options !== undefined || record.nameBytes !== 1) return 'malformed';
      options = record;
    }
    at = record.end;
  }
  return at === message.length ? options : 'malformed';
}

interface Header {
  readonly id: number;
  /** Of the query that it answers. */
  readonly flags: number;
  readonly rcode: number;
  readonly counts: readonly [number, number, number, number];
  readonly isTruncated?: boolean;
}

function headerOf(header: Header): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const kept = header.flags & (OPCODE | FLAG.recursionDesired | FLAG.checkingDisabled);
  const own = FLAG.response | FLAG.recursionAvailable | (header.isTruncated === true ? FLAG.truncated : 0);
  bytes.writeUInt16BE(header.id, 0);
  bytes.writeUInt16BE(kept | own | (header.rcode & 0x0f), 2);
  for (const [index, count] of header.counts.entries()) bytes.writeUInt16BE(count, 4 + index * 2);
  return bytes;
}

function optionsRecord(rcode: number, isDnssec: boolean): Buffer {
  const bytes = Buffer.alloc(11);
  bytes.writeUInt16BE(TYPE.opt, 1);
  bytes.writeUInt16BE(UDP_BYTES_MAX, 3);
  bytes[5] = rcode >> 4;
  bytes.writeUInt16BE(isDnssec ? DNSSEC_OK : 0, 7);
  return bytes;
}

/** An answer of our own; as many of the records as fit, and the sign that it is cut where one does not. `bytesMax`: over UDP what the client takes. */
export function replyTo(
  query: DnsQuery,
  rcode: number,
  records: readonly Buffer[],
  bytesMax: number = query.udpBytesMax,
): Buffer {
  const options = query.hasOptions ? optionsRecord(rcode, false) : Buffer.alloc(0);
  let room = bytesMax - HEADER_BYTES - query.question.length - options.length;
  const fitting: Buffer[] = [];
  for (const record of records) {
    room -= record.length;
    if (room < 0) break;
    fitting.push(record);
  }
  const header = headerOf({
    id: query.id,
    flags: query.flags,
    rcode,
    counts: [1, fitting.length, 0, query.hasOptions ? 1 : 0],
    isTruncated: fitting.length < records.length,
  });
  return Buffer.concat([header, query.question, ...fitting, options]);
}

function recordOf(type: number, ttlSeconds: number, value: Buffer): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(CLASS_IN, 2);
  head.writeUInt32BE(ttlSeconds, 4);
  head.writeUInt16BE(value.length, 8);
  return Buffer.concat([POINTER_TO_QUESTION, head, value]);
}

/** The question's name has this IPv4 address. */
export function addressRecord(address: string, ttlSeconds: number): Buffer {
  return recordOf(TYPE.a, ttlSeconds, Buffer.from(address.split('.').map(Number)));
}

/** The question's address has this name. undefined where DNS cannot write it. */
export function nameRecord(name: string, ttlSeconds: number): Buffer | undefined {
  const labels = name.split('.').map((label) => Buffer.from(label, 'latin1'));
  if (labels.some(({ length }) => length === 0 || length > LABEL_BYTES_MAX)) return undefined;
  const value = Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.from([0])]);
  return value.length > NAME_BYTES_MAX ? undefined : recordOf(TYPE.ptr, ttlSeconds, value);
}

/** The same question, asked by us: rebuilt, with nothing of the client's but the name, the type and the wish for DNSSEC. */
export function forwardOf(query: DnsQuery, id: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(query.flags & (FLAG.recursionDesired | FLAG.checkingDisabled), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(query.hasOptions ? 1 : 0, 10);
  const options = query.hasOptions ? optionsRecord(0, query.wantsDnssec) : Buffer.alloc(0);
  return Buffer.concat([header, query.question, options]);
}

/** Whether `message` is a whole answer to what `forwardOf` asked with this id: its question the same, its records as many and as long as they say. */
export function isAnswerTo(query: DnsQuery, id: number, message: Buffer): boolean {
  const records = HEADER_BYTES + query.question.length;
  if (message.length < records || message.readUInt16BE(0) !== id) return false;
  const flags = message.readUInt16BE(2);
  if ((flags & FLAG.response) === 0 || (flags & OPCODE) !== 0 || message.readUInt16BE(4) !== 1) return false;
  if (!equalsIgnoringCase(message.subarray(HEADER_BYTES, records), query.question)) return false;
  let at = records;
  for (let left = [6, 8, 10].reduce((sum, place) => sum + message.readUInt16BE(place), 0); left > 0; left -= 1) {
    const record = readRecord(message, at);
    if (record === undefined) return false;
    at = record.end;
  }
  return at === message.length;
}

function equalsIgnoringCase(one: Buffer, other: Buffer): boolean {
  return one.toString('latin1').toLowerCase() === other.toString('latin1').toLowerCase();
}

export function rcodeOf(message: Buffer): number {
  return message.readUInt16BE(2) & 0x0f;
}

/** An answer that `isAnswerTo` found good, for the client: with its id and its spelling of the question, and cut where it is longer than it takes. */
export function passedOn(query: DnsQuery, message: Buffer, bytesMax: number = query.udpBytesMax): Buffer {
  if (message.length > bytesMax) {
    const header = headerOf({
      ...query,
      rcode: rcodeOf(message),
      counts: [1, 0, 0, query.hasOptions ? 1 : 0],
      isTruncated: true,
    });
    return Buffer.concat([header, query.question, ...(query.hasOptions ? [optionsRecord(0, false)] : [])]);
  }
  const copy = Buffer.from(message);
  copy.writeUInt16BE(query.id, 0);
  query.question.copy(copy, HEADER_BYTES);
  return copy;
}
