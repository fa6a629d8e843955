/**
 * The WebAssembly module behind page-hash.ts, put together at start: UMAC's NH over the 1024 words of a page, four times with the key moved on
 * by four words (RFC 4418, section 5.2), then a multilinear hash of the four 64-bit sums into four 32-bit words.
 *
 * It exports `memory` and `hash(pages)`, which reads pages from PAGES_AT and writes 16 bytes a page to IDS_AT.
 */

export const PAGE_BYTES = 4096;
/** Pages for one call: they fit into a core's second-level cache between being read and being hashed. */
export const PAGES_PER_CALL = 64;
export const ID_BYTES = 16;
const PASSES = 4;
/** A vector of four words for each 16 bytes of a page, and those that the later passes move on to. */
export const NH_KEY_BYTES = PAGE_BYTES + 16 * (PASSES - 1);
const SUM_WORDS = 2 * PASSES;
const ID_WORDS = 4;
/** For each word of an id, one 64-bit key for each word of the sums and one to begin with. */
export const FINAL_KEY_BYTES = ID_WORDS * (SUM_WORDS + 1) * 8;
export const FINAL_KEY_AT = 4608;
export const IDS_AT = 8192;
export const PAGES_AT = 65_536;
const MEMORY_PAGES = (PAGES_AT + PAGES_PER_CALL * PAGE_BYTES) / 65_536;

type Code = readonly number[];

