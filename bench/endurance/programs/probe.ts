/**
 * Loaded into a worker by `--import`, so that nothing of the worker changes: says on a unix socket what the worker holds.
 * A byte `g` on a connection means: collect garbage first. The socket's path is in `ECLUSE_BENCH_PROBE`.
 */
import cluster from 'node:cluster';
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';

const COLLECTED_MS = 50;

function sample(): string {
  const { rss, heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1;
  return JSON.stringify({ pid: process.pid, rss, heapUsed, heapTotal, external, arrayBuffers, resources });
}

const path = process.env['ECLUSE_BENCH_PROBE'];
if (cluster.isWorker && path !== undefined) {
  rmSync(path, { force: true }); // Of a worker before this one.
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // Who asked went away.
    socket.once('data', (text) => {
      if (!text.includes('g')) {
        socket.end(sample());
        return;
      }
      globalThis.gc?.();
      // Memory outside of the heap is given back by another thread, and accounted for by the next collection.
      setTimeout(() => {
        globalThis.gc?.();
        socket.end(sample());
      }, COLLECTED_MS);
    });
  });
  server.listen({ path, exclusive: true }).unref();
}
