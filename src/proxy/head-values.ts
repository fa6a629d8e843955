/**
 * Values that a request is told apart by: of a field, or of a cookie. Read from the octets of the head in one pass, without strings or expressions:
 * clients write it, and it may be as long as a head.
 */
import type { ExchangeRecord } from './record.ts';

const [TAB, LF, CR, SPACE, QUOTE, COLON, SEMICOLON, EQUALS] = [9, 10, 13, 32, 34, 58, 59, 61];
const CASE_BIT = 0x20;
const COOKIE = 'cookie';

export type HeadOctets = Pick<ExchangeRecord, 'head' | 'headBytes'>;

/** Makes something of the octets `[start, end)`; undefined: they are none. */
export type Take<T> = (head: Buffer, start: number, end: number) => T | undefined;

/** Of the first field of that name, in lower case, which is not empty. */
export function fieldValue<T>(record: HeadOctets, name: string, take: Take<T>): T | undefined {
  return firstField(record, name, (head, start, end) => trimmed(head, start, end, take));
}

/** Of the first cookie of that name, whose case counts (RFC 6265 §4.2.1), which is not empty; with or without quotes. */
export function cookieValue<T>(record: HeadOctets, name: string, take: Take<T>): T | undefined {
  return firstField(record, COOKIE, (head, start, end) => cookieIn(head, start, end, { name, take }));
}

/** The head was parsed: its lines are whole. */
function firstField<T>({ head, headBytes }: HeadOctets, name: string, read: Take<T>): T | undefined {
  let line = head.indexOf(LF, 0) + 1; // Behind the start line.
  while (line > 0 && line < headBytes) {
    const next = head.indexOf(LF, line);
    if (next === -1 || next >= headBytes) return undefined;
    const colon = line + name.length;
    if (colon < next && head[colon] === COLON && isName(head, line, name)) {
      const end = head[next - 1] === CR ? next - 1 : next;
      const found = read(head, colon + 1, end);
      if (found !== undefined) return found;
    }
    line = next + 1;
  }
  return undefined;
}

function isName(head: Buffer, start: number, name: string): boolean {
  for (let index = 0; index < name.length; index += 1) {
    const octet = head[start + index] ?? 0;
    const lower = octet >= 65 && octet <= 90 ? octet | CASE_BIT : octet;
    if (lower !== name.charCodeAt(index)) return false;
  }
  return true;
}

function isBlank(octet: number | undefined): boolean {
  return octet === SPACE || octet === TAB;
}

/** Without the blanks around it; an empty one is none. */
function trimmed<T>(head: Buffer, from: number, to: number, take: Take<T>): T | undefined {
  let [start, end] = [from, to];
  while (start < end && isBlank(head[start])) start += 1;
  while (end > start && isBlank(head[end - 1])) end -= 1;
  return start === end ? undefined : take(head, start, end);
}

/** Of `a=1; b=2`. */
function cookieIn<T>(
  head: Buffer,
  from: number,
  to: number,
  { name, take }: { readonly name: string; readonly take: Take<T> },
): T | undefined {
  let start = from;
  while (start < to) {
    while (start < to && isBlank(head[start])) start += 1;
    const semicolon = head.indexOf(SEMICOLON, start);
    const end = semicolon === -1 || semicolon > to ? to : semicolon;
    const equals = start + name.length;
    if (equals < end && head[equals] === EQUALS && isCookieName(head, start, name)) {
      const isQuoted = end - equals > 2 && head[equals + 1] === QUOTE && head[end - 1] === QUOTE;
      const found = isQuoted ? trimmed(head, equals + 2, end - 1, take) : trimmed(head, equals + 1, end, take);
      if (found !== undefined) return found;
    }
    start = end + 1;
  }
  return undefined;
}

function isCookieName(head: Buffer, start: number, name: string): boolean {
  for (let index = 0; index < name.length; index += 1) if (head[start + index] !== name.charCodeAt(index)) return false;
  return true;
}
