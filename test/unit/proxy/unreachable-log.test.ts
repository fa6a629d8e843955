import { pino } from 'pino';
import { expect, test } from 'vitest';
import type { Clock } from '#clock';
import { UnreachableLog } from '#proxy/unreachable-log.ts';

test('of endpoints that cannot be connected to it says the first, and later how many were left out', () => {
  const lines: unknown[] = [];
  const log = pino({ base: null, timestamp: false }, { write: (line: string) => lines.push(JSON.parse(line)) });
  let nowMs = 0;
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, sleep: async () => await Promise.resolve() };
  const unreachable = new UnreachableLog(log, clock);
  const endpoint = { id: 'one', address: '10.1.0.2', port: 80, hostName: 'a', generation: 1 };
  unreachable.failed(endpoint, 'ECONNREFUSED');
  for (nowMs of [1, 4_999]) unreachable.failed(endpoint, 'ECONNREFUSED');
  nowMs = 5_000;
  unreachable.failed({ ...endpoint, id: 'two' }, 'EHOSTUNREACH');
  const msg = 'an endpoint could not be connected to';
  expect(lines).toEqual([
    { level: 30, endpoint: 'one', address: '10.1.0.2', port: 80, reason: 'ECONNREFUSED', leftOut: 0, msg },
    { level: 30, endpoint: 'two', address: '10.1.0.2', port: 80, reason: 'EHOSTUNREACH', leftOut: 2, msg },
  ]);
});
