/** Log streams in pieces. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeEntry, LogEntryParser, sinceOf } from '#caas/docker-api/log-entries.ts';
import type { LogEntry } from '#caas/docker-api/log-entries.ts';

const TIME = '2026-01-02T03:04:05.000000006Z';

interface Said {
  readonly stream: number;
  readonly message: Buffer;
}

function framesOf(said: readonly Said[]): Buffer {
  return Buffer.concat(said.map(({ stream, message }) => encodeEntry({ stream, time: TIME, message }, true)));
}

function parse(isTty: boolean, bytes: Buffer, cuts: readonly number[]): readonly LogEntry[] {
  const parser = new LogEntryParser(isTty);
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((one, other) => one - other), bytes.length];
  const entries = places.slice(1).flatMap((place, index) => parser.push(bytes.subarray(places[index], place)));
  return [...entries, ...parser.end()];
}

const cuts = fc.array(fc.nat(10_000), { maxLength: 20 });
const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
const said = fc.array(fc.record({ stream: fc.constantFrom(1, 2), message: bytes }), { maxLength: 20 });

describe('LogEntryParser', () => {
  test('gives the same frames for every way to cut the bytes', () => {
    fc.assert(
      fc.property(said, cuts, (entries, places) => {
        expect(parse(false, framesOf(entries), places)).toEqual(entries.map((entry) => ({ ...entry, time: TIME })));
      }),
    );
  });

  test('gives the same lines of a TTY for every way to cut the bytes', () => {
    const line = bytes.map((buffer) => Buffer.concat([Buffer.from(buffer.filter((byte) => byte !== 0x0a)), Buffer.from('\n')]));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 10 }), cuts, (lines, places) => {
        const text = Buffer.concat(lines.map((message) => encodeEntry({ stream: 0, time: TIME, message }, true)));
        expect(parse(true, text, places)).toEqual(lines.map((message) => ({ stream: 0, time: TIME, message })));
      }),
    );
  });

  test('an entry encodes as it came, or without its time', () => {
    fc.assert(
      fc.property(said, (entries) => {
        const parsed = parse(false, framesOf(entries), []);
        expect(Buffer.concat(parsed.map((entry) => encodeEntry(entry, true)))).toEqual(framesOf(entries));
        expect(parsed.map((entry) => encodeEntry(entry, false).subarray(8))).toEqual(entries.map(({ message }) => message));
      }),
    );
  });

  test('bytes without a time are kept whole', () => {
    const message = Buffer.from('thirty bytes and then a blank: this is no time\n');
    expect(parse(true, message, [])).toEqual([{ stream: 0, time: '', message }]);
  });

  test('a line without an end is not collected for ever', () => {
    const parser = new LogEntryParser(true);
    const given = Array.from({ length: 100 }, () => parser.push(Buffer.alloc(4096, 'x'))).flat();
    expect(given.reduce((sum, entry) => sum + entry.message.length, 0)).toBeGreaterThan(300_000);
  });

  test('a frame that no engine sends is an error', () => {
    expect(() => new LogEntryParser(false).push(Buffer.from([1, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]))).toThrow('a log frame of');
  });
});

test('sinceOf() keeps every digit of a time', () => {
  expect(sinceOf('1970-01-01T00:01:40.000000001Z')).toBe('100.000000001');
});
