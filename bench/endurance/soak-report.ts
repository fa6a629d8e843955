/** The verdict of a soak and its tables. Pure. */
import type { Holding } from './edge-under-test.ts';
import { trendOf } from './trend.ts';
import type { Trend } from './trend.ts';

export interface Sample {
  readonly atMs: number;
  readonly holding: Holding;
  readonly files: number;
  /** Exchanges that ended so far. */
  readonly requests: number;
  /** Share of its core that the worker used since the sample before. */
  readonly cores: number;
  readonly clientConnections: number;
  readonly version: number;
}

/** What a worker holds at rest: before the load, and after it is gone. */
export interface Rest {
  readonly holding: Holding;
  readonly files: number;
}

export interface Return {
  readonly name: string;
  readonly before: number;
  readonly after: number;
  readonly returned: boolean;
}

const SERIES: readonly (readonly [string, (sample: Sample) => number])[] = [
  ['RSS MB', ({ holding }) => holding.rss / 1024 ** 2],
  ['heapUsed MB', ({ holding }) => holding.heapUsed / 1024 ** 2],
  ['external MB', ({ holding }) => holding.external / 1024 ** 2],
  ['arrayBuffers MB', ({ holding }) => holding.arrayBuffers / 1024 ** 2],
  ['handles', ({ holding }) => handlesOf(holding)],
  ['timers', ({ holding }) => timersOf(holding)],
  ['files', ({ files }) => files],
];
/** What the worker learns of many routes, clients and errors; beyond it something is kept. */
const HEAP_MB_SPARE = 8;
/** Buffers that are kept for the next long bodies: 64 of 128 KiB. */
const BUFFERS_MB_SPARE = 12;
const COUNT_SPARE = 2;

export function timersOf({ resources }: Holding): number {
  return (resources['Timeout'] ?? 0) + (resources['Immediate'] ?? 0);
}

export function handlesOf(holding: Holding): number {
  return Object.values(holding.resources).reduce((sum, count) => sum + count, 0) - timersOf(holding);
}

export function trendsOf(samples: readonly Sample[]): Trend[] {
  return SERIES.map(([name, read]) =>
    trendOf(
      name,
      samples.map((sample) => ({ atMs: sample.atMs, value: read(sample) })),
    ),
  );
}

/** Whether counts and memory went back when the load was gone. RSS is not asked: the allocator keeps what it may need again. */
export function returnsOf(before: Rest, after: Rest): Return[] {
  const of = (name: string, read: (rest: Rest) => number, spare: number): Return => {
    const [was, is] = [read(before), read(after)];
    return { name, before: was, after: is, returned: is <= was + spare };
  };
  return [
    of('handles', ({ holding }) => handlesOf(holding), COUNT_SPARE),
    of('timers', ({ holding }) => timersOf(holding), COUNT_SPARE),
    of('files', ({ files }) => files, COUNT_SPARE),
    of('heapUsed MB', ({ holding }) => holding.heapUsed / 1024 ** 2, HEAP_MB_SPARE),
    of('arrayBuffers MB', ({ holding }) => holding.arrayBuffers / 1024 ** 2, BUFFERS_MB_SPARE),
    of('external MB', ({ holding }) => holding.external / 1024 ** 2, BUFFERS_MB_SPARE),
  ];
}

export function trendTable(trends: readonly Trend[]): string {
  const head = [
    '| what | at half | at the end | per hour | ± (95 %) | of the mean | verdict |',
    '| --- | --- | --- | --- | --- | --- | --- |',
  ];
  const body = trends.map(({ name, first, last, perHour, perHourError, growthShare, verdict }) => {
    const cells = [
      name,
      digits(first),
      digits(last),
      digits(perHour),
      digits(perHourError),
      `${(100 * growthShare).toFixed(1)} %`,
      verdict,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return [...head, ...body].join('\n');
}

export function returnTable(returns: readonly Return[]): string {
  const head = ['| at rest | before | after | back |', '| --- | --- | --- | --- |'];
  return [
    ...head,
    ...returns.map((one) => `| ${one.name} | ${digits(one.before)} | ${digits(one.after)} | ${one.returned ? 'yes' : 'NO'} |`),
  ].join('\n');
}

function digits(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}
