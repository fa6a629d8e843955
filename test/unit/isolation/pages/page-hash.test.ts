import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { ID_BYTES, PAGES_PER_CALL, PAGE_BYTES, SEED_BYTES, createPageHasher, pageHashKey } from '#isolation/pages/page-hash.ts';

const WORD = 0xffff_ffffn;
const LONG = 0xffff_ffff_ffff_ffffn;

/** The same hash by the book, in whole numbers. */
function nameByTheBook(page: Buffer, seed: Buffer): string {
  const { nh, final } = pageHashKey(seed);
  const words: bigint[] = [];
  for (let pass = 0; pass < 4; pass += 1) {
    let sum = 0n;
    for (let at = 0; at < PAGE_BYTES; at += 32) {
      for (let word = at; word < at + 16; word += 4) {
        const left = (BigInt(page.readUInt32LE(word)) + BigInt(nh.readUInt32LE(word + 16 * pass))) & WORD;
        const right = (BigInt(page.readUInt32LE(word + 16)) + BigInt(nh.readUInt32LE(word + 16 + 16 * pass))) & WORD;
        sum = (sum + left * right) & LONG;
      }
    }
    words.push(sum & WORD, sum >> 32n);
  }
  const id = Buffer.alloc(ID_BYTES);
  for (let out = 0; out < 4; out += 1) {
    const keyAt = out * 72;
    let sum = final.readBigUInt64LE(keyAt + 64);
    for (const [at, word] of words.entries()) sum = (sum + word * final.readBigUInt64LE(keyAt + 8 * at)) & LONG;
    id.writeUInt32LE(Number(sum >> 32n), 4 * out);
  }
  return id.toString('hex');
}

function namesOf(pages: readonly Buffer[], seed: Buffer): readonly string[] {
  const hasher = createPageHasher(seed);
  for (const [at, page] of pages.entries()) hasher.input.set(page, at * PAGE_BYTES);
  hasher.hash(pages.length);
  return pages.map((_, at) => Buffer.from(hasher.ids.buffer, hasher.ids.byteOffset + at * ID_BYTES, ID_BYTES).toString('hex'));
}

test('pages get the names that the book gives them', () => {
  const seed = randomBytes(SEED_BYTES);
  const pages = [
    Buffer.alloc(PAGE_BYTES),
    Buffer.alloc(PAGE_BYTES, 0xff),
    ...Array.from({ length: 3 }, () => randomBytes(PAGE_BYTES)),
  ];
  expect(namesOf(pages, seed)).toEqual(pages.map((page) => nameByTheBook(page, seed)));
});

test('every bit of a page counts, and so does its place', () => {
  const seed = randomBytes(SEED_BYTES);
  const page = randomBytes(PAGE_BYTES);
  const flipped = (at: number): Buffer => {
    const copy = Buffer.from(page);
    copy.writeUInt8(copy.readUInt8(at >> 3) ^ (1 << (at & 7)), at >> 3);
    return copy;
  };
  const bits = Array.from({ length: PAGES_PER_CALL - 3 }, (_, at) => (at * 541) % (PAGE_BYTES * 8));
  const swapped = Buffer.concat([page.subarray(16, 32), page.subarray(0, 16), page.subarray(32)]);
  const turned = Buffer.concat([page.subarray(4), page.subarray(0, 4)]);
  const names = namesOf([page, swapped, turned, ...bits.map((bit) => flipped(bit))], seed);
  expect(new Set(names).size).toBe(PAGES_PER_CALL);
});

test('another seed gives other names', () => {
  const page = randomBytes(PAGE_BYTES);
  const [one] = namesOf([page], randomBytes(SEED_BYTES));
  const [other] = namesOf([page], randomBytes(SEED_BYTES));
  expect(one).not.toBe(other);
});

test('a call takes one page at least, and no more than fit', () => {
  const hasher = createPageHasher(randomBytes(SEED_BYTES));
  for (const pages of [0, -1, PAGES_PER_CALL + 1]) {
    expect(() => {
      hasher.hash(pages);
    }).toThrow(RangeError);
  }
});
