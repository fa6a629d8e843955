/** Heads that come in parts are read as if they came whole. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HeadReader, createHeadReading } from '#proxy/connection/head-reader.ts';
import type { HeadReading } from '#proxy/connection/head-reader.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { NEED_MORE } from '#proxy/http1/head.ts';
import { FIELD_STRIDE } from '#proxy/http1/head-view.ts';
import type { HeadKind } from '#proxy/http1/head-view.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';

const MIB = 1024 * 1024;
const REQUEST = 'POST /a/b?c=d HTTP/1.1\r\nHost: app.test:81\r\nContent-Length: 3\r\nConnection: close, x-a\r\nX-A:  b \r\n\r\n';
const RESPONSE = 'HTTP/1.1 206 Partial Content\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n';
const HEADS: readonly { readonly name: string; readonly kind: HeadKind; readonly text: string }[] = [
  { name: 'a request', kind: 'request', text: REQUEST },
  { name: 'a request after an empty line', kind: 'request', text: `\r\n${REQUEST}` },
  { name: 'an absolute target of HTTP/1.0', kind: 'request', text: 'GET http://app.test HTTP/1.0\r\nHost: app.test\r\n\r\n' },
  { name: 'a response', kind: 'response', text: RESPONSE },
  { name: 'a wrong field name', kind: 'request', text: 'GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n' },
  { name: 'a method in small letters', kind: 'request', text: 'get / HTTP/1.1\r\nHost: a\r\n\r\n' },
  { name: 'two hosts', kind: 'request', text: 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n' },
  { name: 'a bare line feed', kind: 'request', text: 'GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n' },
];

/** The reads that end at `cuts`, each in the same buffer, as a worker has it. */
function readInParts(
  reading: HeadReading,
  text: string,
  cuts: readonly number[],
): { readonly reader: HeadReader; readonly result: number } {
  const reader = new HeadReader(reading);
  const shared = Buffer.alloc(text.length + 7);
  let from = 0;
  let result = NEED_MORE;
  for (const cut of [...cuts, text.length]) {
    if (result !== NEED_MORE || cut <= from) continue;
    shared.fill(0x2e);
    shared.write(text.slice(from, cut), 7, 'latin1');
    result = reader.read(shared, 7, 7 + cut - from);
    from = cut;
  }
  return { reader, result };
}

/** What a head was read as, wherever it lies. */
function told(reader: HeadReader, result: number, base: number): unknown {
  if (result < 0) return result;
  const { view, bytes, end } = reader;
  const { method, minor, status, targetForm, seen, repeated, options } = view;
  const text = (from: number, to: number): string => bytes.toString('latin1', from, to);
  const fields = Array.from({ length: view.fieldCount }, (_, index) => {
    const [nameStart = 0, nameEnd = 0, start = 0, limit = 0, code = 0] = view.fields.subarray(index * FIELD_STRIDE);
    return [text(nameStart, nameEnd), text(start, limit), code];
  });
  return {
    flags: [method, minor, status, targetForm, seen, repeated, options],
    fields,
    after: result - base,
    path: view.kind === 'request' ? text(view.pathStart, view.queryStart) : text(view.reasonStart, view.reasonEnd),
    host: text(view.hostStart, view.hostEnd),
    startsAt: view.start - base,
    rest: text(result, end),
  };
}

