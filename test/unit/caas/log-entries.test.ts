/** Followed logs, in pieces. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FollowedLog, sinceOf } from '#caas/docker-api/log-entries.ts';

interface Said {
  readonly stream: number;
  readonly message: Buffer;
  readonly nano: number;
}

function timeOf(nano: number): string {
  return `2026-01-02T03:04:05.${String(nano).padStart(9, '0')}Z`;
}

function encode(stream: number, payload: Buffer): Buffer {
  if (stream === 0) return payload;
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

function encoded(said: readonly Said[], withTime: boolean): Buffer {
  return Buffer.concat(
    said.map(({ stream, message, nano }) =>
      encode(stream, withTime ? Buffer.concat([Buffer.from(`${timeOf(nano)} `), message]) : message),
    ),
  );
}

function through(log: FollowedLog, bytes: Buffer, cuts: readonly number[]): Buffer {
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((one, other) => one - other), bytes.length];
  const out = places.slice(1).map((place, index) => Buffer.from(log.push(Buffer.from(bytes.subarray(places[index], place)))));
  return Buffer.concat([...out, log.end()]);
}

const cuts = fc.array(fc.nat(10_000), { maxLength: 20 });
const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
const frames = fc
  .array(fc.record({ stream: fc.constantFrom(1, 2), message: bytes }), { maxLength: 20 })
  .map((list) => list.map((entry, nano): Said => ({ ...entry, nano })));
const lines = fc.array(bytes, { maxLength: 10 }).map((list) =>
  list.map((line, nano): Said => ({
    stream: 0,
    message: Buffer.concat([Buffer.from(line.filter((byte) => byte !== 0x0a)), Buffer.from('\n')]),
    nano,
  })),
);
const anyLog = fc.oneof(frames, lines);

function logFor(said: readonly Said[], withTime: boolean): FollowedLog {
  return new FollowedLog({ isTty: said[0]?.stream === 0, withTime });
}

describe('FollowedLog', () => {
  test('gives what the engine sent, with times or without, for every way to cut the bytes', () => {
    fc.assert(
      fc.property(anyLog, cuts, fc.boolean(), (said, places, withTime) => {
        const log = logFor(said, withTime);
        expect(through(log, encoded(said, true), places)).toEqual(encoded(said, withTime));
        expect(log.cursor).toBe(said.length === 0 ? '' : timeOf(said.length - 1));
      }),
    );
  });

  test('goes on in another engine’s log where it was', () => {
    fc.assert(
      fc.property(anyLog, fc.nat(30), cuts, fc.boolean(), (said, upTo, places, withTime) => {
        const log = logFor(said, withTime);
        const first = said.slice(0, upTo);
        const before = through(log, encoded(first, true), places);
        log.resume();
        // `since` has whole seconds on some engines: what was given comes again.
        const after = through(log, encoded(said, true), places);
        expect(Buffer.concat([before, after])).toEqual(encoded(said, withTime));
      }),
    );
  });

  test('takes a TTY’s line in the pieces that Docker makes of it', () => {
    const piece = Buffer.alloc(16 * 1024, 0x61);
    const said = [
      { stream: 0, message: piece, nano: 1 },
      { stream: 0, message: piece, nano: 2 },
      { stream: 0, message: Buffer.from('end\r\n'), nano: 3 },
      { stream: 0, message: Buffer.from('next\r\n'), nano: 4 },
    ];
    for (const places of [[], [100], [16 * 1024 + 40], [16 * 1024 + 31, 32 * 1024 + 70]]) {
      expect(through(new FollowedLog({ isTty: true, withTime: false }), encoded(said, true), places)).toEqual(
        encoded(said, false),
      );
    }
  });

  test('does not collect a line without an end', () => {
    const log = new FollowedLog({ isTty: true, withTime: false });
    expect(log.push(Buffer.alloc(100_000, 0x61))).toHaveLength(100_000);
  });

  test('keeps bytes without a time whole', () => {
    const message = Buffer.from('thirty bytes and then a blank: this is no time\n');
    const log = new FollowedLog({ isTty: true, withTime: false });
    expect(log.push(Buffer.from(message))).toEqual(message);
    expect(log.cursor).toBe('');
  });

  test('refuses a frame that no engine sends', () => {
    const log = new FollowedLog({ isTty: false, withTime: true });
    expect(() => log.push(Buffer.from([1, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]))).toThrow('a log frame of');
  });
});

test('sinceOf() keeps every digit of a time', () => {
  expect(sinceOf('1970-01-01T00:01:40.000000001Z')).toBe('100.000000001');
});
