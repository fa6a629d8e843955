import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { HoldQueue } from '#proxy/hold.ts';
import type { HoldRequest } from '#proxy/hold.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';

function endpoint(id: string, port = 1): Endpoint {
  return { id, address: '127.0.0.1', port, hostName: 'h', generation: 1 };
}

describe('HoldQueue', () => {
  let nowMs = 0;
  let services: Map<string, Service>;
  let queue: HoldQueue;
  let outcomes: string[];

  beforeEach(() => {
    vi.useFakeTimers();
    nowMs = 0;
    outcomes = [];
    services = new Map([['app', { id: 'app', tenant: 't', endpoints: [endpoint('a'), endpoint('b')] }]]);
    queue = new HoldQueue({
      clock: {
        nowMs: () => nowMs,
        monotonicMs: () => nowMs,
        sleep: async () => {
          await Promise.resolve();
        },
      },
      serviceOf: (id) => services.get(id),
      inFlightOf: () => 0,
    });
  });

  afterEach(() => {
    vi.useRealTimers();
  });

  /** Decides at once, or waits; returns what takes the request out of the queue. */
  function acquire(name: string, avoid: readonly string[] = []): () => void {
    const told = (decision: Endpoint | string, held: boolean): void => {
      const what = typeof decision === 'string' ? decision : `${decision.id}:${String(decision.port)}`;
      outcomes.push(`${name} ${what}${held ? ' held' : ''}`);
    };
    const request: HoldRequest = {
      serviceId: 'app',
      avoid: new Set(avoid),
      settle: (decision) => {
        told(decision, true);
      },
    };
    const decision = queue.decide(request);
    if (decision === 'wait') queue.wait(request);
    else told(decision, false);
    return () => {
      queue.leave(request);
    };
  }

  test('gives an endpoint that is not frozen at once', () => {
    queue.freeze(['a'], 1000);
    acquire('1');
    acquire('2');
    expect(outcomes).toEqual(['1 b:1', '2 b:1']);
  });

  test('avoids what just failed, but for want of others', () => {
    acquire('1', ['a']);
    acquire('2', ['a', 'b']);
    expect(outcomes[0]).toBe('1 b:1');
    expect(outcomes[1]).toMatch(/^2 [ab]:1$/);
  });

  test('holds while all are frozen and releases in order, against the current table', () => {
    queue.freeze(['a', 'b'], 1000);
    acquire('1');
    const cancel = acquire('2');
    acquire('3');
    cancel();
    expect([outcomes, queue.size]).toEqual([[], 2]);
    services.set('app', { id: 'app', tenant: 't', endpoints: [endpoint('a', 2)] });
    queue.thaw(['a']);
    expect(outcomes).toEqual(['1 a:2 held', '3 a:2 held']);
    expect(queue.size).toBe(0);
  });

  test('refuses what waits for a service that is gone', () => {
    queue.freeze(['a', 'b'], 1000);
    acquire('1');
    services.clear();
    queue.release();
    expect(outcomes).toEqual(['1 no-endpoint held']);
  });

  test('refuses at the deadline and after it, until the thaw', () => {
    queue.freeze(['a', 'b'], 1000);
    acquire('1');
    nowMs = 1000;
    vi.advanceTimersByTime(1000);
    acquire('2');
    queue.thaw(['b']);
    acquire('3');
    expect(outcomes).toEqual(['1 hold-expired held', '2 hold-expired', '3 b:1']);
  });
});
