/**
 * A worker of the edge that also watches itself: at SIGUSR2 it writes what its event loop and its memory were since the last time, and begins anew.
 * Run with --expose-gc, so that memory is what is in use.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';

await import('../../../src/worker.ts');

/** The finest there is: delays are counted from the timer's own period. */
const RESOLUTION_MS = 1;
const late = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
late.enable();
let gcMs = 0;
let sinceMs = 0;
new PerformanceObserver((list) => {
  // Those that a look made are told after it.
  for (const { startTime, duration } of list.getEntries()) if (startTime >= sinceMs) gcMs = Math.max(gcMs, duration);
}).observe({ entryTypes: ['gc'] });

process.on('SIGUSR2', () => {
  const stallMs = Math.max(0, late.max / 1e6 - RESOLUTION_MS);
  const stallP99Ms = Math.max(0, late.percentile(99) / 1e6 - RESOLUTION_MS);
  const longestGcMs = gcMs;
  late.disable();
  globalThis.gc?.();
  const { heapUsed, rss, external } = process.memoryUsage();
  const folder = process.env['ECLUSE_BENCH_FOLDER'] ?? '';
  writeFileSync(
    join(folder, `${String(process.pid)}.json`),
    JSON.stringify({ stallMs, stallP99Ms, longestGcMs, heapUsed, rss, external }),
  );
  gcMs = 0;
  sinceMs = performance.now();
  late.reset();
  late.enable();
});
