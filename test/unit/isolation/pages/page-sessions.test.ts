/** Both ends against ends that lie: whatever comes, a session ends with an error of its own and gives everything back. */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { codeOf } from '#errors';
import {
  encodeDone,
  encodeFilePart,
  encodeHello,
  encodeNumber,
  encodeOrder,
  encodePagesHead,
  encodeWelcome,
  frame,
  frameKinds,
} from '#isolation/pages/frames.ts';
import type { FrameKind } from '#isolation/pages/frames.ts';
import { ID_BYTES, PAGE_BYTES, SEED_BYTES, createPageHasher } from '#isolation/pages/page-hash.ts';
import { PageStore } from '#isolation/pages/page-store.ts';
import { SINK_LIMITS, SinkSession } from '#isolation/pages/sink-session.ts';
import { SourceSession } from '#isolation/pages/source-session.ts';

// Files are made and removed in each run of a property, and one test waits for a limit.
vi.setConfig({ testTimeout: 10_000 });

const HELLO = { migrationId: randomUUID(), fencingToken: 1, token: randomBytes(32).toString('hex') };
let folder = '';

beforeEach(() => {
  folder = mkdtempSync('/dev/shm/ecluse-test-sessions-');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface SinkEnd {
  readonly channel: Duplex;
  readonly store: PageStore;
  readonly imageDir: string;
  readonly session: SinkSession;
}

function openSink(slotsMax = 64): SinkEnd {
  const [channel, other] = duplexPair();
  channel.resume();
  const name = randomUUID();
  const store = new PageStore(join(folder, name), slotsMax);
  const imageDir = join(folder, `${name}-image`);
  const session = new SinkSession(other, () => ({ store, imageDir, pagesBytesMax: 64 * PAGE_BYTES }), SINK_LIMITS);
  return { channel, store, imageDir, session };
}

async function failureOf({ ended }: SinkSession): Promise<string | undefined> {
  return await ended.then(
    () => undefined,
    (error: unknown) => codeOf(error),
  );
}

function pagesFrame(places: readonly number[], ids: Buffer, content: Buffer): Buffer {
  const head = { encoding: 0, count: places.length };
  return Buffer.concat([encodePagesHead(head, Buffer.from(Uint32Array.from(places).buffer), ids, content.length), content]);
}

/** The right id of a page. */
function idOf(seed: Buffer, page: Buffer): Buffer {
  const hasher = createPageHasher(seed);
  hasher.input.set(page);
  hasher.hash(1);
  return Buffer.from(Buffer.from(hasher.ids.buffer, hasher.ids.byteOffset, ID_BYTES));
}

test('a page with another content than its id says ends the exchange, and nothing of the image stays', async () => {
  const sink = openSink();
  const page = randomBytes(PAGE_BYTES);
  sink.channel.write(encodeHello(HELLO));
  sink.channel.write(pagesFrame([1], idOf(sink.store.seed, page), page));
  sink.channel.write(encodeOrder([{ slot: 1, count: 1 }]));
  sink.channel.write(pagesFrame([2], idOf(sink.store.seed, page), randomBytes(PAGE_BYTES)));
  expect(await failureOf(sink.session)).toBe('ECLUSE_PAGES_PROTOCOL');
  expect(existsSync(sink.imageDir)).toBe(false);
  sink.store[Symbol.dispose]();
  expect(readdirSync(folder)).toEqual([]);
});

test.each([
  ['the place of the zero page', [0]],
  ['a place that leaves a gap', [2]],
  ['a place beyond the store', [1, 2, 3, 4]],
])('%s is refused', async (_, places) => {
  const sink = openSink(4);
  const page = randomBytes(PAGE_BYTES);
  const id = idOf(sink.store.seed, page);
  sink.channel.write(encodeHello(HELLO));
  sink.channel.write(pagesFrame(places, Buffer.concat(places.map(() => id)), Buffer.concat(places.map(() => page))));
  expect(await failureOf(sink.session)).toBe('ECLUSE_PAGES_PROTOCOL');
});

test.each([
  ['an order for a page that never came', encodeOrder([{ slot: 9, count: 1 }])],
  [
    'a seal that does not fit',
    encodeDone({ pagesBytes: 1, pagesDigest: randomBytes(32), checkpointDigest: randomBytes(32), metaDigest: randomBytes(32) }),
  ],
  ['a rest of a page that is a page', encodeFilePart('pages.img', Buffer.alloc(PAGE_BYTES))],
  [
    'more pages than the container may have',
    Buffer.concat(Array.from({ length: 65 }, () => encodeOrder([{ slot: 0, count: 1 }]))),
  ],
  [
    'a round after the final pass began',
    Buffer.concat([encodeOrder([{ slot: 0, count: 1 }]), encodeNumber(frameKinds.round, 2)]),
  ],
  ['a second hello', encodeHello(HELLO)],
  ['a frame that only a sink sends', encodeNumber(frameKinds.roundKept, 1)],
])('%s is refused', async (_, bytes) => {
  const sink = openSink();
  sink.channel.write(encodeHello(HELLO));
  sink.channel.write(bytes);
  expect(await failureOf(sink.session)).toBe('ECLUSE_PAGES_PROTOCOL');
  expect(existsSync(sink.imageDir)).toBe(false);
});

test('a sink that is cut off in the middle of a frame fails, and leaves no image', async () => {
  const sink = openSink();
  sink.channel.write(encodeHello(HELLO));
  sink.channel.write(encodeOrder([{ slot: 0, count: 1 }]));
  sink.channel.write(encodeFilePart('checkpoint.img', randomBytes(100)).subarray(0, 50));
  sink.channel.end();
  expect(await failureOf(sink.session)).toBe('ECLUSE_PAGES_CONNECTION');
  expect(existsSync(sink.imageDir)).toBe(false);
});

test('a source that says nothing, or stops within a frame, is given up', async () => {
  const [channel, other] = duplexPair();
  channel.resume();
  const store = new PageStore(join(folder, 'silent'), 64);
  const job = { store, imageDir: join(folder, 'image'), pagesBytesMax: PAGE_BYTES };
  const session = new SinkSession(other, () => job, { helloMs: 1, stallMs: 1, idleMs: 1 });
  expect(await failureOf(session)).toBe('ECLUSE_PAGES_STALLED');
});

const anyFrame = fc
  .tuple(fc.constantFrom(...Object.values(frameKinds)), fc.uint8Array({ maxLength: 80 }))
  .map(([kind, payload]: [FrameKind, Uint8Array]) => frame(kind, payload));

test('no sequence of frames makes a sink do anything but go on or end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyFrame, { maxLength: 12 }), fc.boolean(), async (frames, isGreeted) => {
      const sink = openSink();
      if (isGreeted) sink.channel.write(encodeHello(HELLO));
      for (const bytes of frames) sink.channel.write(bytes);
      sink.channel.end();
      expect(await failureOf(sink.session)).toMatch(/^ECLUSE_/);
      expect(existsSync(sink.imageDir)).toBe(false);
      sink.store[Symbol.dispose]();
    }),
    { numRuns: 30 },
  );
});

