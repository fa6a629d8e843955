/** What clients of streams have in common: a window in which messages are counted, and the longest wait of each client. */
import type { GapMeter } from './gap.ts';
import { gapMeter } from './gap.ts';
import type { StreamSeen } from './seen.ts';

export interface StreamCounts {
  messages: number;
  missed: number;
  duplicated: number;
  readonly ends: Record<string, number>;
  readonly gaps: readonly GapMeter[];
}

export interface StreamClients {
  readonly begin: () => void;
  readonly end: () => StreamSeen;
  readonly stop: () => void;
}

export function emptyCounts(clients: number): StreamCounts {
  return { messages: 0, missed: 0, duplicated: 0, ends: {}, gaps: Array.from({ length: clients }, () => gapMeter()) };
}

export function noteEnd(counts: StreamCounts, what: string): void {
  counts.ends[what] = (counts.ends[what] ?? 0) + 1;
}

export function beginWindow(counts: StreamCounts): void {
  Object.assign(counts, { messages: 0, missed: 0, duplicated: 0 });
  for (const what of Object.keys(counts.ends)) counts.ends[what] = 0;
  for (const gap of counts.gaps) gap.begin();
}

export function seenIn({ gaps, ends, ...counts }: StreamCounts): StreamSeen {
  const ended = Object.entries(ends).filter(([, times]) => times > 0);
  return {
    ...counts,
    clients: gaps.length,
    ends: Object.fromEntries(ended),
    gapMs: Math.max(0, ...gaps.map((gap) => gap.longestMs())),
  };
}
