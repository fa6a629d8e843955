import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { createChunkScanner, followChunks, isChunkedDone, nextChunkPiece, resetChunkScanner } from '#proxy/http1/chunked.ts';
import type { ChunkLimits } from '#proxy/http1/limits.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';

const CHUNK_LIMITS: ChunkLimits = {
  extensionBytesMax: EDGE_LIMITS.chunkExtensionBytesMax,
  extensionBytesTotalMax: EDGE_LIMITS.chunkExtensionBytesTotalMax,
  trailerBytesMax: EDGE_LIMITS.trailerBytesMax,
  trailerCountMax: EDGE_LIMITS.trailerCountMax,
};

const octets = (text: string): Buffer => Buffer.from(text, 'latin1');

interface Followed {
  /** Octets that belong to the body, or why it is refused. */
  readonly result: number;
  readonly done: boolean;
  readonly payload: string;
  readonly payloadBytes: number;
}

/** Takes the payload out of a body that comes in reads that end at `cuts`. */
function take(bytes: Buffer, cuts: readonly number[] = []): Followed {
  const scanner = createChunkScanner(CHUNK_LIMITS);
  let payload = '';
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    while (from < cut && !isChunkedDone(scanner)) {
      const next = nextChunkPiece(bytes, from, cut, scanner);
      if (next < 0) return { result: next, done: false, payload, payloadBytes: scanner.payloadBytes };
      payload += bytes.toString('latin1', scanner.payloadStart, scanner.payloadEnd);
      from = next;
    }
  }
  return { result: from, done: isChunkedDone(scanner), payload, payloadBytes: scanner.payloadBytes };
}

const HOSTILE: readonly (readonly [clause: string, bytes: string, code: number])[] = [
  ['§7.1 empty size', '\r\n', REFUSED.chunkSize],
  ['§7.1 plus', '+5\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 minus', '-5\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 0x', '0x5\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 underscore', '1_0\r\n', REFUSED.chunkSize],
  ['§7.1 not a digit', 'g\r\n', REFUSED.chunkSize],
  ['§7.1 space first', ' 5\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 space after', '5 \r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 tab after', '5\t\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 bare LF', '5\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 bare CR', '5\rhello\r\n', REFUSED.chunkSize],
  ['§7.1 CR CR LF', '5\r\r\nhello\r\n', REFUSED.chunkSize],
  ['§7.1 17 digits', '00000000000000005\r\n', REFUSED.chunkSizeTooLarge],
  ['§7.1 2^53', '20000000000000\r\n', REFUSED.chunkSizeTooLarge],
  ['§7.1 2^64', '10000000000000000\r\n', REFUSED.chunkSizeTooLarge],
  ['§7.1 payload too long', '5\r\nhello!\r\n', REFUSED.chunkEnd],
  ['§7.1 payload too short', '5\r\nhell\r\n0\r\n\r\n', REFUSED.chunkEnd],
  ['§7.1 bare LF after payload', '5\r\nhello\n0\r\n\r\n', REFUSED.chunkEnd],
  ['§7.1 bare CR after payload', '5\r\nhello\r0\r\n\r\n', REFUSED.chunkEnd],
  ['§7.1 no CRLF after payload', '5\r\nhello0\r\n\r\n', REFUSED.chunkEnd],
  ['§7.1.1 empty extension', '5;\r\nhello\r\n', REFUSED.chunkExtension],
  ['§7.1.1 two semicolons', '5;;a\r\n', REFUSED.chunkExtension],
  ['§7.1.1 space before', '5 ;a\r\n', REFUSED.chunkSize],
  ['§7.1.1 space inside', '5; a\r\n', REFUSED.chunkExtension],
  ['§7.1.1 value without name', '5;=a\r\n', REFUSED.chunkExtension],
  ['§7.1.1 empty value', '5;a=\r\n', REFUSED.chunkExtension],
  ['§7.1.1 bare LF in it', '5;a\nhello\r\n', REFUSED.chunkExtension],
  ['§7.1.1 bare LF in quotes', '5;a="\n"\r\n', REFUSED.chunkExtension],
  ['§7.1.1 CRLF in quotes', '5;a="\r\n"\r\n', REFUSED.chunkExtension],
  ['§7.1.1 escaped CR', '5;a="\\\r"\r\n', REFUSED.chunkExtension],
  ['§7.1.1 more after quotes', '5;a="b"c\r\n', REFUSED.chunkExtension],
  ['§7.1.1 zero octet', '5;a\0\r\n', REFUSED.chunkExtension],
  ['§7.1.1 257 octets', `5;${'a'.repeat(256)}\r\n`, REFUSED.chunkExtensionTooLong],
  ['§7.1.1 many', `1;${'a'.repeat(200)}\r\nx\r\n`.repeat(100), REFUSED.chunkExtensionTooLong],
  ['§7.1.2 bare LF ends the body', '0\r\n\n', REFUSED.trailerMalformed],
  ['§7.1.2 bare CR', '0\r\n\rX', REFUSED.trailerMalformed],
  ['§7.1.2 no colon', '0\r\nX\r\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 name empty', '0\r\n: 1\r\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 space before the colon', '0\r\nX : 1\r\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 folded', '0\r\nX: 1\r\n 2\r\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 bare LF', '0\r\nX: 1\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 control octet', '0\r\nX: \x01\r\n\r\n', REFUSED.trailerMalformed],
  ['§7.1.2 33 trailers', `0\r\n${'X: 1\r\n'.repeat(33)}\r\n`, REFUSED.trailersTooLong],
  ['§7.1.2 9 KiB', `0\r\nX: ${'a'.repeat(9 * 1024)}\r\n\r\n`, REFUSED.trailersTooLong],
  ['§7.1.2 name of 9 KiB', `0\r\n${'a'.repeat(9 * 1024)}: 1\r\n\r\n`, REFUSED.trailersTooLong],
  ...['Host', 'content-length', 'Transfer-Encoding', 'Connection', 'Trailer', 'TE', 'Upgrade', 'Authorization', 'Cookie'].map(
    (name) => [`RFC 9110 §6.5.1 ${name}`, `0\r\n${name}: 1\r\n\r\n`, REFUSED.trailerForbidden] as const,
  ),
  ...[
    'Set-Cookie',
    'X-Forwarded-For',
    'x_forwarded_proto',
    'Forwarded',
    'X-Ecluse-Host',
    'X-Request-Id',
    'Client-Cert',
    'client_cert_chain',
    'Keep-Alive',
    'Expect',
  ].map((name) => [`RFC 9110 §6.5.1 ${name}`, `0\r\n${name}: 1\r\n\r\n`, REFUSED.trailerForbidden] as const),
];

