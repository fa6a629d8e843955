/** What the kernel says of processes and of TCP. */
import { readFileSync, readdirSync } from 'node:fs';

const PAGE_BYTES = 4096;

/** Open files of processes. */
export function openFiles(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    try {
      return sum + readdirSync(`/proc/${String(pid)}/fd`).length;
    } catch {
      return sum; // It ended.
    }
  }, 0);
}

export interface TcpState {
  /** Closed by their process, with bytes that the peer has not taken. */
  readonly orphans: number;
  /** Of the whole machine: both ends of every connection over the loopback. */
  readonly bytes: number;
}

export function tcpState(): TcpState {
  const [, orphans = '0', pages = '0'] =
    /^TCP:.* orphan (\d+) .* mem (\d+)/m.exec(readFileSync('/proc/net/sockstat', 'utf8')) ?? [];
  return { orphans: Number(orphans), bytes: Number(pages) * PAGE_BYTES };
}
