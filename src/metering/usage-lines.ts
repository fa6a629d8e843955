/**
 * Lines of use: one for each container, kind of use, tariff and price book. Pure.
 *
 * A tenant can have any number of containers that come and go: quotas say how many there are at once. A million lines are read by nobody, and neither they
 * nor their JSON fit into memory, so those of brief use share lines where there are many.
 */
import type { HourPrices, Tariff } from './hour-prices.ts';
import { isVolumeKey } from './ledger-chain.ts';
import type { Quantities } from './ledger-chain.ts';
import { divideHalfEven } from './money.ts';
import { SKUS } from './skus.ts';
import type { PriceKey, Sku } from './skus.ts';

/** What a container used in one hour of UTC. */
export interface PricedHour extends Quantities {
  readonly container: string;
  readonly name: string;
  readonly startMs: number;
}

export interface UsageLine {
  readonly kind: 'usage';
  readonly container: string;
  readonly name: string;
  readonly sku: PriceKey;
  readonly tariff: Tariff;
  /** Of the price book. */
  readonly version: number;
  readonly fromMs: number;
  readonly toMs: number;
  /** In the unit of the ledger: nanoseconds, byte·ms, bytes, requests. */
  readonly quantity: bigint;
  /** Of one unit, in millionths. */
  readonly unitPriceMicros: bigint;
  readonly listPriceMicros: bigint;
  readonly amountMicros: bigint;
}

/**
 * What is done with containers and volumes of brief use: each has lines of its own, or all of them share some. `by-number`: they share lines where there are
 * more than `BRIEF_MAX`.
 */
export type BriefUse = 'by-number' | 'apart' | 'shared';

/**
 * With so many an invoice is made, written down and read again in some 50 ms each, in which the node does nothing else. Those of longer use are listed in any
 * case: quotas and the hours of a month bound how many there can be.
 */
export const BRIEF_MAX = 1000;
const HOUR_MS = 3_600_000;

/** What lines of brief use stand for: ids that no container and no volume has. */
const SHARED = {
  containers: { container: 'brief', name: 'containers of less than two hours' },
  volumes: { container: 'volume/brief', name: 'of less than two hours' },
} as const;

/** Whether an invoice has lines that several containers or volumes share. */
export function hasSharedLines(lines: readonly { readonly kind: string; readonly container?: string }[]): boolean {
  return lines.some(
    ({ kind, container }) =>
      kind === 'usage' && (container === SHARED.containers.container || container === SHARED.volumes.container),
  );
}

/** A line without its amount, which is rounded once, when all of it is there. */
export interface Gathered {
  readonly line: Omit<UsageLine, 'amountMicros' | 'quantity' | 'fromMs' | 'toMs'>;
  readonly sku: Sku;
  quantity: bigint;
  fromMs: number;
  toMs: number;
}

/** Adds an hour's use of a kind to the line that it is of. */
export function gather(gathered: Map<string, Gathered>, hour: PricedHour, sku: Sku, prices: HourPrices): void {
  const quantity = hour[sku.quantity];
  const { unit, list } = prices.of(sku);
  if (quantity === 0n || (unit === 0n && list === 0n)) return;
  const { container, name, startMs } = hour;
  const { version, tariff } = prices;
  const line = { kind: 'usage', container, name, sku: sku.price, tariff, version } as const;
  join(gathered, {
    line: { ...line, unitPriceMicros: unit, listPriceMicros: list },
    sku,
    quantity,
    fromMs: startMs,
    toMs: startMs + HOUR_MS,
  });
}

function join(gathered: Map<string, Gathered>, more: Gathered): void {
  const { container, sku, tariff, version } = more.line;
  const key = `${container} ${sku} ${tariff} ${String(version)}`;
  const before = gathered.get(key);
  if (before === undefined) {
    gathered.set(key, more);
    return;
  }
  before.quantity += more.quantity;
  before.fromMs = Math.min(before.fromMs, more.fromMs);
  before.toMs = Math.max(before.toMs, more.toMs);
}

export interface GatheredUse {
  /** Everything of one container or volume. */
  readonly add: (hours: readonly PricedHour[], gathered: readonly Gathered[]) => void;
  readonly lines: () => { readonly lines: readonly UsageLine[]; readonly notes: readonly string[] };
}

export function gatherUse(briefUse: BriefUse): GatheredUse {
  const own: UsageLine[] = [];
  const brief: UsageLine[] = [];
  const shared = new Map<string, Gathered>();
  let briefCount = 0;
  const isShared = (): boolean => briefUse === 'shared' || (briefUse === 'by-number' && briefCount > BRIEF_MAX);
  return {
    add: (hours, gathered) => {
      if (gathered.length === 0) return;
      if (briefUse === 'apart' || !isBrief(hours)) {
        own.push(...gathered.map(lineOf));
        return;
      }
      briefCount += 1;
      if (isShared()) brief.length = 0;
      else brief.push(...gathered.map(lineOf));
      for (const one of gathered) {
        const stands = isVolumeKey(one.line.container) ? SHARED.volumes : SHARED.containers;
        join(shared, { ...one, line: { ...one.line, ...stands } });
      }
    },
    lines: () => ({
      lines: [...own, ...(isShared() ? [...shared.values()].map(lineOf) : brief)].toSorted(byNameAndKind),
      notes: isShared() && briefCount > 0 ? [sharedNote(briefCount)] : [],
    }),
  };
}

function sharedNote(count: number): string {
  return `${String(count)} containers and volumes of less than two hours share lines, because they are many; see: ecluse usage --by container`;
}

/** Used in one hour of the clock or in two that follow each other: for less than two hours. Hours are what an invoice knows. */
function isBrief(hours: readonly PricedHour[]): boolean {
  const first = hours.reduce((least, { startMs }) => Math.min(least, startMs), Number.POSITIVE_INFINITY);
  return hours.every(({ startMs }) => startMs - first <= HOUR_MS);
}

function lineOf({ line, sku, quantity, fromMs, toMs }: Gathered): UsageLine {
  const amountMicros = divideHalfEven(quantity * line.unitPriceMicros, sku.unitSize);
  const { unitPriceMicros, listPriceMicros, ...what } = line;
  return { ...what, fromMs, unitPriceMicros, listPriceMicros, quantity, toMs, amountMicros };
}

function byNameAndKind(one: UsageLine, other: UsageLine): number {
  return one.name.localeCompare(other.name) || one.container.localeCompare(other.container) || order(one.sku) - order(other.sku);
}

function order(key: PriceKey): number {
  return SKUS.findIndex(({ price }) => price === key);
}