describe('nextChunkPiece()', () => {
  test.each([
    ['0\r\n\r\n', ''],
    ['5\r\nhello\r\n0\r\n\r\n', 'hello'],
    ['005\r\nhello\r\n000\r\n\r\n', 'hello'],
    ['A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n', '01234567890123456789'],
    ['5;a\r\nhello\r\n0;b=c;d="e\\" f;\xe9"\r\n\r\n', 'hello'],
    ['2\r\n\r\n\r\n0\r\n\r\n', '\r\n'],
    ['0\r\nGrpc-Status: 0\r\nX:\r\n\r\n', ''],
  ])('takes %j', (text, payload) => {
    expect(take(octets(`${text}more`))).toEqual({ result: text.length, done: true, payload, payloadBytes: payload.length });
  });

  test.each(HOSTILE)('refuses %s', (_, text, code) => {
    const bytes = octets(text);
    expect(take(bytes).result).toBe(code);
    for (let cut = 0; cut <= Math.min(bytes.length, 300); cut += 1) expect(take(bytes, [cut]).result).toBe(code);
  });
});

const chunk = fc.record({
  data: fc.string({ unit: fc.constantFrom('a', '\r', '\n', '0', ';'), minLength: 1, maxLength: 40 }),
  zeros: fc.nat(3),
  extension: fc.constantFrom('', ';a', ';a=b', ';a="b;\\"c"'),
});
const body = fc.record({
  chunks: fc.array(chunk, { maxLength: 6 }),
  trailers: fc.constantFrom('', 'X: 1\r\n', 'Grpc-Status: 0\r\nGrpc-Message:\r\n'),
});
const write = ({
  chunks,
  trailers,
}: {
  chunks: { data: string; zeros: number; extension: string }[];
  trailers: string;
}): string =>
  `${chunks.map(({ data, zeros, extension }) => `${'0'.repeat(zeros)}${data.length.toString(16)}${extension}\r\n${data}\r\n`).join('')}0\r\n${trailers}\r\n`;
const sorted = (cuts: readonly number[], length: number): number[] =>
  cuts.filter((cut) => cut <= length).toSorted((one, other) => one - other);

describe('generated bodies', () => {
  test('give their payload in any split, and end where they end', () => {
    fc.assert(
      fc.property(body, fc.array(fc.nat(400), { maxLength: 8 }), (generated, cuts) => {
        const text = write(generated);
        const payload = generated.chunks.map(({ data }) => data).join('');
        const bytes = octets(`${text}GET`);
        expect(take(bytes, sorted(cuts, bytes.length))).toEqual({
          result: text.length,
          done: true,
          payload,
          payloadBytes: payload.length,
        });
        const scanner = createChunkScanner(CHUNK_LIMITS);
        followChunks(octets('5;a\r\nhel'), 0, 8, scanner);
        resetChunkScanner(scanner);
        expect(followChunks(bytes, 0, bytes.length, scanner)).toBe(text.length);
      }),
      { numRuns: 500 },
    );
  });

  test('mutated ones give the same in any split', () => {
    fc.assert(
      fc.property(
        body,
        fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        fc.array(fc.nat(400), { maxLength: 8 }),
        (generated, edits, cuts) => {
          const bytes = octets(write(generated));
          for (const [at, octet] of edits) bytes[at % bytes.length] = octet;
          expect(take(bytes, sorted(cuts, bytes.length))).toEqual(take(bytes));
        },
      ),
      { numRuns: 1000 },
    );
  });
});
