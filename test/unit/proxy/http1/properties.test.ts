/**
 * What holds for every message, by the pieces that a connection reads it with: any split gives the same, what is written is what was read, and what
 * follows a message is never taken for a part of it. `npm run bench -- fuzz-http1` looks for what breaks them, and asks Node as well.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BodyFollower } from '#proxy/connection/body-follower.ts';
import { HeadReader, createHeadReading } from '#proxy/connection/head-reader.ts';
import { createRequestFacts, judgeRequest } from '#proxy/connection/request-facts.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { FRAMING, responseFraming } from '#proxy/http1/body-framing.ts';
import { NEED_MORE } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, METHOD } from '#proxy/http1/head-view.ts';
import type { HeadKind, HeadView } from '#proxy/http1/head-view.ts';
import {
  createHeadWriter,
  createRequestEdits,
  createResponseEdits,
  writeRequestHead,
  writeResponseHead,
} from '#proxy/http1/rewrite.ts';

type Field = readonly [name: string, value: string];

interface Message {
  readonly kind: HeadKind;
  /** Method, target and version, or version, status and reason. */
  readonly start: string;
  readonly fields: readonly Field[];
  readonly body: string;
}

interface Read {
  readonly start: string;
  readonly fields: readonly Field[];
  readonly framing: number;
  readonly body: string;
  /** The offset after the message. */
  readonly end: number;
  /** The head as it goes on. */
  readonly rewritten: string;
}

const RUNS = { seed: 20_260_101, numRuns: 150 };
const CHUNK_LIMITS = {
  extensionBytesMax: EDGE_LIMITS.chunkExtensionBytesMax,
  extensionBytesTotalMax: EDGE_LIMITS.chunkExtensionBytesTotalMax,
  trailerBytesMax: EDGE_LIMITS.trailerBytesMax,
  trailerCountMax: EDGE_LIMITS.trailerCountMax,
};
const READINGS = {
  request: createHeadReading('request', EDGE_LIMITS),
  response: createHeadReading('response', EDGE_LIMITS),
};
const FACTS = { clientAddress: '203.0.113.7', proto: 'http', hostName: 'node-a', trusted: false } as const;
const OWN = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-ecluse-host', 'forwarded', 'x-request-id'];
const writer = createHeadWriter(Buffer.alloc(128 * 1024));

function frame(kind: HeadKind, bytes: Buffer, view: HeadView): readonly [framing: number, length: number] {
  if (kind === 'response') return [responseFraming(bytes, view, { method: METHOD.get, upgrade: false }), view.contentLength];
  const facts = createRequestFacts();
  const refused = judgeRequest(bytes, view, false, facts);
  return refused < 0 ? [refused, 0] : [facts.framing, facts.contentLength];
}

function rewrite(kind: HeadKind, bytes: Buffer, view: HeadView, framing: number): string {
  writer.at = 0;
  const edits = { ...createRequestEdits(FACTS), requestId: Buffer.from('id-1') };
  const length =
    kind === 'request'
      ? writeRequestHead(bytes, view, edits, writer)
      : writeResponseHead(bytes, view, { ...createResponseEdits(), framing, trailers: true }, writer);
  return writer.out.toString('latin1', 0, length);
}

/** Reads one message from bytes that come in pieces; where it is refused or not whole, the test fails. */
function read(kind: HeadKind, pieces: readonly Buffer[]): Read {
  const reader = new HeadReader(READINGS[kind]);
  const follower = new BodyFollower(CHUNK_LIMITS);
  let head: Omit<Read, 'body' | 'end'> | undefined;
  let body = '';
  let fed = 0;
  for (const piece of pieces) {
    let [bytes, at, end] = [piece, 0, piece.length];
    fed += piece.length;
    if (head === undefined) {
      at = reader.read(bytes, 0, end);
      if (at === NEED_MORE) continue;
      if (at < 0) throw new Error(`refused: ${at}`);
      ({ bytes, end } = reader);
      const { view } = reader;
      const [framing, length] = frame(kind, bytes, view);
      if (framing < 0) throw new Error(`refused: ${framing}`);
      const text = (from: number, to: number): string => bytes.toString('latin1', from, to);
      const fields = Array.from({ length: view.fieldCount }, (_, index): Field => {
        const [a = 0, b = 0, c = 0, d = 0] = view.fields.subarray(index * FIELD_STRIDE, index * FIELD_STRIDE + 4);
        return [text(a, b), text(c, d)];
      });
      const start = text(view.start, view.fieldsStart - 2);
      head = { start, fields, framing, rewritten: rewrite(kind, bytes, view, framing) };
      reader.release();
      follower.begin(framing, length);
    }
    const next = follower.whole ? at : follower.follow(bytes, at, end);
    expect(next).toBeGreaterThanOrEqual(at);
    body += bytes.toString('latin1', at, next);
    if (follower.whole) return { ...head, body, end: fed - (end - next) };
  }
  throw new Error('the message is not whole');
}

const token = fc.constantFrom('X-A', 'x-b', 'Accept', 'Via', 'x_under_score', "!#$%&'*+.^`|~", 'X-Padding-Of-Some-Length');
const value = fc
  .string({ unit: fc.constantFrom('a', 'Z', '0', ' ', '\t', ',', ';', ':', '"', '\\', '\xe9', '\xff'), maxLength: 12 })
  .map((text) => text.trim());
