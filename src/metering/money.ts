/** Amounts in millionths of a currency unit, as integers of any size. Pure: nothing here is ever a double. */

export const MICROS = 1_000_000n;

/** `12`, `0.0125`, `-3.5`: up to six decimals. Undefined where it is none. */
export function parseMicros(text: string): bigint | undefined {
  const found = /^(-?)(\d{1,12})(?:\.(\d{1,6}))?$/.exec(text);
  if (found === null) return undefined;
  const [, sign = '', whole = '0', part = ''] = found;
  const micros = BigInt(whole) * MICROS + BigInt(part.padEnd(6, '0'));
  return sign === '-' ? -micros : micros;
}

/** With all six decimals: `0.012500`. */
export function microsText(micros: bigint): string {
  return decimalText(micros, MICROS, 6);
}

/** The nearest integer to a quotient; half way between two it is the even one. `divisor` is above zero. */
export function divideHalfEven(dividend: bigint, divisor: bigint): bigint {
  const isNegative = dividend < 0n;
  const size = isNegative ? -dividend : dividend;
  const [quotient, rest] = [size / divisor, size % divisor];
  const isUp = rest * 2n > divisor || (rest * 2n === divisor && quotient % 2n === 1n);
  const rounded = isUp ? quotient + 1n : quotient;
  return isNegative ? -rounded : rounded;
}

/** A quotient with so many decimals, the last one rounded half to even. */
export function decimalText(dividend: bigint, divisor: bigint, digits: number): string {
  const scale = 10n ** BigInt(digits);
  const scaled = divideHalfEven(dividend * scale, divisor);
  const size = scaled < 0n ? -scaled : scaled;
  const whole = String(size / scale);
  const sign = scaled < 0n ? '-' : '';
  return digits === 0 ? `${sign}${whole}` : `${sign}${whole}.${String(size % scale).padStart(digits, '0')}`;
}
