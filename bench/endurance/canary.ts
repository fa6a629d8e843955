/** The canary as the benchmarks use it: windows of time in which latencies are collected. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { quantile } from '../machine.ts';
import { BENCH_HOST } from '../proxy/configs.ts';
import { LOAD_CORE } from '../proxy/stage.ts';
import type { Child, Stage } from '../proxy/stage.ts';
import { ask } from './dialogue.ts';

export interface CanarySettings {
  readonly connections: number;
  readonly rate: number;
}

const SEEN = z.object({ latencies: z.array(z.number()), late: z.array(z.number()), failures: z.record(z.string(), z.int()) });
/** Latencies in µs from when requests were due; `late`: how late the canary itself noticed that they were. */
export type Seen = z.infer<typeof SEEN>;

export interface Latency {
  readonly requests: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
  readonly lateP99Us: number;
  readonly failures: Readonly<Record<string, number>>;
}

/**
 * The canary and the origin go before what loads their core beside them. The others keep the usual priority, and the benchmark itself is pinned to no
 * core: with both, this machine's kernel (6.18) once spun for minutes in `wait4` over the /proc entries of a child that had just ended.
 */
export const FIRST = ['nice', '-n', '-10'] as const;

const WARM_UP_MS = 1000;
const STEP_MS = 500;
const READY_MS_MAX = 15_000;

export class Canary implements AsyncDisposable {
  readonly #child: Child;
  /** In `STEP_MS`. */
  readonly #answersMin: number;

  constructor(stage: Stage, port: number, { connections, rate }: CanarySettings) {
    const program = new URL('programs/canary.ts', import.meta.url).pathname;
    this.#answersMin = (rate * STEP_MS) / 2000;
    const told = JSON.stringify({ port, host: BENCH_HOST, path: '/', connections, rate });
    this.#child = stage.start({ core: LOAD_CORE, argv: [...FIRST, process.execPath, program, told] });
  }

  /** Waits until it sings: connected, and answered a while. */
  async ready(): Promise<void> {
    const endMs = performance.now() + READY_MS_MAX;
    await sleep(WARM_UP_MS);
    do {
      await this.begin();
      await sleep(STEP_MS);
    } while ((await this.end()).latencies.length < this.#answersMin && performance.now() < endMs);
  }

  async begin(): Promise<void> {
    await ask(this.#child, z.object({}), { kind: 'begin' });
  }

  /** What was seen since `begin`. */
  async end(): Promise<Seen> {
    return await ask(this.#child, SEEN, { kind: 'end' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop();
  }
}

/** Windows taken together. */
export function latencyOf(...windows: readonly Seen[]): Latency {
  const latencies = windows.flatMap((one) => one.latencies);
  const failures: Record<string, number> = {};
  for (const one of windows)
    for (const [what, count] of Object.entries(one.failures)) failures[what] = (failures[what] ?? 0) + count;
  return {
    requests: latencies.length,
    p50Us: quantile(latencies, 0.5),
    p99Us: quantile(latencies, 0.99),
    maxUs: Math.max(0, ...latencies),
    lateP99Us: quantile(
      windows.flatMap(({ late }) => late),
      0.99,
    ),
    failures,
  };
}
