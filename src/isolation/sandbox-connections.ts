/**
 * TCP connections of a sandbox, by the counters that its network stack exports (`runsc export-metrics`).
 *
 * A save resets connections (decision 017), and what the program's epolls hear of that while they are written down is written down by halves: restored,
 * they report a socket that is closed for ever, and the program spins or never accepts again. It was seen in one of three restores of runsc 20240729 with
 * eight connections (gVisor #13920; mended in 2026-08 by #14147). What is saved once more, when there is nothing left to reset, has no such halves.
 */
import { tryCommand } from '#command';
import { WRAPPER_FILE } from './runtime-settings.ts';

export interface TcpCounters {
  /** Connections that are open now, in any state. */
  readonly open: number;
  /** Those that were reset so far, from this side. */
  readonly resets: number;
}

interface Place {
  /** The wrapper's directory of the host. */
  readonly runtimeDir: string;
  readonly runscRoot: string;
  readonly engineId: string;
}

/** It takes 20 to 50 ms. */
const TIMEOUT_MS = 5_000;
const FILTER = 'netstack_tcp_(current_open|resets_sent)$';
/** How the text ends where it is whole, also where there is nothing to tell. */
const END = '# End of metric data.';

/** Undefined: this build does not tell. */
export async function tcpCountersOf({ runtimeDir, runscRoot, engineId }: Place): Promise<TcpCounters | undefined> {
  const words = ['--ecluse-dir', runtimeDir, '--root', runscRoot, 'export-metrics', '--sandbox-metrics-filter', FILTER, engineId];
  const { exitCode, stdout } = await tryCommand(WRAPPER_FILE, words, { timeoutMs: TIMEOUT_MS });
  return exitCode === 0 ? parseCounters(stdout) : undefined;
}

/** Of Prometheus' text. A counter that never moved is not there. Undefined: it is no such text, or not whole. */
export function parseCounters(text: string): TcpCounters | undefined {
  const values = new Map<string, number>();
  for (const [, name = '', value = ''] of text.matchAll(
    /^runsc_netstack_tcp_(current_open|resets_sent)(?:\{[^}\n]*\})? (\d+)(?: \d+)?$/gm,
  ))
    values.set(name, Number(value));
  if (!text.includes(END)) return undefined;
  return { open: values.get('current_open') ?? 0, resets: values.get('resets_sent') ?? 0 };
}

/** Whether connections were reset in between; unknown counts as yes: what that costs is a save more. Pure. */
export function wasReset(before: TcpCounters | undefined, after: TcpCounters | undefined): boolean {
  return before === undefined || after === undefined || after.resets > before.resets;
}
