/** A number from 0 up to 1 that belongs to a text: the same on every node, after every start, and spread evenly over texts. */
import { hash } from 'node:crypto';

/** 48 bits, which a double holds exactly. */
const HEX_DIGITS = 12;
const RANGE = 2 ** 48;

export function steadyShare(seed: string): number {
  return Number.parseInt(hash('sha256', seed, 'hex').slice(0, HEX_DIGITS), 16) / RANGE;
}
