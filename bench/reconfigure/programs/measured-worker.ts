/**
 * A worker of the edge that also watches itself: at SIGUSR2 it writes what its event loop and its memory were since the last time, and begins anew.
 * Run with --expose-gc, so that memory is what is in use.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';

await import('../../../src/worker.ts');

/** The finest there is: delays are counted from the timer's own period. */
const RESOLUTION_MS = 1;
const late = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
late.enable();
/** The most that the thread worked between two turns of a timer: of a stall, what is its own, and not a wait for a processor. */
let workedMs = 0;
let before = process.threadCpuUsage();
setInterval(() => {
  const { user, system } = process.threadCpuUsage(before);
  before = process.threadCpuUsage();
  workedMs = Math.max(workedMs, (user + system) / 1e3);
}, RESOLUTION_MS);

process.on('SIGUSR2', () => {
  const stallMs = Math.max(0, late.max / 1e6 - RESOLUTION_MS);
  const stallP99Ms = Math.max(0, late.percentile(99) / 1e6 - RESOLUTION_MS);
  const longestWorkMs = workedMs;
  late.disable();
  globalThis.gc?.();
  const { heapUsed, rss, external } = process.memoryUsage();
  const folder = process.env['ECLUSE_BENCH_FOLDER'] ?? '';
  writeFileSync(
    join(folder, `${String(process.pid)}.json`),
    JSON.stringify({ stallMs, stallP99Ms, longestWorkMs, heapUsed, rss, external }),
  );
  before = process.threadCpuUsage();
  workedMs = 0;
  late.reset();
  late.enable();
});
