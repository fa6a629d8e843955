import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FRAMING, requestFraming, responseFraming } from '#proxy/http1/body-framing.ts';
import { NEED_MORE, abandonHead, parseHead } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, METHOD, createHeadView } from '#proxy/http1/head-view.ts';
import type { HeadKind, HeadView } from '#proxy/http1/head-view.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { REFUSED, refusalOf } from '#proxy/http1/refusal.ts';
import { hostKey, pathKey } from '#proxy/http1/target.ts';
import { HOSTILE_REQUESTS, HOSTILE_RESPONSES, VALID_REQUESTS, VALID_RESPONSES } from '../../../support/http1-cases.ts';

const ASKED = { method: METHOD.get, upgrade: false };
const octets = (text: string): Buffer => Buffer.from(text, 'latin1');

interface Outcome {
  readonly result: number;
  readonly framing: number;
  readonly text: string;
}

/** What a view says of a head that begins at `start`, apart from where it lies. */
function described(buffer: Buffer, view: HeadView, start: number): string {
  const parts = [
    view.method,
    view.minor,
    view.status,
    view.targetForm,
    view.seen,
    view.repeated,
    view.options,
    view.contentLength,
  ];
  const places = [...view.fields.subarray(0, view.fieldCount * FIELD_STRIDE)].map((value, index) =>
    index % FIELD_STRIDE === FIELD_STRIDE - 1 ? value : value - start,
  );
  const request = view.kind === 'request' ? [hostKey(buffer, view), pathKey(buffer, view), view.targetEnd - start] : [];
  return JSON.stringify([parts, places, view.start - start, view.fieldsStart - start, view.fieldsEnd - start, request]);
}

function outcome(buffer: Buffer, view: HeadView, start: number, result: number): Outcome {
  if (result <= 0) return { result, framing: 0, text: '' };
  const framing = view.kind === 'request' ? requestFraming(buffer, view) : responseFraming(buffer, view, ASKED);
  return { result: result - start, framing, text: described(buffer, view, start) };
}

function atOnce(kind: HeadKind, bytes: Buffer): Outcome {
  const view = createHeadView(kind, EDGE_LIMITS);
  return outcome(bytes, view, 0, parseHead(bytes, 0, bytes.length, view));
}

/** The same in reads that end at `cuts`; each time in another buffer at another offset, with noise around it. */
function inReads(view: HeadView, bytes: Buffer, cuts: readonly number[]): Outcome {
  abandonHead(view);
  let round = 0;
  for (const cut of [...cuts, bytes.length]) {
    round += 1;
    const start = (round * 7) % 13;
    const buffer = Buffer.alloc(start + cut + 5, round % 2 === 0 ? '\n' : 'x');
    bytes.copy(buffer, start, 0, cut);
    const result = parseHead(buffer, start, start + cut, view);
    if (result !== NEED_MORE) return outcome(buffer, view, start, result);
  }
  return { result: NEED_MORE, framing: 0, text: '' };
}

const statusFor = ({ result, framing }: Outcome): number => refusalOf(result < 0 ? result : framing).status;

describe('parseHead() refuses requests', () => {
  test.each(HOSTILE_REQUESTS)('%s', (_, text, status) => {
    const seen = atOnce('request', octets(text));
    expect(seen.result).not.toBe(NEED_MORE);
    expect(Math.min(seen.result, seen.framing)).toBeLessThan(0);
    expect(statusFor(seen)).toBe(status);
  });

  test('at least 150 of them', () => {
    expect(HOSTILE_REQUESTS.length).toBeGreaterThanOrEqual(150);
    expect(new Set(HOSTILE_REQUESTS.map(([, text]) => text)).size).toBe(HOSTILE_REQUESTS.length);
  });
});