test('no sequence of frames makes a source do anything but fail', async () => {
  const memoryFile = join(folder, 'memory');
  writeFileSync(memoryFile, randomBytes(2 * PAGE_BYTES));
  await fc.assert(
    fc.asyncProperty(fc.array(anyFrame, { maxLength: 12 }), fc.nat(4), async (frames, heldSlots) => {
      const [channel, other] = duplexPair();
      channel.resume();
      using session = new SourceSession(other, { memoryFile, bandwidthBytesPerSecond: undefined, onProgress: () => undefined });
      const opening = session.open(HELLO).then(async () => await session.round());
      channel.write(encodeWelcome({ seed: randomBytes(SEED_BYTES), slotsMax: 8, heldSlots }));
      for (const bytes of frames) channel.write(bytes);
      channel.end();
      const code = await opening.then(
        () => 'a round that ended',
        (error: unknown) => codeOf(error),
      );
      expect(code).toMatch(/^ECLUSE_|a round that ended/);
    }),
    { numRuns: 30 },
  );
});

test('a sink with more places than the memory of the source is taken at its word, one with none is refused', async () => {
  const memoryFile = join(folder, 'memory');
  writeFileSync(memoryFile, randomBytes(4 * PAGE_BYTES));
  const [channel, other] = duplexPair();
  channel.resume();
  using session = new SourceSession(other, { memoryFile, bandwidthBytesPerSecond: undefined, onProgress: () => undefined });
  const seed = randomBytes(SEED_BYTES);
  channel.write(encodeWelcome({ seed, slotsMax: 2, heldSlots: 1 }));
  channel.write(frame(frameKinds.held, idOf(seed, Buffer.alloc(PAGE_BYTES))));
  await session.open(HELLO);
  await expect(session.round()).rejects.toMatchObject({ code: 'ECLUSE_PAGES_FULL' });
});

test('a store that was kept holds its pages for the next attempt, and one that was not is gone', () => {
  const dir = join(folder, 'store');
  const page = randomBytes(PAGE_BYTES);
  const first = new PageStore(dir, 16);
  const id = idOf(first.seed, page);
  first.put([1], id, page);
  first.keep();
  const second = new PageStore(dir, 16);
  expect([second.top, second.seed.equals(first.seed), second.idsFrom(1, 1).equals(id)]).toEqual([2, true, true]);
  const read = Buffer.alloc(PAGE_BYTES);
  second.read(1, 1, read);
  expect(read.equals(page)).toBe(true);
  second[Symbol.dispose]();
  expect(existsSync(dir)).toBe(false);
});
