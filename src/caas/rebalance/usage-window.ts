/**
 * What a container used over the last while: mean, 95th percentile and peak, in bounded memory however often it is sampled.
 *
 * A window is a ring of slices of time; a slice is a histogram of processor rates and one of memory. Buckets are as wide as an eighth of their
 * value, so a percentile is at most an eighth too large and never too small. Time enters as an argument.
 */
import type { Reading } from '#caas/meter.ts';
import type { UsageSummary } from './fleet-facts.ts';

export interface UsageWindowOptions {
  readonly sliceMs: number;
  readonly slices: number;
}

/** An hour: longer than bursts, and short enough that a plan in the morning does not know the evening's load. 4 KiB a container. */
export const USAGE_WINDOW: UsageWindowOptions = { sliceMs: 10 * 60_000, slices: 6 };

/** Memory in quarters of a MiB: the smallest containers have some MiB. */
const MEMORY_UNIT_BYTES = 256 * 1024;
/** Buckets for each power of two. */
const SUB_BUCKETS = 8;
/** Values up to 2^22 units: 4000 processors, 1 TiB. Larger ones count as that. */
const OCTAVES = 22;
const BUCKETS = (OCTAVES - 2) * SUB_BUCKETS;
const COUNT_MAX = 65_535;
/** Below it a rate is mostly the grain of the clock. */
const SPAN_LEAST_MS = 1000;
const QUANTILE_MILLI = 950;

/** Exact below 8, then eighths of each power of two. */
function bucketOf(units: number): number {
  if (units < SUB_BUCKETS) return units;
  const octave = 31 - Math.clz32(units);
  if (octave >= OCTAVES) return BUCKETS - 1;
  return (octave - 2) * SUB_BUCKETS + ((units >>> (octave - 3)) & (SUB_BUCKETS - 1));
}

/** The largest value that the bucket takes. */
function upperEdgeOf(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket;
  const octave = Math.floor(bucket / SUB_BUCKETS) + 2;
  const step = 2 ** (octave - 3);
  return (SUB_BUCKETS + (bucket % SUB_BUCKETS) + 1) * step - 1;
}

/** Of one slice, beside its histograms. */
interface Sums {
  samples: number;
  cpuMilli: number;
  memoryBytes: number;
  cpuMilliPeak: number;
  memoryBytesPeak: number;
}

const NO_SUMS: Sums = { samples: 0, cpuMilli: 0, memoryBytes: 0, cpuMilliPeak: 0, memoryBytesPeak: 0 };

/** The window of one container. Samples come in the order of time; one that is older than a later one counts as now. */
export class UsageWindow {
  readonly #options: UsageWindowOptions;
  /** Slice by slice: the buckets of the processor, then those of memory. */
  readonly #counts: Uint16Array;
  readonly #sums: Sums[];
  #slice: number;
  readonly #firstMs: number;
  #lastMs: number;

  constructor(options: UsageWindowOptions, nowMs: number) {
    this.#options = options;
    this.#counts = new Uint16Array(options.slices * 2 * BUCKETS);
    this.#sums = Array.from({ length: options.slices }, () => ({ ...NO_SUMS }));
    this.#slice = Math.floor(nowMs / options.sliceMs);
    this.#firstMs = nowMs;
    this.#lastMs = nowMs;
  }

  /** Forgets the slices that time has passed over. */
  #turnTo(nowMs: number): void {
    const { slices, sliceMs } = this.#options;
    const slice = Math.max(this.#slice, Math.floor(nowMs / sliceMs));
    const passed = Math.min(slices, slice - this.#slice);
    for (let step = 0; step < passed; step += 1) {
      const place = (slice - step) % slices;
      this.#counts.fill(0, place * 2 * BUCKETS, (place + 1) * 2 * BUCKETS);
      this.#sums[place] = { ...NO_SUMS };
    }
    this.#slice = slice;
  }

  #count(at: number): void {
    const count = this.#counts[at] ?? 0;
    if (count < COUNT_MAX) this.#counts[at] = count + 1;
  }

  add(cpuMilli: number, memoryBytes: number, nowMs: number): void {
    this.#turnTo(nowMs);
    this.#lastMs = Math.max(this.#lastMs, nowMs);
    const place = this.#slice % this.#options.slices;
    this.#count(place * 2 * BUCKETS + bucketOf(Math.ceil(cpuMilli)));
    this.#count((place * 2 + 1) * BUCKETS + bucketOf(Math.ceil(memoryBytes / MEMORY_UNIT_BYTES)));
    const sums = this.#sums[place];
    if (sums === undefined) return;
    sums.samples += 1;
    sums.cpuMilli += cpuMilli;
    sums.memoryBytes += memoryBytes;
    sums.cpuMilliPeak = Math.max(sums.cpuMilliPeak, Math.ceil(cpuMilli));
    sums.memoryBytesPeak = Math.max(sums.memoryBytesPeak, memoryBytes);
  }

