/** Streams of events: where they can be ended, in any pieces and framings. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventFollower, EventStream } from '#proxy/connection/event-stream.ts';
import { FRAMING } from '#proxy/http1/body-framing.ts';

const LIMITS = { extensionBytesMax: 256, extensionBytesTotalMax: 1024, trailerBytesMax: 1024, trailerCountMax: 8 };

function betweenAfter(text: string): boolean {
  const follower = new EventFollower();
  follower.follow(Buffer.from(text), 0, text.length);
  return follower.isBetween;
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

describe('EventFollower', () => {
  test.each([
    ['', true],
    ['data: a', false],
    ['data: a\n', false],
    ['data: a\n\n', true],
    ['data: a\r\n\r\n', true],
    ['data: a\r\n\r', true],
    ['data: a\r\r', true],
    ['data: a\r\n', false],
    ['data: a\n\r\n', true],
    [': comment', false],
    [': comment\n', true],
    ['data: a\n: comment\n', false],
    ['data: a\n\n: comment\n', true],
    ['data: a\n\ndata: b', false],
  ])('after %j it is between two events: %s', (text, expected) => {
    expect(betweenAfter(text)).toBe(expected);
  });

  test('gives the same however the bytes are cut into reads', () => {
    const text = fc.array(fc.constantFrom('d', ':', '\r', '\n', '\n\n', '\r\n\r\n'), { maxLength: 20 });
    fc.assert(
      fc.property(text, fc.array(fc.nat(30), { maxLength: 5 }), (parts, cuts) => {
        const bytes = Buffer.from(parts.join(''));
        const follower = new EventFollower();
        let from = 0;
        for (const cut of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
          const stop = Math.min(cut, bytes.length);
          follower.follow(bytes, from, stop);
          from = stop;
        }
        expect(follower.isBetween).toBe(betweenAfter(bytes.toString()));
      }),
    );
  });
});

describe('EventStream', () => {
  test('can end between two chunks and two events, and tells the last such place of a read', () => {
    const stream = new EventStream(FRAMING.chunked, false, LIMITS);
    const whole = chunk('data: a\n\n') + chunk(': still here\n');
    const bytes = Buffer.from(whole + chunk('data: b\n') + 'a\r\ndata');
    expect(stream.isBetween).toBe(true);
    expect(stream.follow(bytes, 0, bytes.length)).toBe(whole.length);
    expect([stream.isBetween, stream.isBetweenChunks]).toEqual([false, false]);
    const rest = Buffer.from(': c\n\n\n\r\n');
    expect(stream.follow(rest, 0, rest.length)).toBe(rest.length);
  });

  test('between two chunks and within an event it can end with the loss of that', () => {
    const stream = new EventStream(FRAMING.chunked, false, LIMITS);
    const bytes = Buffer.from(chunk('data: a'));
    expect(stream.follow(bytes, 0, bytes.length)).toBe(-1);
    expect([stream.isBetween, stream.isBetweenChunks]).toEqual([false, true]);
    expect(stream.farewell(250, false)).toBe(':\nretry: 250\n');
    expect(stream.farewell(250, true)).toBe('retry: 250\n\n');
  });

  test('without chunks it can end between two events', () => {
    const stream = new EventStream(FRAMING.untilClose, false, LIMITS);
    const bytes = Buffer.from('data: a\n\ndata: b\n');
    expect([stream.follow(bytes, 0, 9), stream.follow(bytes, 9, bytes.length)]).toEqual([9, -1]);
    expect([stream.isBetween, stream.isBetweenChunks]).toEqual([false, true]);
  });

  test('that is encoded ends between two chunks, with nothing said', () => {
    const stream = new EventStream(FRAMING.chunked, true, LIMITS);
    const bytes = Buffer.from(`${chunk('\u0001\u0002')}3\r\n`);
    expect(stream.follow(bytes, 0, bytes.length)).toBe(7);
    expect([stream.isBetween, stream.farewell(250, true)]).toEqual([false, '']);
  });
});
