import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { HoldQueue } from '#proxy/hold.ts';
import type { HoldRequest } from '#proxy/hold.ts';
import { HOLD_MS_MAX, RELEASE_BATCH, RELEASE_FIRST, RELEASE_STEP_MS } from '#proxy/limits.ts';
import { Wakes } from '#proxy/wakes.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';

function endpoint(id: string, port = 1): Endpoint {
  return { id, address: '127.0.0.1', port, hostName: 'h', generation: 1 };
}

function asleep(id: string): Endpoint {
  return { ...endpoint(id), state: 'asleep' };
}

describe('HoldQueue', () => {
  let nowMs = 0;
  let services: Map<string, Service>;
  let queue: HoldQueue;
  let outcomes: string[];
  let wakes: Wakes;
  let wanted: string[];
  let inFlight: Map<string, number>;
  let inFlightMax: number;

  beforeEach(() => {
    vi.useFakeTimers();
    nowMs = 0;
    outcomes = [];
    services = new Map([['app', { id: 'app', tenant: 't', endpoints: [endpoint('a'), endpoint('b')] }]]);
    wanted = [];
    inFlight = new Map();
    inFlightMax = 2;
    const clock = {
      nowMs: () => nowMs,
      monotonicMs: () => nowMs,
      sleep: async () => {
        await Promise.resolve();
      },
    };
    wakes = new Wakes(clock, { againMs: 5_000, tell: (ids) => wanted.push(ids.join(' ')) });
    queue = new HoldQueue({
      clock,
      wakes,
      serviceOf: (id) => services.get(id),
      inFlightOf: (id) => inFlight.get(id) ?? 0,
      workers: 1,
      unhealthy: new Set(),
      inFlightMax: () => inFlightMax,
    });
  });

  afterEach(() => {
    queue[Symbol.dispose]();
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
      heldSinceMs: nowMs,
      hashKey: () => undefined,
      settle: (decision) => {
        told(decision, true);
        if (typeof decision !== 'string') inFlight.set(decision.id, (inFlight.get(decision.id) ?? 0) + 1);
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

  test('freeze() tells until the thaw that it lasts, and not of a later one', () => {
    const lasts = queue.freeze(['a'], 1000);
    queue.freeze(['a'], 2000);
    expect([lasts('a'), lasts('b')]).toEqual([true, false]);
    queue.thaw(['a']);
    queue.freeze(['a'], 1000);
    expect(lasts('a')).toBe(false);
  });

  test('lets who comes wait behind who waits, and goes on as the endpoint takes it', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [endpoint('a')] });
    queue.freeze(['a'], 1000);
    for (const name of ['1', '2', '3', '4']) acquire(name);
    queue.thaw(['a']);
    expect(outcomes).toEqual(['1 a:1 held', '2 a:1 held']);
    acquire('5');
    expect([queue.isPaced, queue.size]).toEqual([true, 3]);
    inFlight.set('a', 1);
    queue.release();
    expect(outcomes.slice(2)).toEqual(['3 a:1 held']);
    inFlight.set('a', 0);
    queue.release();
    expect(outcomes.slice(3)).toEqual(['4 a:1 held', '5 a:1 held']);
    expect([queue.isPaced, queue.size]).toEqual([false, 0]);
  });

  describe('lets the first few go on alone', () => {
    const names = Array.from({ length: 3 * RELEASE_BATCH }, (_, index) => String(index));

    beforeEach(() => {
      inFlightMax = 1000;
      services.set('app', { id: 'app', tenant: 't', endpoints: [endpoint('a')] });
      queue.freeze(['a'], 1000);
      for (const name of names) acquire(name);
      queue.thaw(['a']);
    });

    test('then twice as many in each time, and never more than a batch more', () => {
      acquire('late');
      const steps = [outcomes.length];
      while (queue.size > 0) {
        const before = outcomes.length;
        vi.advanceTimersByTime(RELEASE_STEP_MS);
        steps.push(outcomes.length - before);
      }
      expect([RELEASE_FIRST, steps]).toEqual([2, [2, 2, 4, 8, 16, 32, 64, 64, 1]]);
      expect(outcomes).toEqual([...names, 'late'].map((name) => `${name} a:1 held`));
      // The next crowd begins anew.
      inFlight.set('a', 0);
      queue.freeze(['a'], 1000);
      outcomes.length = 0;
      for (const name of names) acquire(name);
      queue.thaw(['a']);
      expect(outcomes).toHaveLength(RELEASE_FIRST);
    });

    test('and for each that ended one more than it makes room for', () => {
      const ends = (count: number): void => {
        inFlight.set('a', (inFlight.get('a') ?? 0) - count);
        queue.ended(count);
      };
      expect([outcomes.length, queue.isPaced]).toEqual([2, true]);
      ends(1);
      expect(outcomes).toHaveLength(4);
      ends(3);
      expect(outcomes).toHaveLength(10);
    });

    test('and no more where the endpoint takes no more', () => {
      inFlightMax = 3;
      vi.advanceTimersByTime(100 * RELEASE_STEP_MS);
      expect([outcomes.length, queue.isPaced]).toEqual([3, true]);
    });
  });

  test('refuses who waits too long for an endpoint that stays full', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [endpoint('a')] });
    queue.freeze(['a'], 1000);
    acquire('1');
    inFlight.set('a', 2);
    queue.thaw(['a']);
    expect(outcomes).toEqual([]);
    nowMs = HOLD_MS_MAX;
    vi.advanceTimersByTime(250);
    expect(outcomes).toEqual(['1 hold-expired held']);
  });

  test('asks once for sleepers, again after a while, and releases with a table in which one is awake', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a'), asleep('b')] });
    for (const name of ['1', '2', '3']) acquire(name);
    expect([wanted, queue.size]).toEqual([['a b'], 3]);
    nowMs = 4_999;
    vi.advanceTimersByTime(250);
    expect(wanted).toEqual(['a b']);
    nowMs = 5_000;
    vi.advanceTimersByTime(250);
    expect(wanted).toEqual(['a b', 'a b']);
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a'), endpoint('b', 2)] });
    queue.release();
    expect(outcomes.slice(0, 2)).toEqual(['1 b:2 held', '2 b:2 held']);
  });

  test('wakes nobody where another endpoint is open, or comes back in time', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a'), endpoint('b')] });
    acquire('1');
    queue.freeze(['b'], 1000);
    acquire('2');
    expect([outcomes, wanted]).toEqual([['1 b:1'], []]);
    nowMs = 1000;
    vi.advanceTimersByTime(1000);
    expect(wanted).toEqual(['a']);
  });

  test('refuses who waits for a sleeper for too long, and lets who comes then wait', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a')] });
    acquire('1');
    nowMs = 1000;
    acquire('2');
    nowMs = HOLD_MS_MAX;
    vi.advanceTimersByTime(250);
    acquire('3');
    expect([outcomes, queue.size]).toEqual([['1 hold-expired held'], 2]);
  });

  test('refuses who waits for a sleeper that could not be woken, and who comes before its time', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a')] });
    acquire('1');
    wakes.failed(['a'], 2_000);
    queue.release();
    acquire('2');
    expect(outcomes).toEqual(['1 wake-failed held', '2 wake-failed']);
    expect(queue.retryAfterMs('app')).toBe(2_000);
    nowMs = 2_000;
    acquire('3');
    expect([outcomes.length, wanted]).toEqual([2, ['a', 'a']]);
  });

  test('asks for a sleeper once a freeze of it is over', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [endpoint('a')] });
    queue.freeze(['a'], 1000);
    acquire('1');
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a')] });
    queue.release();
    expect(wanted).toEqual([]);
    queue.thaw(['a']);
    expect([wanted, outcomes]).toEqual([['a'], []]);
  });

  test('asks for nobody once nobody waits', () => {
    services.set('app', { id: 'app', tenant: 't', endpoints: [asleep('a')] });
    const leave = acquire('1');
    leave();
    nowMs = 60_000;
    vi.advanceTimersByTime(60_000);
    expect([wanted, queue.size]).toEqual([['a'], 0]);
  });
});
