/**
 * The page exchange on the wire. A frame is its length (4 bytes, little-endian, of the payload alone), its kind (1 byte), and the payload.
 *
 *   source                                     sink
 *   hello    who, which migration, token   →
 *                                          ←   welcome  version, seed of the page hash, places, how many pages it holds
 *                                          ←   held     their ids, where it holds any
 *   round    number                        →
 *   pages    places, ids, content          →
 *                                          ←   ack      bytes of frames taken in
 *   roundEnd number                        →
 *                                          ←   roundKept number
 *   pages, order, file …                   →            the final pass
 *   done     sizes and digests             →
 *                                          ←   assembled
 *   failed   code and reason               ↔            ends it
 *
 * There is no "misses": a place is filled by the source alone, on a channel that keeps the order, so it knows what the sink has.
 * INVARIANT: every count and length is checked against its bound before anything is made or read by it.
 */
import { brokenPeer, FAILURE_BYTES_MAX } from './page-errors.ts';
import { ID_BYTES, PAGE_BYTES, SEED_BYTES } from './page-hash.ts';

export const PROTOCOL_VERSION = 1;
export const HEADER_BYTES = 5;
export const PAGES_PER_FRAME = 256;
/** Places in one `held`. */
export const HELD_PER_FRAME = 32_768;
export const RUNS_PER_FRAME = 2048;
/** Pages that one `order` may stand for: it is carried out at once, 16 MiB at most. */
export const ORDER_PAGES_MAX = 4096;
export const FILE_PART_BYTES = 1024 * 1024;
const MAGIC = 'eclpages';
const ALGORITHM_NH128 = 1;
const DIGEST_BYTES = 32;
const TOKEN_BYTES = 32;
const MIGRATION_BYTES = 16;

export const frameKinds = {
  hello: 1,
  welcome: 2,
  held: 3,
  round: 4,
  pages: 5,
  ack: 6,
  roundEnd: 7,
  roundKept: 8,
  order: 9,
  file: 10,
  done: 11,
  assembled: 12,
  failed: 13,
} as const;
export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds];

const HELLO_BYTES = MAGIC.length + 4 + 4 + 4 + MIGRATION_BYTES + 8 + TOKEN_BYTES;
const WELCOME_BYTES = 4 + SEED_BYTES + 4 + 4;
const DONE_BYTES = 8 + 3 * DIGEST_BYTES;
/** Encoding and count, before the places. */
const PAGES_HEAD_BYTES = 8;
const PAGES_META_BYTES_MAX = PAGES_HEAD_BYTES + PAGES_PER_FRAME * (4 + ID_BYTES);

/** The longest payload of each kind. */
const PAYLOAD_MAX: Readonly<Record<number, number>> = {
  [frameKinds.hello]: HELLO_BYTES,
  [frameKinds.welcome]: WELCOME_BYTES,
  [frameKinds.held]: HELD_PER_FRAME * ID_BYTES,
  [frameKinds.round]: 4,
  [frameKinds.pages]: PAGES_META_BYTES_MAX + PAGES_PER_FRAME * PAGE_BYTES,
  [frameKinds.ack]: 8,
  [frameKinds.roundEnd]: 4,
  [frameKinds.roundKept]: 4,
  [frameKinds.order]: RUNS_PER_FRAME * 8,
  [frameKinds.file]: 4 + FILE_PART_BYTES,
  [frameKinds.done]: DONE_BYTES,
  [frameKinds.assembled]: 16,
  [frameKinds.failed]: FAILURE_BYTES_MAX,
};

export function frameHead(kind: FrameKind, payloadBytes: number): Buffer {
  const head = Buffer.allocUnsafe(HEADER_BYTES);
  head.writeUInt32LE(payloadBytes, 0);
  head.writeUInt8(kind, 4);
  return head;
}

export function frame(kind: FrameKind, ...parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat([
    frameHead(
      kind,
      parts.reduce((sum, { length }) => sum + length, 0),
    ),
    ...parts,
  ]);
}

/** Cuts what arrives into frames. The payload it hands on is good until the handler returns. */
export class FrameReader {
  readonly #onFrame: (kind: FrameKind, payload: Buffer) => void;
  readonly #head = Buffer.alloc(HEADER_BYTES);
  #headBytes = 0;
  #payload = Buffer.alloc(0);
  #payloadBytes = 0;
  #wanted = 0;

