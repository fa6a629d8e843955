/** Inputs that were something else: by the grammar or from the tables of the tests, then broken in one to three places. */
import {
  HOSTILE_REQUESTS as HOSTILE_REQUEST_HEADS,
  HOSTILE_RESPONSES as HOSTILE_RESPONSE_HEADS,
  VALID_REQUESTS,
  VALID_RESPONSES,
} from '../../test/support/http1-cases.ts';
import { HOSTILE_CHUNKS } from '../../test/support/hostile-chunks.ts';
import { HOSTILE_REQUESTS } from '../../test/support/hostile-requests.ts';
import { HOSTILE_RESPONSES } from '../../test/support/hostile-responses.ts';
import type { HeadKind } from '#proxy/http1/head-view.ts';
import { fields, generate, requestContext, responseContext } from './grammar.ts';
import type { Input } from './input.ts';
import type { Random } from './random.ts';

const TOKENS = [
  '\r',
  '\n',
  '\r\n',
  '\0',
  '\t',
  ' ',
  '  ',
  ':',
  ',',
  ';',
  '=',
  '"',
  '\\',
  '-',
  '_',
  '+',
  '0',
  '1',
  '5',
  'f',
  'x',
  '#',
  '?',
  '/',
  '*',
  '@',
  '[',
  ']',
  '%',
  '\x0b',
  '\x0c',
  '\x1f',
  '\x7f',
  '\x80',
  '\xa0',
  '\xe9',
  '\xff',
  '0\r\n\r\n',
  '\r\n\r\n',
  '\r\n ',
  '\r\n\t',
  'Transfer-Encoding',
  'Transfer-Encoding: chunked\r\n',
  'chunked',
  'Content-Length',
  'Content-Length: 5\r\n',
  'Connection: close\r\n',
  'Connection: Content-Length\r\n',
  'Host: a.test\r\n',
  'HTTP/1.1',
  'HTTP/1.0',
  'GET / HTTP/1.1\r\n',
  'http://',
  'ffffffffffffffff',
  '9007199254740992',
  '100-continue',
  'Upgrade',
  'identity',
  'close',
  'keep-alive',
] as const;
const SIZES_MAX = 64 * 1024;

const LARGE_BYTES = 4096;
const [FIRST_REQUEST, ...REQUESTS] = [
  ...VALID_REQUESTS.map(([, text]) => text),
  ...HOSTILE_REQUEST_HEADS.map(([, text]) => text),
  ...HOSTILE_REQUESTS.map(({ bytes }) => bytes),
  ...HOSTILE_CHUNKS.map(([, text]) => `POST /p HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n${text}`),
].filter(isCheap);
const [FIRST_RESPONSE, ...RESPONSES] = [
  ...VALID_RESPONSES.map(([, text]) => text),
  ...HOSTILE_RESPONSE_HEADS.map(([, text]) => text),
  ...HOSTILE_RESPONSES.map(({ bytes }) => bytes),
  ...HOSTILE_CHUNKS.map(([, text]) => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${text}`),
].filter(isCheap);

/** The rows of the tables as they are, before anything is mutated. */
export const TABLES: readonly (readonly [HeadKind, string])[] = [
  ...[FIRST_REQUEST ?? '', ...REQUESTS].map((text) => ['request', text] as const),
  ...[FIRST_RESPONSE ?? '', ...RESPONSES].map((text) => ['response', text] as const),
];

export function mutated(random: Random): Input {
  const seed = random.once(3) ? fromTables(random) : generate(random);
  let { text } = seed;
  for (let rounds = 1 + random.below(3); rounds > 0; rounds -= 1) text = mutate(random, text, seed.kind);
  return { ...seed, text: text.slice(0, SIZES_MAX) };
}

/** Rows of tables whose length is their point are few inputs of their own and would slow down all others. */
function isCheap(text: string | undefined): boolean {
  return text !== undefined && text.length < LARGE_BYTES;
}

function fromTables(random: Random): Input {
  if (random.once(3))
    return { kind: 'response', context: responseContext(random), text: random.pick([FIRST_RESPONSE ?? '', ...RESPONSES]) };
  return { kind: 'request', context: requestContext(random), text: random.pick([FIRST_REQUEST ?? '', ...REQUESTS]) };
}

function mutate(random: Random, text: string, kind: HeadKind): string {
  const at = random.once(2) ? nearLineEnd(random, text) : random.below(text.length + 1);
  const until = Math.min(text.length, at + 1 + random.below(8));
  switch (random.below(9)) {
    case 0:
      return put(text, at, at + 1, String.fromCodePoint((text.codePointAt(at) ?? 0) ^ (1 << random.below(8))));
    case 1:
      return put(text, at, at + 1, random.pick(TOKENS));
    case 2:
    case 3:
      return put(text, at, at, random.pick(TOKENS));
    case 4:
      return put(text, at, until, '');
    case 5:
      return random.once(3) ? text.slice(0, at) : put(text, at, at, text.slice(at, until));
    case 6: {
      const [line, start] = lineAt(text, at);
      return put(text, start, start, line);
    }
    case 7: {
      const [, start] = lineAt(text, at);
      return put(text, start, start, fields(random, kind));
    }
    default: {
      const other = random.once(2) ? fromTables(random) : generate(random);
      const from = random.below(other.text.length + 1);
      return random.once(2) ? text + other.text : text.slice(0, at) + other.text.slice(from);
    }
  }
}

/** Where most of what readers disagree on lies: at the end of a line, or beside it. */
function nearLineEnd(random: Random, text: string): number {
  const end = text.indexOf('\r', random.below(text.length + 1));
  return end < 0 ? text.length : Math.max(0, end - 1 + random.below(5));
}

function put(text: string, start: number, end: number, other: string): string {
  return text.slice(0, start) + other + text.slice(end);
}

/** The line around `at`, and where it begins. */
function lineAt(text: string, at: number): readonly [line: string, start: number] {
  const start = text.lastIndexOf('\n', Math.max(0, at - 1)) + 1;
  const end = text.indexOf('\n', start);
  return [text.slice(start, end < 0 ? text.length : end + 1), start];
}
