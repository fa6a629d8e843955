/**
 * Names pages by their content, under a key: 128 bits a page, several GB/s on one thread.
 *
 * The key is drawn for each store, so that whoever writes the pages cannot look for two of one name (docs/decisions/014-pre-copy.md has the bound).
 * It is no hash to keep: what it names is compared within one store, by those who hold the key.
 */
import { createHash } from 'node:crypto';
import { EcluseError } from '#errors';
import {
  FINAL_KEY_AT,
  FINAL_KEY_BYTES,
  IDS_AT,
  ID_BYTES,
  NH_KEY_BYTES,
  PAGES_AT,
  PAGES_PER_CALL,
  PAGE_BYTES,
  pageHashModule,
} from './page-hash-module.ts';

/** What is used of WebAssembly: the types for Node have none of it. */
interface WasmMemory {
  readonly buffer: ArrayBuffer;
}
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
  readonly Memory: new (descriptor: { readonly initial: number }) => WasmMemory;
};

export { ID_BYTES, PAGES_PER_CALL, PAGE_BYTES } from './page-hash-module.ts';
export const SEED_BYTES = 32;
/** 32-bit words of a page's name. */
export const ID_WORDS = ID_BYTES / 4;

export interface PageHasher {
  /** Where pages are put, at most PAGES_PER_CALL. */
  readonly input: Buffer;
  /** Their names after `hash`, ID_WORDS words each. */
  readonly ids: Uint32Array;
  /** Names the first `pages` pages of the input. */
  hash(pages: number): void;
}

/** The parts of the key that a seed stands for. */
export function pageHashKey(seed: Buffer): { readonly nh: Buffer; readonly final: Buffer } {
  const key = createHash('shake256', { outputLength: NH_KEY_BYTES + FINAL_KEY_BYTES })
    .update('ecluse page hash 1')
    .update(seed)
    .digest();
  return { nh: key.subarray(0, NH_KEY_BYTES), final: key.subarray(NH_KEY_BYTES) };
}

function isHash(exported: unknown): exported is (pages: number) => void {
  return typeof exported === 'function';
}

/** Compiled once a thread. */
let compiled: object | undefined;

export function createPageHasher(seed: Buffer): PageHasher {
  compiled ??= new WebAssembly.Module(pageHashModule());
  const { exports } = new WebAssembly.Instance(compiled);
  const { memory, hash } = exports;
  if (!(memory instanceof WebAssembly.Memory) || !isHash(hash)) {
    throw new EcluseError({
      code: 'ECLUSE_PAGE_HASH',
      source: 'internal',
      message: 'the module of the page hash lacks an export',
    });
  }
  const { buffer } = memory;
  const { nh, final } = pageHashKey(seed);
  Buffer.from(buffer, 0, NH_KEY_BYTES).set(nh);
  Buffer.from(buffer, FINAL_KEY_AT, FINAL_KEY_BYTES).set(final);
  return {
    input: Buffer.from(buffer, PAGES_AT, PAGES_PER_CALL * PAGE_BYTES),
    ids: new Uint32Array(buffer, IDS_AT, PAGES_PER_CALL * ID_WORDS),
    hash: (pages) => {
      if (pages < 1 || pages > PAGES_PER_CALL) throw new RangeError(`page hash: ${String(pages)} pages`);
      hash(pages);
    },
  };
}