  constructor(onFrame: (kind: FrameKind, payload: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** True in the middle of a frame. */
  get isInside(): boolean {
    return this.#headBytes > 0;
  }

  push(chunk: Buffer): void {
    let at = 0;
    for (;;) {
      if (this.#headBytes < HEADER_BYTES) {
        const taken = chunk.copy(this.#head, this.#headBytes, at);
        this.#headBytes += taken;
        at += taken;
        if (this.#headBytes < HEADER_BYTES) return;
        this.#begin();
      }
      const taken = chunk.copy(this.#payload, this.#payloadBytes, at, at + this.#wanted - this.#payloadBytes);
      this.#payloadBytes += taken;
      at += taken;
      if (this.#payloadBytes < this.#wanted) return;
      this.#headBytes = 0;
      this.#onFrame(kindOf(this.#head.readUInt8(4)), this.#payload.subarray(0, this.#wanted));
    }
  }

  #begin(): void {
    this.#wanted = this.#head.readUInt32LE(0);
    this.#payloadBytes = 0;
    const kind = this.#head.readUInt8(4);
    const max = PAYLOAD_MAX[kind];
    if (max === undefined) throw brokenPeer(`a frame of unknown kind ${String(kind)}`);
    if (this.#wanted > max) throw brokenPeer(`a frame of kind ${String(kind)} with ${String(this.#wanted)} bytes`);
    if (this.#payload.length < this.#wanted) this.#payload = Buffer.alloc(max);
  }
}

const KINDS: ReadonlySet<number> = new Set(Object.values(frameKinds));

function isKind(kind: number): kind is FrameKind {
  return KINDS.has(kind);
}

function kindOf(kind: number): FrameKind {
  if (!isKind(kind)) throw brokenPeer(`a frame of unknown kind ${String(kind)}`);
  return kind;
}

function expectLength(what: string, payload: Buffer, bytes: number): void {
  if (payload.length !== bytes) throw brokenPeer(`${what} has ${String(payload.length)} bytes`);
}

function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, 4 * at);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function readU64(payload: Buffer, at: number): number {
  const value = payload.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw brokenPeer('a number that is too large');
  return Number(value);
}

export interface Hello {
  readonly migrationId: string;
  readonly fencingToken: number;
  /** Hexadecimal. */
  readonly token: string;
}

export function encodeHello({ migrationId, fencingToken, token }: Hello): Buffer {
  return frame(
    frameKinds.hello,
    Buffer.from(MAGIC, 'latin1'),
    u32(PROTOCOL_VERSION, PAGE_BYTES, ALGORITHM_NH128),
    Buffer.from(migrationId.replaceAll('-', ''), 'hex'),
    u64(fencingToken),
    Buffer.from(token, 'hex'),
  );
}

export function decodeHello(payload: Buffer): Hello {
  expectLength('hello', payload, HELLO_BYTES);
  if (payload.toString('latin1', 0, MAGIC.length) !== MAGIC) throw brokenPeer('hello is none');
  const [version, pageBytes, algorithm] = [0, 4, 8].map((at) => payload.readUInt32LE(MAGIC.length + at));
  if (version !== PROTOCOL_VERSION || pageBytes !== PAGE_BYTES || algorithm !== ALGORITHM_NH128) {
    throw brokenPeer(`version ${String(version)}, pages of ${String(pageBytes)} bytes, hash ${String(algorithm)}`);
  }
  const id = payload.subarray(20, 20 + MIGRATION_BYTES).toString('hex');
  return {
    migrationId: [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20)].join('-'),
    fencingToken: readU64(payload, 36),
    token: payload.subarray(44).toString('hex'),
  };
}

export interface Welcome {
  readonly seed: Buffer;
  readonly slotsMax: number;
  /** Places below this hold pages of an earlier attempt; their ids follow. */
  readonly heldSlots: number;
}

export function encodeWelcome({ seed, slotsMax, heldSlots }: Welcome): Buffer {
  return frame(frameKinds.welcome, u32(PROTOCOL_VERSION), seed, u32(slotsMax, heldSlots));
}

export function decodeWelcome(payload: Buffer): Welcome {
  expectLength('welcome', payload, WELCOME_BYTES);
  const version = payload.readUInt32LE(0);
  if (version !== PROTOCOL_VERSION) throw brokenPeer(`version ${String(version)}`);
  const slotsMax = payload.readUInt32LE(4 + SEED_BYTES);
  const heldSlots = payload.readUInt32LE(8 + SEED_BYTES);
  if (slotsMax < 1 || slotsMax >= 2 ** 31 || heldSlots > slotsMax) throw brokenPeer('welcome with impossible numbers');
  return { seed: Buffer.from(payload.subarray(4, 4 + SEED_BYTES)), slotsMax, heldSlots };
}

export function encodeNumber(kind: 4 | 7 | 8, value: number): Buffer {
  return frame(kind, u32(value));
}

export function decodeNumber(payload: Buffer): number {
  expectLength('a number', payload, 4);
  return payload.readUInt32LE(0);
}

export function encodeAck(bytes: number): Buffer {
  return frame(frameKinds.ack, u64(bytes));
}

export function decodeAck(payload: Buffer): number {
  expectLength('ack', payload, 8);
  return readU64(payload, 0);
}

export interface PagesHead {
  /** See batch-encoding.ts. */
  readonly encoding: number;
  readonly count: number;
}

/** The frame's beginning; `places` and `ids` hold `count` entries, and `contentBytes` bytes follow. */
export function encodePagesHead(head: PagesHead, places: Buffer, ids: Buffer, contentBytes: number): Buffer {
  const metaBytes = PAGES_HEAD_BYTES + places.length + ids.length;
  return Buffer.concat([frameHead(frameKinds.pages, metaBytes + contentBytes), u32(head.encoding, head.count), places, ids]);
}

export function decodePages(payload: Buffer): PagesHead & {
  readonly places: readonly number[];
  readonly ids: Buffer;
  readonly content: Buffer;
} {
  if (payload.length < PAGES_HEAD_BYTES) throw brokenPeer('pages without a head');
  const encoding = payload.readUInt32LE(0);
  const count = payload.readUInt32LE(4);
  const idsAt = PAGES_HEAD_BYTES + 4 * count;
  const contentAt = idsAt + ID_BYTES * count;
  if (count < 1 || count > PAGES_PER_FRAME || contentAt > payload.length) throw brokenPeer(`${String(count)} pages in a frame`);
  const places: number[] = [];
  for (let at = PAGES_HEAD_BYTES; at < idsAt; at += 4) places.push(payload.readUInt32LE(at));
  return { encoding, count, places, ids: payload.subarray(idsAt, contentAt), content: payload.subarray(contentAt) };
}

/** Pages of the image that lie in the store one after the other. */
export interface PageRun {
  readonly slot: number;
  readonly count: number;
}

export function encodeOrder(runs: readonly PageRun[]): Buffer {
  return frame(frameKinds.order, u32(...runs.flatMap(({ slot, count }) => [slot, count])));
}

export function decodeOrder(payload: Buffer): readonly PageRun[] {
  if (payload.length === 0 || payload.length % 8 !== 0) throw brokenPeer(`an order of ${String(payload.length)} bytes`);
  const runs: PageRun[] = [];
  let pages = 0;
  for (let at = 0; at < payload.length; at += 8) {
    const run = { slot: payload.readUInt32LE(at), count: payload.readUInt32LE(at + 4) };
    pages += run.count;
    if (run.count < 1 || pages > ORDER_PAGES_MAX) throw brokenPeer('an order of too many pages, or of none');
    runs.push(run);
  }
  return runs;
}

export const imageFiles = ['checkpoint.img', 'pages_meta.img', 'pages.img'] as const;
export type ImageFile = (typeof imageFiles)[number];

/** A part of a file; for pages.img what is left behind its last whole page. */
export function encodeFilePart(file: ImageFile, bytes: Buffer): Buffer {
  return frame(frameKinds.file, u32(imageFiles.indexOf(file)), bytes);
}

export function decodeFilePart(payload: Buffer): { readonly file: ImageFile; readonly bytes: Buffer } {
  if (payload.length < 5) throw brokenPeer('a part of a file without bytes');
  const file = imageFiles[payload.readUInt32LE(0)];
  if (file === undefined) throw brokenPeer('a part of a file that no image has');
  return { file, bytes: payload.subarray(4) };
}

/** What the image must come to. */
export interface ImageSeal {
  readonly pagesBytes: number;
  /** sha256 over the ids of all pages in their order and over what is left behind the last. */
  readonly pagesDigest: Buffer;
  readonly checkpointDigest: Buffer;
  readonly metaDigest: Buffer;
}

export function encodeDone(seal: ImageSeal): Buffer {
  return frame(frameKinds.done, u64(seal.pagesBytes), seal.pagesDigest, seal.checkpointDigest, seal.metaDigest);
}

export function decodeDone(payload: Buffer): ImageSeal {
  expectLength('done', payload, DONE_BYTES);
  const digest = (index: number): Buffer =>
    Buffer.from(payload.subarray(8 + index * DIGEST_BYTES, 8 + (index + 1) * DIGEST_BYTES));
  return { pagesBytes: readU64(payload, 0), pagesDigest: digest(0), checkpointDigest: digest(1), metaDigest: digest(2) };
}

export function encodeAssembled(imageBytes: number, assembleMs: number): Buffer {
  return frame(frameKinds.assembled, u64(imageBytes), u64(Math.round(assembleMs)));
}

export function decodeAssembled(payload: Buffer): { readonly imageBytes: number; readonly assembleMs: number } {
  expectLength('assembled', payload, 16);
  return { imageBytes: readU64(payload, 0), assembleMs: readU64(payload, 8) };
}

export function encodeFailed(text: string): Buffer {
  return frame(frameKinds.failed, Buffer.from(text.slice(0, FAILURE_BYTES_MAX / 4)));
}