  /** The bucket below or in which 95 of 100 samples lie, as its upper edge; undefined: no samples. */
  #p95(offset: number): number | undefined {
    const { slices } = this.#options;
    const sums = new Uint32Array(BUCKETS);
    let total = 0;
    for (let place = 0; place < slices; place += 1) {
      const start = (place * 2 + offset) * BUCKETS;
      for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
        const count = this.#counts[start + bucket] ?? 0;
        sums[bucket] = (sums[bucket] ?? 0) + count;
        total += count;
      }
    }
    let left = total - Math.ceil((total * QUANTILE_MILLI) / 1000);
    for (let bucket = BUCKETS - 1; bucket >= 0; bucket -= 1) {
      left -= sums[bucket] ?? 0;
      if (left < 0) return upperEdgeOf(bucket);
    }
    return undefined;
  }

  /** Undefined: nothing was measured within the window. */
  summary(nowMs: number): UsageSummary | undefined {
    this.#turnTo(nowMs);
    const cpu = this.#p95(0);
    const memory = this.#p95(1);
    if (cpu === undefined || memory === undefined) return undefined;
    const all = { ...NO_SUMS };
    for (const sums of this.#sums) {
      all.samples += sums.samples;
      all.cpuMilli += sums.cpuMilli;
      all.memoryBytes += sums.memoryBytes;
      all.cpuMilliPeak = Math.max(all.cpuMilliPeak, sums.cpuMilliPeak);
      all.memoryBytesPeak = Math.max(all.memoryBytesPeak, sums.memoryBytesPeak);
    }
    return {
      mean: { cpuMilli: Math.ceil(all.cpuMilli / all.samples), memoryBytes: Math.ceil(all.memoryBytes / all.samples) },
      p95: {
        cpuMilli: Math.min(cpu, all.cpuMilliPeak),
        memoryBytes: Math.min(memory * MEMORY_UNIT_BYTES, all.memoryBytesPeak),
      },
      peak: { cpuMilli: all.cpuMilliPeak, memoryBytes: all.memoryBytesPeak },
      coveredMs: Math.min(this.#lastMs - this.#firstMs, this.#options.slices * this.#options.sliceMs),
    };
  }
}

interface Followed {
  readonly window: UsageWindow;
  cpuNs: number;
  sampledMs: number;
}

/** The windows of all containers, fed with the meter's readings. Whoever owns it calls `observe` every few seconds. */
export class UsageWindows {
  readonly #options: UsageWindowOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: UsageWindowOptions = USAGE_WINDOW) {
    this.#options = options;
  }

  /**
   * Takes readings in. A counter that went down is of another cgroup (a restart, a move): the span before it says nothing. A container without
   * readings keeps its window for as long as that lasts, because a migration stops its metering for a moment.
   */
  observe(readings: readonly Reading[], nowMs: number): void {
    for (const { container, cpuNs, memoryBytes, sampledMs } of readings) {
      const followed = this.#followed.get(container);
      if (followed === undefined) {
        this.#followed.set(container, { window: new UsageWindow(this.#options, sampledMs), cpuNs, sampledMs });
        continue;
      }
      const spanMs = sampledMs - followed.sampledMs;
      if (spanMs >= 0 && spanMs < SPAN_LEAST_MS) continue;
      // A clock that was set back would otherwise stop the window until it catches up.
      if (spanMs > 0 && cpuNs >= followed.cpuNs) {
        followed.window.add(Math.round((cpuNs - followed.cpuNs) / spanMs / 1000), memoryBytes, sampledMs);
      }
      followed.cpuNs = cpuNs;
      followed.sampledMs = sampledMs;
    }
    const windowMs = this.#options.sliceMs * this.#options.slices;
    for (const [container, { sampledMs }] of this.#followed) if (nowMs - sampledMs > windowMs) this.#followed.delete(container);
  }

  /** Undefined: it was not measured within the window. */
  summaryOf(container: string, nowMs: number): UsageSummary | undefined {
    return this.#followed.get(container)?.window.summary(nowMs);
  }
}