describe('HeadReader', () => {
  test.each(HEADS)('reads $name at every cut as it reads it whole', ({ kind, text }) => {
    const whole = readInParts(createHeadReading(kind, EDGE_LIMITS), text, []);
    const expected = told(whole.reader, whole.result, 7);
    expect(whole.reader.begun).toBe(false);
    for (let cut = 1; cut < text.length; cut += 1) {
      const reading = createHeadReading(kind, EDGE_LIMITS);
      const { reader, result } = readInParts(reading, text, [cut]);
      const base = reader.begun ? 0 : 7;
      expect(told(reader, result, base)).toEqual(expected);
      reader.release();
      expect(reading.unfinishedBytes).toBe(0);
    }
    const bytewise = readInParts(
      createHeadReading(kind, EDGE_LIMITS),
      text,
      Array.from(text, (_, index) => index + 1),
    );
    expect(told(bytewise.reader, bytewise.result, 0)).toEqual(expected);
  });

  test('what comes behind a head in the same read stays with it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: REQUEST.length - 1 }), fc.string({ unit: 'binary-ascii' }), (cut, body) => {
        const { reader, result } = readInParts(createHeadReading('request', EDGE_LIMITS), REQUEST + body, [cut]);
        expect(result).toBe(REQUEST.length);
        expect(reader.bytes.toString('latin1', result, reader.end)).toBe(body);
      }),
    );
  });

  test('one head after the other, in parts or whole, with nothing left of the one before', () => {
    const reading = createHeadReading('request', EDGE_LIMITS);
    const reader = new HeadReader(reading);
    const bytes = Buffer.from(REQUEST, 'latin1');
    for (const cut of [10, 40, 0, 20, 0, 0]) {
      if (cut > 0) reader.read(bytes, 0, cut);
      expect([reader.begun, reader.view === reading.view]).toEqual([cut > 0, cut === 0]);
      expect(reader.read(bytes, cut, bytes.length)).toBe(bytes.length);
      expect(reader.bytes.toString('latin1', reader.view.pathStart, reader.view.queryStart)).toBe('/a/b');
      reader.release();
      expect([reader.begun, reading.unfinishedBytes, reader.view === reading.view]).toEqual([false, 0, true]);
    }
  });

  test('two connections of a worker may be in the middle of a head at once', () => {
    const reading = createHeadReading('request', EDGE_LIMITS);
    const [one, other] = [new HeadReader(reading), new HeadReader(reading)];
    const half = Buffer.from('GET /one HTTP/1.1\r\nHo', 'latin1');
    expect(one.read(half, 0, half.length)).toBe(NEED_MORE);
    const whole = Buffer.from('GET /other HTTP/1.1\r\nHost: b.test\r\n\r\n', 'latin1');
    expect(other.read(whole, 0, whole.length)).toBe(whole.length);
    const rest = Buffer.from('st: a.test\r\n\r\n', 'latin1');
    expect(one.read(rest, 0, rest.length)).toBe(half.length + rest.length);
    expect(one.bytes.toString('latin1', one.view.hostStart, one.view.hostEnd)).toBe('a.test');
    expect(other.bytes.toString('latin1', other.view.hostStart, other.view.hostEnd)).toBe('b.test');
  });

  test('an empty read is no beginning', () => {
    const reading = createHeadReading('request', EDGE_LIMITS);
    const reader = new HeadReader(reading);
    expect(reader.read(Buffer.alloc(8), 3, 3)).toBe(NEED_MORE);
    expect([reader.begun, reading.unfinishedBytes]).toEqual([false, 0]);
  });

  test('to release what has not begun is nothing', () => {
    const reading = createHeadReading('request', EDGE_LIMITS);
    const reader = new HeadReader(reading);
    reader.release();
    reader.release();
    expect(reading.unfinishedBytes).toBe(0);
  });

  test('limits hold over all parts together', () => {
    const long = `GET / HTTP/1.1\r\nHost: a\r\n${`X: ${'y'.repeat(1000)}\r\n`.repeat(40)}\r\n`;
    const cuts = Array.from({ length: 80 }, (_, index) => (index + 1) * 500);
    const { result } = readInParts(createHeadReading('request', EDGE_LIMITS), long, cuts);
    expect(result).toBe(REFUSED.headTooLong);
  });

  test.each([
    ['in one read', 1],
    ['in several reads', 4],
  ])(
    'heads that are not whole, each begun %s, may hold 64 MiB of a worker; then they are refused',
    { timeout: 10_000 },
    (_, reads) => {
      const reading = createHeadReading('request', EDGE_LIMITS);
      const part = Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${`X: ${'y'.repeat(997)}\r\n`.repeat(29)}`, 'latin1');
      const readers: HeadReader[] = [];
      let refused = 0;
      for (let client = 0; client < 2_500; client += 1) {
        const reader = new HeadReader(reading);
        let result = NEED_MORE;
        for (let read = 0; read < reads && result === NEED_MORE; read += 1)
          result = reader.read(part, Math.floor((part.length * read) / reads), Math.floor((part.length * (read + 1)) / reads));
        if (result === REFUSED.overloaded) {
          refused += 1;
          reader.release();
        } else readers.push(reader);
        expect(reading.unfinishedBytes).toBeLessThan(65 * MIB);
      }
      expect(refused).toBeGreaterThan(0);
      for (const reader of readers) reader.release();
      expect(reading.unfinishedBytes).toBe(0);
    },
  );
});
