/** Randomness that can be repeated: the same seed gives the same fleet, on any machine. */

export interface Random {
  /** In [0, 1). */
  readonly unit: () => number;
  readonly between: (least: number, most: number) => number;
  readonly pick: <T>(list: readonly T[]) => T | undefined;
  /** Bounded Pareto: few are large, and those hold most of the sum. */
  readonly pareto: (shape: number, least: number, most: number) => number;
  readonly logNormal: (median: number, sigma: number) => number;
  readonly exponential: (mean: number) => number;
}

/** A number in [0, 1) for a seed and a place: noise that needs no memory of what was drawn before. */
export function noiseAt(seed: number, place: number): number {
  let mixed = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(place + 0x7f4a7c15, 0xc2b2ae35);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
  return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
}

export function openRandom(seed: number): Random {
  let turn = 0;
  const unit = (): number => {
    turn += 1;
    return noiseAt(seed, turn);
  };
  return {
    unit,
    between: (least, most) => least + unit() * (most - least),
    pick: (list) => list[Math.floor(unit() * list.length)],
    pareto: (shape, least, most) => {
      const ratio = (least / most) ** shape;
      return least / (1 - unit() * (1 - ratio)) ** (1 / shape);
    },
    logNormal: (median, sigma) => {
      const normal = Math.sqrt(-2 * Math.log(1 - unit())) * Math.cos(2 * Math.PI * unit());
      return median * Math.exp(sigma * normal);
    },
    exponential: (mean) => -mean * Math.log(1 - unit()),
  };
}
