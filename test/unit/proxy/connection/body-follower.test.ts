/** Where bodies end, whatever the reads that they come in. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BodyFollower } from '#proxy/connection/body-follower.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';

const LIMITS = {
  extensionBytesMax: EDGE_LIMITS.chunkExtensionBytesMax,
  extensionBytesTotalMax: EDGE_LIMITS.chunkExtensionBytesTotalMax,
  trailerBytesMax: EDGE_LIMITS.trailerBytesMax,
  trailerCountMax: EDGE_LIMITS.trailerCountMax,
};
const NEXT = 'GET /next HTTP/1.1\r\n';

interface Followed {
  /** Octets of the body, or why it is refused. */
  readonly bytes: number;
  readonly whole: boolean;
  readonly payloadBytes: number;
}

/** Follows a body in reads that end at `cuts`. */
function follow(body: BodyFollower, text: string, cuts: readonly number[] = []): Followed {
  const bytes = Buffer.from(text, 'latin1');
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    if (body.whole) break;
    const after = body.follow(bytes, at, cut);
    if (after < 0) return { bytes: after, whole: false, payloadBytes: body.payloadBytes };
    at = after;
  }
  return { bytes: at, whole: body.whole, payloadBytes: body.payloadBytes };
}

function begun(framing: number, length = 0): BodyFollower {
  const body = new BodyFollower(LIMITS);
  body.begin(framing, length);
  return body;
}

describe('BodyFollower', () => {
  test('no body is whole at once and takes nothing', () => {
    expect(follow(begun(FRAMING.none), NEXT)).toEqual({ bytes: 0, whole: true, payloadBytes: 0 });
    const body = begun(FRAMING.none);
    expect(body.follow(Buffer.from(NEXT), 3, NEXT.length)).toBe(3);
  });

  test('a body of known length ends there, and says what is to come', () => {
    const body = begun(FRAMING.fixed, 5);
    expect([body.left, body.whole]).toEqual([5, false]);
    expect(body.follow(Buffer.from('ab'), 0, 2)).toBe(2);
    expect([body.left, body.whole]).toEqual([3, false]);
    expect(body.follow(Buffer.from(`cde${NEXT}`), 0, 3 + NEXT.length)).toBe(3);
    expect([body.left, body.whole]).toEqual([0, true]);
  });

  test('a length of zero is whole', () => {
    expect(begun(FRAMING.fixed, 0).whole).toBe(true);
  });

  test('a length beyond 32 bits is followed exactly', () => {
    const body = begun(FRAMING.fixed, 2 ** 40);
    expect(body.follow(Buffer.alloc(10), 0, 10)).toBe(10);
    expect(body.left).toBe(2 ** 40 - 10);
  });

  test('chunks end with the trailers, and tell of their payload', () => {
    const text = '3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n';
    expect(follow(begun(FRAMING.chunked), text + NEXT)).toEqual({ bytes: text.length, whole: true, payloadBytes: 3 });
  });

  test('wrong chunks are refused', () => {
    expect(follow(begun(FRAMING.chunked), '3\r\nabcX')).toMatchObject({ bytes: REFUSED.chunkEnd, whole: false });
    expect(follow(begun(FRAMING.chunked), '3 \r\nabc\r\n').bytes).toBeLessThan(0);
    expect(follow(begun(FRAMING.chunked), '0\r\nContent-Length: 1\r\n\r\n').bytes).toBe(REFUSED.trailerForbidden);
  });

  test.each([FRAMING.untilClose, FRAMING.tunnel])('framing %i takes all there is and is never over by itself', (framing) => {
    const body = begun(framing);
    expect(body.follow(Buffer.from(NEXT), 0, NEXT.length)).toBe(NEXT.length);
    expect(body.whole).toBe(false);
  });

  test('one follower follows one body after the other, of any framing', () => {
    const body = new BodyFollower(LIMITS);
    body.begin(FRAMING.chunked, 0);
    follow(body, '2\r\nab\r\n0\r\n\r\n');
    body.begin(FRAMING.fixed, 2);
    expect(follow(body, 'abc')).toEqual({ bytes: 2, whole: true, payloadBytes: 0 });
    body.begin(FRAMING.chunked, 0);
    expect([body.whole, body.left, body.payloadBytes]).toEqual([false, 0, 0]);
    expect(follow(body, '1\r\na\r\n0\r\n\r\n')).toEqual({ bytes: 11, whole: true, payloadBytes: 1 });
    body.begin(FRAMING.none, 0);
    expect(body.whole).toBe(true);
  });

  test('a body that broke off in the middle leaves nothing to the next one', () => {
    const body = new BodyFollower(LIMITS);
    body.begin(FRAMING.chunked, 0);
    follow(body, 'a;x=');
    body.begin(FRAMING.chunked, 0);
    expect(follow(body, '0\r\n\r\n')).toEqual({ bytes: 5, whole: true, payloadBytes: 0 });
  });

  test('reads may end anywhere', () => {
    const chunk = fc.string({ minLength: 1, maxLength: 20, unit: 'binary-ascii' });
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 5 }), fc.array(fc.nat(200), { maxLength: 8 }), (chunks, anywhere) => {
        const payload = chunks.join('');
        const chunked = `${chunks.map((text) => `${text.length.toString(16)}\r\n${text}\r\n`).join('')}0\r\nX-A: b\r\n\r\n`;
        const cutsOf = (text: string): number[] =>
          anywhere.filter((cut) => cut <= text.length).toSorted((one, other) => one - other);
        expect(follow(begun(FRAMING.chunked), chunked + NEXT, cutsOf(chunked))).toEqual({
          bytes: chunked.length,
          whole: true,
          payloadBytes: payload.length,
        });
        expect(follow(begun(FRAMING.fixed, payload.length), payload + NEXT, cutsOf(payload))).toEqual({
          bytes: payload.length,
          whole: true,
          payloadBytes: 0,
        });
      }),
    );
  });
});
