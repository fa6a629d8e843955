/** Random choices that a seed decides: the same seed gives the same inputs on every machine. */

export interface Random {
  /** An integer in `[0, bound)`. */
  below(bound: number): number;
  /** True in one of `of` cases. */
  once(of: number): boolean;
  pick<T>(list: readonly [T, ...T[]]): T;
  /** `least` to `most` values of `make`. */
  many<T>(range: readonly [least: number, most: number], make: () => T): T[];
}

/** Mulberry32: a word of state, passes the usual tests, needs no big integers. */
export function createRandom(seed: number): Random {
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word = (word + Math.imul(word ^ (word >>> 7), word | 61)) ^ word;
    return (word ^ (word >>> 14)) >>> 0;
  };
  const below = (bound: number): number => next() % bound;
  return {
    below,
    once: (of) => below(of) === 0,
    pick: ([first, ...others]) => {
      const index = below(others.length + 1);
      return index === 0 ? first : (others[index - 1] ?? first);
    },
    many: ([least, most], make) => Array.from({ length: least + below(most - least + 1) }, make),
  };
}
