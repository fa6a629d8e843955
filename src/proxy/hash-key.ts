/**
 * What a request is told apart by where its service hashes: the value of a field or of a cookie, or its client's address. Read from the octets of the
 * head in one pass, without strings or expressions: clients write it, and it may be as long as a head.
 */
import { hashOctets, hashText } from '#routing/balance.ts';
import type { Balance } from '#routing/route-table.ts';
import type { ExchangeRecord } from './record.ts';

const [TAB, LF, CR, SPACE, QUOTE, COLON, SEMICOLON, EQUALS] = [9, 10, 13, 32, 34, 58, 59, 61];
const CASE_BIT = 0x20;
const COOKIE = 'cookie';

type KeyedHead = Pick<ExchangeRecord, 'client' | 'head' | 'headBytes'>;

/** The hash of it; undefined: the request has none, or the service does not hash. Of several fields or cookies of that name the first counts. */
export function hashKeyOf(balance: Balance, record: KeyedHead): number | undefined {
  switch (balance.kind) {
    case 'hash-ip':
      return hashText(record.client);
    case 'hash-header':
      return firstField(record, balance.name, hashValue);
    case 'hash-cookie':
      return firstField(record, COOKIE, (head, start, end) => hashCookie(head, start, end, balance.name));
    case 'least-request':
    case 'round-robin':
    case 'random-two':
      return undefined;
  }
}

type ValueReader = (head: Buffer, start: number, end: number) => number | undefined;

/** What `read` gives for the value of the first field of that name where it gives something. `name`: in lower case. The head was parsed: its lines are whole. */
function firstField({ head, headBytes }: KeyedHead, name: string, read: ValueReader): number | undefined {
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
function hashValue(head: Buffer, from: number, to: number): number | undefined {
  let [start, end] = [from, to];
  while (start < end && isBlank(head[start])) start += 1;
  while (end > start && isBlank(head[end - 1])) end -= 1;
  return start === end ? undefined : hashOctets(head, start, end);
}

/** Of `a=1; b=2` the value of `name`, whose case counts (RFC 6265 §4.2.1), with or without quotes. */
function hashCookie(head: Buffer, from: number, to: number, name: string): number | undefined {
  let start = from;
  while (start < to) {
    while (start < to && isBlank(head[start])) start += 1;
    const semicolon = head.indexOf(SEMICOLON, start);
    const end = semicolon === -1 || semicolon > to ? to : semicolon;
    const equals = start + name.length;
    if (equals < end && head[equals] === EQUALS && isCookieName(head, start, name)) {
      const isQuoted = end - equals > 2 && head[equals + 1] === QUOTE && head[end - 1] === QUOTE;
      const found = isQuoted ? hashValue(head, equals + 2, end - 1) : hashValue(head, equals + 1, end);
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
