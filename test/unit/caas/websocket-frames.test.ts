/** WebSocket frames, and Docker's, in pieces. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameStripper } from '#caas/docker-api/stream-frames.ts';
import { encodeClose, encodeFrame, FrameReader } from '#caas/docker-api/websocket-frames.ts';
import type { FrameNews } from '#caas/docker-api/websocket-frames.ts';

/** A frame as a client sends it. */
function masked(first: number, payload: Buffer, mask: Buffer = Buffer.from([1, 2, 3, 4])): Buffer {
  const plain = encodeFrame('binary', payload);
  const head = Buffer.from(plain.subarray(0, plain.length - payload.length));
  head[0] = first;
  head[1] = (head[1] ?? 0) | 0x80;
  return Buffer.concat([head, mask, Buffer.from(payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0)))]);
}

function read(bytes: Buffer, cuts: readonly number[] = []): readonly FrameNews[] {
  const reader = new FrameReader();
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((one, other) => one - other), bytes.length];
  return places.slice(1).flatMap((place, index) => reader.push(bytes.subarray(places[index], place)));
}

const cuts = fc.array(fc.nat(200_000), { maxLength: 20 });
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

describe('FrameReader', () => {
  test('gives the payloads for every way to cut the bytes', () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 8 }), cuts, (payloads, places) => {
        const news = read(Buffer.concat(payloads.map((payload, at) => masked(at % 2 === 0 ? 0x82 : 0x01, payload))), places);
        expect(Buffer.concat(news.map((one) => (one.kind === 'payload' ? one.bytes : Buffer.alloc(0))))).toEqual(
          Buffer.concat(payloads),
        );
      }),
    );
  });

  test('takes frames of every length', () => {
    for (const length of [0, 125, 126, 0xffff, 0x10000]) {
      const payload = Buffer.alloc(length, 7);
      const news = read(masked(0x82, payload), [3, 5000, 40_000]);
      expect(Buffer.concat(news.map((one) => (one.kind === 'payload' ? one.bytes : Buffer.alloc(0))))).toEqual(payload);
    }
  });

  test('takes control frames between the others, and nothing after a close', () => {
    const all = [masked(0x82, Buffer.from('a')), masked(0x89, Buffer.from('hey')), masked(0x8a, Buffer.alloc(0))];
    const news = read(Buffer.concat([...all, masked(0x88, Buffer.alloc(2)), masked(0x82, Buffer.from('late'))]));
    expect(news).toEqual([
      { kind: 'payload', bytes: Buffer.from('a') },
      { kind: 'ping', bytes: Buffer.from('hey') },
      { kind: 'close' },
    ]);
  });

  test.each([
    ['a frame without a mask', encodeFrame('binary', Buffer.from('a'))],
    ['a reserved bit', masked(0xc2, Buffer.from('a'))],
    ['an unknown opcode', masked(0x83, Buffer.from('a'))],
    ['a control frame in pieces', masked(0x09, Buffer.from('a'))],
    ['a control frame that is too long', masked(0x89, Buffer.alloc(126))],
    ['a length beyond all numbers', Buffer.from([0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])],
  ])('refuses %s', (_what, frame) => {
    expect(read(frame).at(-1)?.kind).toBe('broken');
  });

  test('writes a close with its code', () => {
    expect(encodeClose()).toEqual(Buffer.from([0x88, 2, 0x03, 0xe8]));
  });
});

test('FrameStripper gives the payloads for every way to cut the bytes', () => {
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 8 }), cuts, (payloads, places) => {
      const frames = payloads.map((payload) => {
        const head = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
        head.writeUInt32BE(payload.length, 4);
        return Buffer.concat([head, payload]);
      });
      const whole = Buffer.concat(frames);
      const at = [0, ...places.map((cut) => cut % (whole.length + 1)).toSorted((one, other) => one - other), whole.length];
      const stripper = new FrameStripper();
      const out = at.slice(1).flatMap((place, index) => stripper.push(whole.subarray(at[index], place)));
      expect(Buffer.concat(out)).toEqual(Buffer.concat(payloads));
    }),
  );
});
