/** Frames of WebSockets, in any pieces. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameFollower } from '#proxy/connection/frame-follower.ts';

function frame(payloadBytes: number, isMasked: boolean): Buffer {
  const mask = isMasked ? 0x80 : 0;
  const head =
    payloadBytes < 126
      ? Buffer.from([0x82, mask | payloadBytes])
      : payloadBytes < 65_536
        ? Buffer.from([0x82, mask | 126, payloadBytes >> 8, payloadBytes & 255])
        : Buffer.concat([Buffer.from([0x82, mask | 127]), wide(payloadBytes)]);
  // Payload that looks like heads of frames.
  return Buffer.concat([head, Buffer.alloc(isMasked ? 4 : 0, 0x88), Buffer.alloc(payloadBytes, 0x81)]);
}

function wide(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

describe('FrameFollower', () => {
  test('tells the ends of frames, however they are cut into reads', () => {
    const size = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.constantFrom(125, 126, 127, 65_535, 65_536));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(size, fc.boolean()), { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(140_000), { maxLength: 10 }),
        (shapes, cuts) => {
          const frames = shapes.map(([bytes, isMasked]) => frame(bytes, isMasked));
          const all = Buffer.concat(frames);
          const ends = new Set([0]);
          let at = 0;
          for (const { length } of frames) ends.add((at += length));
          const follower = new FrameFollower();
          const stops = [...new Set([...cuts, all.length])].filter((cut) => cut <= all.length).toSorted((a, b) => a - b);
          let from = 0;
          for (const stop of stops) {
            const inRead = [...ends].filter((end) => end > from && end <= stop);
            expect(follower.follow(all, from, stop)).toBe(inRead.at(-1) ?? -1);
            expect(follower.isBetween).toBe(ends.has(stop));
            from = stop;
          }
        },
      ),
      { numRuns: 50 },
    );
  });
});
