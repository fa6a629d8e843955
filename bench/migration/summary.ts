/** Many windows become one row: medians, p99, worst, sums. Pure. */
import { quantile } from '../machine.ts';
import type { KindSeen, Seen, StreamSeen } from './clients/seen.ts';
import { REQUEST_KINDS } from './clients/seen.ts';

export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly worst: number;
}

export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const [p50, p99] = [quantile(values, 0.5), quantile(values, 0.99)];
  return { p50: rounded(p50), p99: rounded(p99), worst: rounded(Math.max(...values)) };
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

export function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** Counts by name, added up. */
export function addedUp(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [name, value] of counts.flatMap((each) => Object.entries(each))) sums[name] = (sums[name] ?? 0) + value;
  return sums;
}

/** What clients saw over all windows. `blackoutMs` is what goals speak of: the longest time in which no request at all was answered. */
export function clientsSeen(windows: readonly Seen[]): object {
  const requests = windows.map((window) => window.requests);
  return {
    blackoutMs: spreadOf(requests.map(({ gapMs }) => gapMs)),
    latencyWorstMs: spreadOf(requests.map(({ latencyWorstMs }) => latencyWorstMs)),
    requests: sumOf(requests.map((seen) => seen.requests)),
    failed: sumOf(requests.map(({ failed }) => failed)),
    failures: addedUp(requests.map(({ failures }) => failures)),
    boots: new Set(requests.flatMap(({ boots }) => boots)).size,
    kinds: Object.fromEntries(REQUEST_KINDS.map((kind) => [kind, kindSeen(requests.map(({ kinds }) => kinds[kind]))])),
    events: streamsSeen(windows.map(({ events }) => events)),
    webSockets: streamsSeen(windows.map(({ webSockets }) => webSockets)),
    clientLateMs: spreadOf(requests.map(({ clientLateMs }) => clientLateMs)),
  };
}

function kindSeen(seen: readonly KindSeen[]): object {
  return {
    requests: sumOf(seen.map(({ requests }) => requests)),
    failed: sumOf(seen.map(({ failed }) => failed)),
    gapMs: spreadOf(seen.map(({ gapMs }) => gapMs)),
    latencyP50Ms: spreadOf(seen.map(({ latencyP50Ms }) => latencyP50Ms)),
    latencyWorstMs: spreadOf(seen.map(({ latencyWorstMs }) => latencyWorstMs)),
  };
}

function streamsSeen(seen: readonly StreamSeen[]): object {
  return {
    clients: seen[0]?.clients ?? 0,
    messages: sumOf(seen.map(({ messages }) => messages)),
    missed: sumOf(seen.map(({ missed }) => missed)),
    duplicated: sumOf(seen.map(({ duplicated }) => duplicated)),
    ends: addedUp(seen.map(({ ends }) => ends)),
    gapMs: spreadOf(seen.map(({ gapMs }) => gapMs)),
  };
}
