/**
 * Which page of content lies at which place of a store: both ends keep one, and they stay the same because the source alone decides where a page
 * goes. Place 0 is the zero page, for ever.
 *
 * Open addressing in typed arrays: 24 bytes a place and no object. What is no longer in the memory is forgotten at the end of a round, and its
 * place taken again.
 */
import { ID_WORDS } from './page-hash.ts';

export const ZERO_SLOT = 0;
const SLOTS_FIRST = 4096;
const NONE = -1;

export class PageIndex {
  readonly #slotsMax: number;
  #ids = new Uint32Array(SLOTS_FIRST * ID_WORDS);
  /** The round that saw a place last; 0 is a place that is free. */
  #seen = new Uint32Array(SLOTS_FIRST);
  /** Place + 1 by the first word of the id; 0 is free. */
  #table = new Uint32Array(2 * SLOTS_FIRST);
  /** Places below this are or were taken. */
  #top = 0;
  #free: number[] = [];
  #round = 1;

  /** `zeroId`: the name of the zero page, which takes place 0. */
  constructor(slotsMax: number, zeroId: Uint32Array) {
    this.#slotsMax = slotsMax;
    this.put(ZERO_SLOT, zeroId, 0);
  }

  get top(): number {
    return this.#top;
  }

  /** Where the page lies whose id begins at `ids[at]`, or -1. `guess`: a place that is tried first. */
  find(ids: Uint32Array, at: number, guess: number): number {
    if (guess < this.#top && this.#seen[guess] !== 0 && this.#is(guess, ids, at)) return guess;
    const mask = this.#table.length - 1;
    for (let probe = (ids[at] ?? 0) & mask; ; probe = (probe + 1) & mask) {
      const entry = this.#table[probe] ?? 0;
      if (entry === 0) return NONE;
      if (this.#is(entry - 1, ids, at)) return entry - 1;
    }
  }

  /** A place for a new page, or -1 where the store is full. */
  take(ids: Uint32Array, at: number): number {
    const slot = this.#free.pop() ?? this.#top;
    if (slot >= this.#slotsMax) return NONE;
    this.put(slot, ids, at);
    return slot;
  }

  /** Names what lies at a place, known or new; a new one must be the next. */
  put(slot: number, ids: Uint32Array, at: number): void {
    if (slot === this.#top) {
      this.#top += 1;
      if (this.#top * ID_WORDS > this.#ids.length) this.#grow();
    }
    for (let word = 0; word < ID_WORDS; word += 1) this.#ids[slot * ID_WORDS + word] = ids[at + word] ?? 0;
    this.#seen[slot] = this.#round;
    this.#enter(slot);
  }

  see(slot: number): void {
    this.#seen[slot] = this.#round;
  }

  /** Forgets the pages that were not seen since the last call, and returns how many. */
  endRound(): number {
    const freeBefore = this.#free.length;
    this.#seen[ZERO_SLOT] = this.#round;
    this.#table.fill(0);
    for (let slot = this.#top - 1; slot >= 0; slot -= 1) {
      if (this.#seen[slot] === this.#round) this.#enter(slot);
      else if (this.#seen[slot] !== 0) {
        this.#seen[slot] = 0;
        this.#free.push(slot);
      }
    }
    this.#round += 1;
    return this.#free.length - freeBefore;
  }

  #is(slot: number, ids: Uint32Array, at: number): boolean {
    const from = slot * ID_WORDS;
    return (
      this.#ids[from] === ids[at] &&
      this.#ids[from + 1] === ids[at + 1] &&
      this.#ids[from + 2] === ids[at + 2] &&
      this.#ids[from + 3] === ids[at + 3]
    );
  }

  #enter(slot: number): void {
    const mask = this.#table.length - 1;
    let probe = (this.#ids[slot * ID_WORDS] ?? 0) & mask;
    while (this.#table[probe] !== 0) probe = (probe + 1) & mask;
    this.#table[probe] = slot + 1;
  }

  #grow(): void {
    const ids = new Uint32Array(2 * this.#ids.length);
    ids.set(this.#ids);
    this.#ids = ids;
    const seen = new Uint32Array(2 * this.#seen.length);
    seen.set(this.#seen);
    this.#seen = seen;
    this.#table = new Uint32Array(2 * this.#seen.length);
    for (let slot = 0; slot < this.#top - 1; slot += 1) if (this.#seen[slot] !== 0) this.#enter(slot);
  }
}
