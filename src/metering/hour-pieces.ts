/** An interval in pieces that do not cross a full hour (UTC). Pure. */
import { mapQuantities } from './ledger-chain.ts';
import type { Quantities } from './ledger-chain.ts';

export const HOUR_MS = 3_600_000;

export type Piece = Quantities & { readonly fromMs: number; readonly toMs: number };

/**
 * Each piece has the part of the whole that its time is, to the unit below, and what that leaves goes to a later one: the pieces' sum is the whole. An
 * interval without time is one piece. Nothing was used before `usedFromMs`, if it lies within.
 */
export function piecesOf(fromMs: number, toMs: number, whole: Quantities, usedFromMs = fromMs): readonly Piece[] {
  const firstMs = Math.max(fromMs, Math.min(usedFromMs, toMs - 1));
  const spanMs = BigInt(toMs - firstMs);
  if (spanMs <= 0n || hourOf(fromMs) === hourOf(toMs - 1)) return [{ ...whole, fromMs, toMs }];
  const pieces: Piece[] = [];
  let before = shareOf(whole, 0n, spanMs);
  for (let atMs = fromMs; atMs < toMs;) {
    const endMs = Math.min(toMs, hourOf(atMs) + HOUR_MS);
    const upTo = shareOf(whole, BigInt(Math.max(0, endMs - firstMs)), spanMs);
    pieces.push({ ...differenceOf(upTo, before), fromMs: atMs, toMs: endMs });
    before = upTo;
    atMs = endMs;
  }
  return pieces;
}

/** The beginning of an instant's hour. */
export function hourOf(atMs: number): number {
  return Math.floor(atMs / HOUR_MS) * HOUR_MS;
}

function shareOf(whole: Quantities, part: bigint, of: bigint): Quantities {
  return mapQuantities((name) => (whole[name] * part) / of);
}

function differenceOf(one: Quantities, other: Quantities): Quantities {
  return mapQuantities((name) => one[name] - other[name]);
}
