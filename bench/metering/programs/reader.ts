/**
 * Reads counters of cgroups from the kernel's own files, as often as it is told, and knows nothing of the meter: `node reader.ts PERIOD_MS FILE PARENT`, of
 * all that are and come below PARENT. Ends with SIGTERM, and has then written what it saw to FILE, by cgroup: moments of the wall clock, CPU in ns, working
 * set in bytes.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';

const [period = '10', file = '', parent = ''] = process.argv.slice(2);
const seen = new Map<string, [number, number, number][]>();

function read(): void {
  for (const id of names()) {
    const cgroup = `${parent}/${id}`;
    try {
      const cpuNs = Number(readFileSync(`/sys/fs/cgroup/cpuacct${cgroup}/cpuacct.usage`, 'utf8'));
      const atMs = performance.timeOrigin + performance.now();
      const usage = Number(readFileSync(`/sys/fs/cgroup/memory${cgroup}/memory.usage_in_bytes`, 'utf8'));
      const stat = readFileSync(`/sys/fs/cgroup/memory${cgroup}/memory.stat`, 'utf8');
      const inactive = Number(/^total_inactive_file (\d+)$/m.exec(stat)?.[1]);
      const samples = seen.get(id) ?? [];
      seen.set(id, samples);
      samples.push([atMs, cpuNs, Math.max(0, usage - inactive)]);
    } catch {
      // It ended just now.
    }
  }
}

function names(): readonly string[] {
  try {
    return readdirSync(`/sys/fs/cgroup/memory${parent}`, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [entry.name] : [],
    );
  } catch {
    return []; // Nothing was started yet.
  }
}

const timer = setInterval(read, Number(period));
process.on('SIGTERM', () => {
  clearInterval(timer);
  writeFileSync(file, JSON.stringify(Object.fromEntries(seen)));
});
