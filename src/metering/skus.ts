/** What is sold: each a quantity of the ledger with the unit that it is priced by. */
import type { Quantities } from './ledger-chain.ts';

export interface Sku {
  /** The key of its price in a price book. */
  readonly price:
    | 'vcpuHour'
    | 'memoryGibHour'
    | 'egressGb'
    | 'ingressGb'
    | 'millionRequests'
    | 'snapshotGibMonth'
    | 'diskGibMonth'
    | 'streamHour';
  readonly quantity: keyof Quantities;
  /** How much of the quantity one unit is. */
  readonly unitSize: bigint;
  readonly unit: string;
  readonly about: string;
}

const HOUR_MS = 3_600_000n;
const GIB = 1024n ** 3n;
/** A month of prices is 730 hours, whatever the calendar says: a twelfth of 365 days. */
const MONTH_MS = 730n * HOUR_MS;

export const SKUS: readonly Sku[] = [
  { price: 'vcpuHour', quantity: 'cpuNs', unitSize: HOUR_MS * 1_000_000n, unit: 'vCPU-Hours', about: 'Processor time' },
  { price: 'memoryGibHour', quantity: 'memoryByteMs', unitSize: GIB * HOUR_MS, unit: 'GiB-Hours', about: 'Memory' },
  { price: 'egressGb', quantity: 'egressBytes', unitSize: 1_000_000_000n, unit: 'GB', about: 'Bytes to end users' },
  { price: 'ingressGb', quantity: 'ingressBytes', unitSize: 1_000_000_000n, unit: 'GB', about: 'Bytes from end users' },
  { price: 'millionRequests', quantity: 'requests', unitSize: 1_000_000n, unit: '1000000 Requests', about: 'Requests' },
  { price: 'snapshotGibMonth', quantity: 'snapshotByteMs', unitSize: GIB * MONTH_MS, unit: 'GiB-Months', about: 'Snapshots' },
  { price: 'diskGibMonth', quantity: 'diskByteMs', unitSize: GIB * MONTH_MS, unit: 'GiB-Months', about: 'Disk' },
  { price: 'streamHour', quantity: 'streamMs', unitSize: HOUR_MS, unit: 'Connection-Hours', about: 'Open streams' },
];
export type PriceKey = Sku['price'];