describe('parseHead() refuses responses', () => {
  test.each(HOSTILE_RESPONSES)('%s', (_, text) => {
    const seen = atOnce('response', octets(text));
    expect(seen.result).not.toBe(NEED_MORE);
    expect(Math.min(seen.result, seen.framing)).toBeLessThan(0);
  });

  test('at least 60 of them', () => {
    expect(HOSTILE_RESPONSES.length).toBeGreaterThanOrEqual(60);
  });
});

describe('parseHead() takes', () => {
  test.each(VALID_REQUESTS)('request: %s', (_, text, framing) => {
    const seen = atOnce('request', octets(text));
    expect(seen.result).toBe(text.length);
    expect(Object.entries(FRAMING).find(([, code]) => code === seen.framing)?.[0]).toBe(framing);
  });

  test.each(VALID_RESPONSES)('response: %s', (_, text, framing) => {
    const seen = atOnce('response', octets(text));
    expect(seen.result).toBe(text.length);
    expect(Object.entries(FRAMING).find(([, code]) => code === seen.framing)?.[0]).toBe(framing);
  });

  test('no more than the head: what follows is left', () => {
    const [, text] = VALID_REQUESTS[0] ?? ['', ''];
    expect(atOnce('request', octets(`${text}\n\0garbage`)).result).toBe(text.length);
  });
});

const CASES: readonly (readonly [HeadKind, string])[] = [
  ...[...HOSTILE_REQUESTS, ...VALID_REQUESTS].map(([, text]) => ['request', text] as const),
  ...[...HOSTILE_RESPONSES, ...VALID_RESPONSES].map(([, text]) => ['response', text] as const),
];

describe('any split of the bytes into reads gives the same result', () => {
  const short = CASES.filter(([, text]) => text.length < 1000);
  const views = { request: createHeadView('request', EDGE_LIMITS), response: createHeadView('response', EDGE_LIMITS) };

  test('in two reads, at every octet', () => {
    for (const [kind, text] of short) {
      const bytes = octets(text);
      const expected = atOnce(kind, bytes);
      for (let cut = 0; cut <= bytes.length; cut += 1)
        expect(inReads(views[kind], bytes, [cut]), `${text}|${String(cut)}`).toEqual(expected);
    }
  }, 20_000);

  test('octet by octet', () => {
    for (const [kind, text] of short) {
      const bytes = octets(text);
      const cuts = Array.from({ length: bytes.length }, (_, index) => index);
      expect(inReads(views[kind], bytes, cuts), text).toEqual(atOnce(kind, bytes));
    }
  }, 20_000);

  test('long ones, at random', () => {
    const long = CASES.filter(([, text]) => text.length >= 1000);
    fc.assert(
      fc.property(fc.constantFrom(...long), fc.array(fc.nat({ max: 40_000 }), { maxLength: 6 }), ([kind, text], cuts) => {
        const bytes = octets(text);
        const inside = cuts.filter((cut) => cut < bytes.length).toSorted((one, other) => one - other);
        expect(inReads(views[kind], bytes, inside)).toEqual(atOnce(kind, bytes));
      }),
      { numRuns: 60 },
    );
  }, 10_000);
});

describe('noise', () => {
  test('mutated heads give the same result in any split, and never NEED_MORE after their end', () => {
    const view = createHeadView('request', EDGE_LIMITS);
    const texts = VALID_REQUESTS.map(([, text]) => text).filter((text) => text.length < 300);
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        fc.array(fc.nat(300), { maxLength: 4 }),
        (text, edits, cuts) => {
          const bytes = octets(text);
          for (const [at, octet] of edits) bytes[at % bytes.length] = octet;
          const inside = cuts.filter((cut) => cut < bytes.length).toSorted((one, other) => one - other);
          expect(inReads(view, bytes, inside)).toEqual(atOnce('request', bytes));
        },
      ),
      { numRuns: 2000 },
    );
  }, 20_000);
});

test('refusalOf() knows every code', () => {
  for (const code of Object.values(REFUSED)) expect(refusalOf(code).reason).not.toBe('the message is malformed');
});