const fields = fc.array(fc.tuple(token, value), { maxLength: 5 });
const octets = fc.string({
  unit: fc.constantFrom('a', '\r', '\n', '\0', '0', '\xff', '\r\n', '0\r\n\r\n', 'GET / HTTP/1.1\r\n'),
  maxLength: 12,
});
const extension = fc.constantFrom('', ';a', ';a=b', ';a="b \\" c";d', ';a="\t\xe9"');
const chunk = fc
  .tuple(octets, extension, fc.constantFrom('', '0', '000'))
  .map(([text, more, zeros]) => (text === '' ? '' : `${zeros}${text.length.toString(16)}${more}\r\n${text}\r\n`));
const chunks = fc
  .tuple(fc.array(chunk, { maxLength: 4 }), extension, fields)
  .map(
    ([list, more, trailers]) =>
      `${list.join('')}0${more}\r\n${trailers.map(([name, text]) => `${name}: ${text}\r\n`).join('')}\r\n`,
  );
const framed = fc.oneof(
  octets.map((body): { body: string; field: Field } => ({ body, field: ['Content-Length', String(body.length)] })),
  chunks.map((body): { body: string; field: Field } => ({ body, field: ['Transfer-Encoding', 'chunked'] })),
);
const request = fc
  .tuple(
    fc.constantFrom('GET', 'POST', 'QUERY', 'M-SEARCH'),
    fc.constantFrom('/', '/a?b=c', '//x', '/|{}"'),
    fields,
    fc.option(framed),
  )
  .map(([method, target, others, body]): Message => ({
    kind: 'request',
    start: `${method} ${target} HTTP/1.1`,
    fields: [['Host', 'a.test:81'], ...others, ...(body === null ? [] : [body.field])],
    body: body?.body ?? '',
  }));
const response = fc
  .tuple(fc.constantFrom('200 OK', '404 ', '500 \xe9 \t', '206 x'), fields, framed)
  .map(([status, others, body]): Message => ({
    kind: 'response',
    start: `HTTP/1.1 ${status}`,
    fields: [...others, body.field],
    body: body.body,
  }));
const message = fc.oneof(request, response);

const serialise = ({ start, fields: lines, body }: Message): string =>
  `${start}\r\n${lines.map(([name, text]) => `${name}: ${text}\r\n`).join('')}\r\n${body}`;

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const cuts = at.map((index) => index % (bytes.length + 1)).toSorted((one, other) => one - other);
  // Copies: bytes of one piece do not outlive it on a connection.
  return [...cuts, bytes.length].map((end, index) => Buffer.from(bytes.subarray(cuts[index - 1] ?? 0, end)));
}

const isChunked = (framing: number): boolean => framing === FRAMING.chunked;

describe('a message', () => {
  test('reads as it was written', () => {
    fc.assert(
      fc.property(message, (wanted) => {
        const text = serialise(wanted);
        const { start, fields: lines, body, end } = read(wanted.kind, [Buffer.from(text, 'latin1')]);
        expect({ start, fields: lines, body, end }).toEqual({
          start: wanted.start,
          fields: wanted.fields,
          body: wanted.body,
          end: text.length,
        });
      }),
      RUNS,
    );
  });

  test('is the same however its bytes come', () => {
    fc.assert(
      fc.property(message, fc.array(fc.nat(2000), { maxLength: 8 }), (wanted, cuts) => {
        const bytes = Buffer.from(serialise(wanted), 'latin1');
        const whole = read(wanted.kind, [bytes]);
        expect(read(wanted.kind, cut(bytes, cuts))).toEqual(whole);
        expect(READINGS[wanted.kind].unfinishedBytes).toBe(0);
      }),
      RUNS,
    );
  });

  test('is the same octet by octet', () => {
    fc.assert(
      fc.property(message, (wanted) => {
        const bytes = Buffer.from(serialise(wanted), 'latin1');
        expect(
          read(
            wanted.kind,
            Array.from(bytes, (octet) => Buffer.of(octet)),
          ),
        ).toEqual(read(wanted.kind, [bytes]));
      }),
      { ...RUNS, numRuns: 60 },
    );
  });

  test('ends where it ends, whatever follows', () => {
    fc.assert(
      fc.property(message, octets, fc.array(fc.nat(2000), { maxLength: 4 }), (wanted, surplus, cuts) => {
        const text = serialise(wanted);
        const alone = read(wanted.kind, [Buffer.from(text, 'latin1')]);
        expect(read(wanted.kind, cut(Buffer.from(text + surplus, 'latin1'), cuts))).toEqual(alone);
      }),
      RUNS,
    );
  });

  test('goes on as it came, between what is ours', () => {
    fc.assert(
      fc.property(message, (wanted) => {
        const came = read(wanted.kind, [Buffer.from(serialise(wanted), 'latin1')]);
        const went = read(wanted.kind, [Buffer.from(came.rewritten + came.body, 'latin1')]);
        const endToEnd = ({ fields: lines }: Read): Field[] =>
          lines.filter(([name]) => !OWN.includes(name.toLowerCase()) && name !== 'Transfer-Encoding');
        expect([went.start, went.framing, went.body, endToEnd(went)]).toEqual([
          came.start,
          came.framing,
          came.body,
          endToEnd(came),
        ]);
        const framings = went.fields.filter(([name]) => name === 'Content-Length' || name === 'Transfer-Encoding');
        expect(framings).toHaveLength(came.framing === FRAMING.none ? 0 : 1);
        expect(isChunked(came.framing)).toBe(framings[0]?.[0] === 'Transfer-Encoding');
      }),
      RUNS,
    );
  });
});
