/** What processes used, from /proc: CPU by two of the kernel's clocks, and resident memory. */
import { readdirSync, readFileSync } from 'node:fs';

export interface Usage {
  /** utime and stime of /proc/PID/stat: with threads that have ended, in steps of 10 ms. */
  readonly userUs: number;
  readonly systemUs: number;
  /** Sum over the threads' schedstat: nanoseconds, without threads that have ended. */
  readonly exactUs: number;
  readonly rssBytes: number;
}

/** USER_HZ is 100 on every Linux that Debian builds. */
const TICK_US = 10_000;
const PAGE_BYTES = 4096;
const NONE: Usage = { userUs: 0, systemUs: 0, exactUs: 0, rssBytes: 0 };

/** A process and its descendants. */
export function treeOf(pid: number): number[] {
  const found = [pid];
  for (const thread of list(`/proc/${String(pid)}/task`)) {
    const children = read(`/proc/${String(pid)}/task/${thread}/children`).trim();
    if (children !== '') found.push(...children.split(' ').flatMap((child) => treeOf(Number(child))));
  }
  return found;
}

export function usageOf(pids: readonly number[]): Usage {
  return pids.map(usageOfOne).reduce(
    (sum, one) => ({
      userUs: sum.userUs + one.userUs,
      systemUs: sum.systemUs + one.systemUs,
      exactUs: sum.exactUs + one.exactUs,
      rssBytes: sum.rssBytes + one.rssBytes,
    }),
    NONE,
  );
}

function usageOfOne(pid: number): Usage {
  const stat = read(`/proc/${String(pid)}/stat`);
  // The name in parentheses may hold anything; the fields after it are counted from the state, which is the third.
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  let exactNs = 0;
  for (const thread of list(`/proc/${String(pid)}/task`)) {
    exactNs += Number(read(`/proc/${String(pid)}/task/${thread}/schedstat`).split(' ')[0] ?? 0);
  }
  return {
    userUs: (fields[11] ?? 0) * TICK_US,
    systemUs: (fields[12] ?? 0) * TICK_US,
    exactUs: exactNs / 1000,
    rssBytes: (fields[21] ?? 0) * PAGE_BYTES,
  };
}

/** What all processes of the machine used so far, the kernel's own included. */
export function machineBusyUs(): number {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (read('/proc/stat').split('\n')[0] ?? '')
    .split(/ +/)
    .map(Number);
  return (user + nice + system + irq + softirq) * TICK_US;
}

/** A process may end while we look: then there is nothing to read. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
