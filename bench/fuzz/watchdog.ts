/** Notices from another thread that an input is not done with, says which, and ends the process: a loop without end cannot say so itself. */
import { writeSync } from 'node:fs';
import { Worker, isMainThread, workerData } from 'node:worker_threads';

const HANG_MS = 10_000;
const STDERR = 2;
const SHARED_BYTES = 128 * 1024;
const HEADER_BYTES = 8;

/** Returns what is to be called with each input before it is tried. */
export function startWatchdog(): (text: string) => void {
  const shared = new SharedArrayBuffer(SHARED_BYTES);
  const numbers = new Int32Array(shared, 0, 2);
  const octets = Buffer.from(shared, HEADER_BYTES);
  new Worker(new URL(import.meta.url), { workerData: shared }).unref();
  return (text) => {
    numbers[1] = octets.write(text, 'latin1');
    Atomics.add(numbers, 0, 1);
  };
}

function watch(shared: SharedArrayBuffer): void {
  const numbers = new Int32Array(shared, 0, 2);
  for (;;) {
    const before = Atomics.load(numbers, 0);
    Atomics.wait(numbers, 0, before, HANG_MS);
    if (Atomics.load(numbers, 0) !== before) continue;
    const text = Buffer.from(shared, HEADER_BYTES, numbers[1] ?? 0).toString('latin1');
    writeSync(STDERR, `fuzz-http1: hangs: ${JSON.stringify(text)}\n`);
    process.kill(process.pid, 'SIGKILL');
  }
}

if (!isMainThread && workerData instanceof SharedArrayBuffer) watch(workerData);