function unsigned(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signed(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    const isLast = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}

const I32 = 0x7f;
const I64 = 0x7e;
const V128 = 0x7b;
const NO_RESULT = 0x40;

const get = (local: number): Code => [0x20, ...unsigned(local)];
const set = (local: number): Code => [0x21, ...unsigned(local)];
const i32 = (value: number): Code => [0x41, ...signed(value)];
const i64 = (value: number): Code => [0x42, ...signed(value)];
const I32_ADD: Code = [0x6a];
const I32_SHL: Code = [0x74];
const I32_LT_U: Code = [0x49];
const I64_ADD: Code = [0x7c];
const I64_MUL: Code = [0x7e];
const I64_AND: Code = [0x83];
const I64_SHR_U: Code = [0x88];
/** 0xffff_ffff: written as a constant it would be beyond what `signed` takes. */
const LOW_WORD: Code = [...i64(-1), ...i64(32), ...I64_SHR_U];
const END: Code = [0x0b];
/** Alignments are hints; 0 promises nothing. */
const i64Load = (offset: number): Code => [0x29, 0, ...unsigned(offset)];
const i64Store32 = (offset: number): Code => [0x3e, 0, ...unsigned(offset)];
const simd = (operation: number): Code => [0xfd, ...unsigned(operation)];
const vectorLoad = (offset: number): Code => [...simd(0), 0, ...unsigned(offset)];
const VECTOR_ZERO: Code = [...simd(12), ...Array.from({ length: 16 }, () => 0)];
const I32X4_ADD = simd(0xae);
const I64X2_ADD = simd(0xce);
const I64X2_EXTMUL_LOW_U = simd(0xde);
const I64X2_EXTMUL_HIGH_U = simd(0xdf);
const i64x2Lane = (lane: number): Code => [...simd(0x1d), lane];

/** Locals of `hash`: its parameter, then as declared. */
const COUNT = 0;
const PAGE = 1;
const AT = 2;
const OUT = 3;
const STOP = 4;
const WORDS = 5; // SUM_WORDS of them
const MESSAGE = WORDS + SUM_WORDS; // 2
const KEYS = MESSAGE + 2; // PASSES + 1
const SUMS = KEYS + PASSES + 1; // PASSES
const LOCALS: readonly (readonly [count: number, type: number])[] = [
  [4, I32],
  [SUM_WORDS, I64],
  [2 + PASSES + 1 + PASSES, V128],
];

const range = (count: number): readonly number[] => [...Array(count).keys()];

/** 32 bytes of the page at PAGE + AT: words that are four apart make a product, in each pass with another part of the key. */
function nhStep(): Code {
  return [
    ...range(2).flatMap((half) => [...get(PAGE), ...get(AT), ...I32_ADD, ...vectorLoad(16 * half), ...set(MESSAGE + half)]),
    ...range(PASSES + 1).flatMap((key) => [...get(AT), ...vectorLoad(16 * key), ...set(KEYS + key)]),
    ...range(PASSES).flatMap((pass) => {
      const halves = range(2).flatMap((half) => [...get(MESSAGE + half), ...get(KEYS + pass + half), ...I32X4_ADD]);
      return [
        ...get(SUMS + pass),
        ...halves,
        ...I64X2_EXTMUL_LOW_U,
        ...I64X2_ADD,
        ...halves,
        ...I64X2_EXTMUL_HIGH_U,
        ...I64X2_ADD,
        ...set(SUMS + pass),
      ];
    }),
    ...get(AT),
    ...i32(32),
    ...I32_ADD,
    ...set(AT),
  ];
}

/** Splits the sums into words of 32 bits, and writes an id. */
function finalStep(): Code {
  const sums = range(PASSES).flatMap((pass) => [
    ...[0, 1].flatMap((lane) => [...get(SUMS + pass), ...i64x2Lane(lane)]),
    ...I64_ADD,
    ...set(WORDS + 2 * pass),
    ...get(WORDS + 2 * pass),
    ...i64(32),
    ...I64_SHR_U,
    ...set(WORDS + 2 * pass + 1),
    ...get(WORDS + 2 * pass),
    ...LOW_WORD,
    ...I64_AND,
    ...set(WORDS + 2 * pass),
  ]);
  const ids = range(ID_WORDS).flatMap((word) => {
    const keyAt = FINAL_KEY_AT + word * (SUM_WORDS + 1) * 8;
    return [
      ...get(OUT),
      ...i32(0),
      ...i64Load(keyAt + SUM_WORDS * 8),
      ...range(SUM_WORDS).flatMap((at) => [...get(WORDS + at), ...i32(0), ...i64Load(keyAt + 8 * at), ...I64_MUL, ...I64_ADD]),
      ...i64(32),
      ...I64_SHR_U,
      ...i64Store32(IDS_AT + 4 * word),
    ];
  });
  return [...sums, ...ids];
}

function hashBody(): Code {
  const whilst = (condition: Code, body: Code): Code => [0x03, NO_RESULT, ...body, ...condition, 0x0d, 0, ...END];
  const page: Code = [
    ...range(PASSES).flatMap((pass) => [...VECTOR_ZERO, ...set(SUMS + pass)]),
    ...i32(0),
    ...set(AT),
    ...whilst([...get(AT), ...i32(PAGE_BYTES), ...I32_LT_U], [...nhStep(), ...nhStep()]),
    ...finalStep(),
    ...get(OUT),
    ...i32(ID_BYTES),
    ...I32_ADD,
    ...set(OUT),
    ...get(PAGE),
    ...i32(PAGE_BYTES),
    ...I32_ADD,
    ...set(PAGE),
  ];
  return [
    ...i32(PAGES_AT),
    ...set(PAGE),
    ...get(COUNT),
    ...i32(12), // log2 of PAGE_BYTES
    ...I32_SHL,
    ...i32(PAGES_AT),
    ...I32_ADD,
    ...set(STOP),
    ...whilst([...get(PAGE), ...get(STOP), ...I32_LT_U], page),
    ...END,
  ];
}

const sized = (code: Code): Code => [...unsigned(code.length), ...code];
const section = (id: number, code: Code): Code => [id, ...sized(code)];
const named = (name: string): Code => sized([...Buffer.from(name)]);

/** At least one page must be asked for: the loops look at their end only after a turn. */
export function pageHashModule(): Uint8Array<ArrayBuffer> {
  const locals = [...unsigned(LOCALS.length), ...LOCALS.flatMap(([count, type]) => [...unsigned(count), type])];
  return Uint8Array.from([
    0x00, // "\0asm", version 1.
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0,
    ...section(1, [1, 0x60, 1, I32, 0]), // One type: (i32) -> ().
    ...section(3, [1, 0]), // One function, of that type.
    ...section(5, [1, 1, ...unsigned(MEMORY_PAGES), ...unsigned(MEMORY_PAGES)]),
    ...section(7, [2, ...named('memory'), 2, 0, ...named('hash'), 0, 0]),
    ...section(10, [1, ...sized([...locals, ...hashBody()])]),
  ]);
}
