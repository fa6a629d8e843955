import { randomBytes, randomUUID } from 'node:crypto';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  FILE_PART_BYTES,
  FrameReader,
  HEADER_BYTES,
  ORDER_PAGES_MAX,
  PAGES_PER_FRAME,
  decodeDone,
  decodeFilePart,
  decodeHello,
  decodeOrder,
  decodePages,
  decodeWelcome,
  encodeAck,
  encodeDone,
  encodeFilePart,
  encodeHello,
  encodeOrder,
  encodePagesHead,
  encodeWelcome,
  frame,
  frameHead,
  frameKinds,
} from '#isolation/pages/frames.ts';
import type { FrameKind } from '#isolation/pages/frames.ts';
import { ID_BYTES, PAGE_BYTES, SEED_BYTES } from '#isolation/pages/page-hash.ts';
import { codeOf } from '#errors';

interface Read {
  readonly kind: FrameKind;
  readonly payload: Buffer;
}

function readAll(bytes: Buffer, cuts: readonly number[]): readonly Read[] {
  const found: Read[] = [];
  const reader = new FrameReader((kind, payload) => found.push({ kind, payload: Buffer.from(payload) }));
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    const end = Math.min(bytes.length, Math.max(at, cut));
    reader.push(bytes.subarray(at, end));
    at = end;
  }
  return found;
}

function payloadOf(bytes: Buffer): Buffer {
  return bytes.subarray(HEADER_BYTES);
}

/** What was thrown, by its code; undefined where nothing was. */
function codeThrownBy(work: () => void): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return codeOf(error) ?? String(error);
  }
}

const kinds = Object.values(frameKinds);

test('frames come out as they went in, however they are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom(...kinds), fc.uint8Array({ maxLength: 4 })), { maxLength: 8 }),
      fc.array(fc.nat(80), { maxLength: 8 }),
      (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(([kind, payload]) => frame(kind, payload)));
        const read = readAll(
          bytes,
          cuts.toSorted((a, b) => a - b),
        );
        expect(read.map(({ kind, payload }) => [kind, [...payload]])).toEqual(
          frames.map(([kind, payload]) => [kind, [...payload]]),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test('a length beyond the bound of its kind is refused before anything of it is read, and so is an unknown kind', () => {
  fc.assert(
    fc.property(fc.nat(255), fc.nat(0xffff_ffff), (kind, length) => {
      const head = Buffer.alloc(HEADER_BYTES);
      head.writeUInt32LE(length, 0);
      head.writeUInt8(kind, 4);
      const reader = new FrameReader(() => undefined);
      const code = codeThrownBy(() => {
        reader.push(head);
      });
      const mustBeRefused = !kinds.some((known) => known === kind) || length > 1.1 * FILE_PART_BYTES;
      expect(mustBeRefused ? ['ECLUSE_PAGES_PROTOCOL'] : [undefined, 'ECLUSE_PAGES_PROTOCOL']).toContain(code);
    }),
    { numRuns: 200 },
  );
});

test('a hello, a welcome, an order, a file and a seal come back as they were', () => {
  const hello = { migrationId: randomUUID(), fencingToken: 2 ** 52, token: randomBytes(32).toString('hex') };
  expect(decodeHello(payloadOf(encodeHello(hello)))).toEqual(hello);
  const welcome = { seed: randomBytes(SEED_BYTES), slotsMax: 1000, heldSlots: 7 };
  expect(decodeWelcome(payloadOf(encodeWelcome(welcome)))).toEqual(welcome);
  const runs = [
    { slot: 5, count: 3 },
    { slot: 0, count: 1 },
  ];
  expect(decodeOrder(payloadOf(encodeOrder(runs)))).toEqual(runs);
  const part = { file: 'pages_meta.img', bytes: randomBytes(9) } as const;
  expect(decodeFilePart(payloadOf(encodeFilePart(part.file, part.bytes)))).toEqual(part);
  const seal = { pagesBytes: 4096, pagesDigest: randomBytes(32), checkpointDigest: randomBytes(32), metaDigest: randomBytes(32) };
  expect(decodeDone(payloadOf(encodeDone(seal)))).toEqual(seal);
});

test('pages come back with their places and ids', () => {
  const places = Buffer.from(Uint32Array.of(3, 4, 900).buffer);
  const ids = randomBytes(3 * ID_BYTES);
  const content = randomBytes(100);
  const bytes = Buffer.concat([encodePagesHead({ encoding: 1, count: 3 }, places, ids, content.length), content]);
  expect(decodePages(payloadOf(bytes))).toEqual({ encoding: 1, count: 3, places: [3, 4, 900], ids, content });
});

test('what is no frame of its kind is refused with one code, whatever it is', () => {
  const decoders = [decodeHello, decodeWelcome, decodePages, decodeOrder, decodeFilePart, decodeDone];
  fc.assert(
    fc.property(fc.constantFrom(...decoders), fc.uint8Array({ maxLength: 160 }), (decode, bytes) => {
      const code = codeThrownBy(() => {
        decode(Buffer.from(bytes));
      });
      expect([undefined, 'ECLUSE_PAGES_PROTOCOL']).toContain(code);
    }),
    { numRuns: 300 },
  );
});

test('counts beyond their bounds are refused', () => {
  const pagesHead = (count: number): Buffer => Buffer.from(Uint32Array.of(0, count).buffer);
  for (const count of [0, PAGES_PER_FRAME + 1, 0xffff_ffff]) {
    expect(codeThrownBy(() => decodePages(Buffer.concat([pagesHead(count), Buffer.alloc(PAGE_BYTES)])))).toBe(
      'ECLUSE_PAGES_PROTOCOL',
    );
  }
  for (const count of [0, ORDER_PAGES_MAX + 1]) {
    expect(codeThrownBy(() => decodeOrder(Buffer.from(Uint32Array.of(1, count).buffer)))).toBe('ECLUSE_PAGES_PROTOCOL');
  }
  const welcome = (slotsMax: number, heldSlots: number): Buffer =>
    payloadOf(encodeWelcome({ seed: randomBytes(SEED_BYTES), slotsMax, heldSlots }));
  expect(codeThrownBy(() => decodeWelcome(welcome(0, 0)))).toBe('ECLUSE_PAGES_PROTOCOL');
  expect(codeThrownBy(() => decodeWelcome(welcome(10, 11)))).toBe('ECLUSE_PAGES_PROTOCOL');
  expect(frameHead(frameKinds.ack, 8).length + 8).toBe(encodeAck(1).length);
});
