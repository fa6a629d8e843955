/**
 * What processor time took from the wall: an estimate. A host that draws `watts` with all of its `processors` busy is taken to draw that much by the second
 * of each; what it draws when nobody works is nobody's. `pue` (power usage effectiveness, ISO/IEC 30134-2) is what cooling and supply take on top. Pure.
 */
import { MICROS, parseMicros } from './money.ts';

export interface EnergyModel {
  /** Decimals with up to six places, as prices. */
  readonly watts: string;
  readonly processors: number;
  readonly pue: string;
}

const HOUR_NS = 3_600_000_000_000n;

/** Millionths of a watt-hour, to the nearest below. */
export function energyMicroWh(cpuNs: bigint, { watts, processors, pue }: EnergyModel): bigint {
  const drawn = (parseMicros(watts) ?? 0n) * (parseMicros(pue) ?? 0n);
  return (cpuNs * drawn) / (BigInt(processors) * MICROS * HOUR_NS);
}
