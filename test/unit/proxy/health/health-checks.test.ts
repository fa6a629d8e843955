/** The checks of a node with a clock that a test moves: which run, when, how many at once, and what is said of them. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { HealthChecks } from '#proxy/health/health-checks.ts';
import type { CheckOutcome } from '#proxy/health/health-state.ts';
import { CHECKS_AT_ONCE, FIRST_CHECK_MS } from '#proxy/health/limits.ts';
import type { ProbeTarget } from '#proxy/health/probe.ts';
import type { HealthCheck, Service } from '#routing/route-table.ts';
import { createLog } from '#log';

const HEALTH: HealthCheck = { path: '/healthz', intervalMs: 5_000, timeoutMs: 1_000, unhealthyAfter: 2, healthyAfter: 1 };

function serviceOf(id: string, ports: readonly number[], health: HealthCheck | undefined = HEALTH): Service {
  return {
    id,
    tenant: '_operator',
    endpoints: ports.map((port) => ({
      id: `${id} ${String(port)}`,
      address: '127.0.0.1',
      port,
      hostName: '',
      generation: 1,
    })),
    policy: { balance: { kind: 'least-request' }, health },
  };
}

/** Sleeps end when the test moves time past them. */
class FakeClock {
  ms = 0;
  readonly #sleeps = new Set<{ readonly endMs: number; readonly wake: () => void }>();

  readonly nowMs = (): number => this.ms;
  readonly monotonicMs = (): number => this.ms;
  readonly sleep = async (ms: number, signal?: AbortSignal): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleep = { endMs: this.ms + ms, wake: resolve };
    this.#sleeps.add(sleep);
    signal?.addEventListener('abort', () => {
      this.#sleeps.delete(sleep);
      reject(new Error('stopped'));
    });
    await promise;
  };

  get sleeping(): number {
    return this.#sleeps.size;
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.ms + ms;
    for (;;) {
      await nextTurn();
      const [next] = [...this.#sleeps].filter((sleep) => sleep.endMs <= endMs).toSorted((a, b) => a.endMs - b.endMs);
      if (next === undefined) break;
      this.ms = next.endMs;
      this.#sleeps.delete(next);
      next.wake();
    }
    this.ms = endMs;
    await nextTurn();
  }
}

describe('HealthChecks', () => {
  let clock: FakeClock;
  let checks: HealthChecks;
  let asked: string[];
  let told: string[];
  let down: Set<number>;
  let answer: (target: ProbeTarget) => Promise<CheckOutcome>;
  let random: () => number;

  beforeEach(() => {
    clock = new FakeClock();
    [asked, told, down] = [[], [], new Set()];
    random = () => 0.5;
    answer = async ({ port }) => await Promise.resolve(down.has(port) ? { kind: 'failed', reason: 'no' } : { kind: 'passed' });
    checks = new HealthChecks({
      material: { load: async () => await Promise.resolve(), caBundle: () => undefined, certificate: () => undefined },
      log: createLog('silent'),
      clock,
      random: () => random(),
      probe: async (target) => {
        asked.push(`${String(clock.ms)} ${String(target.port)}${target.path}`);
        return await answer(target);
      },
      onChange: ({ unhealthy, healthy }) => {
        told.push([...unhealthy.map((id) => `-${id}`), ...healthy.map((id) => `+${id}`)].join(','));
      },
    });
  });

  afterEach(async () => {
    await checks[Symbol.asyncDispose]();
    expect(clock.sleeping).toBe(0);
  });

  test('asks soon after the begin, and then in each period', async () => {
    checks.changed([serviceOf('a', [1])], []);
    await clock.pass(12_000);
    expect(asked).toEqual(['1000 1/healthz', '6000 1/healthz', '11000 1/healthz']);
  });

  test('asks many that are new each at its own moment, and lets periods wander', async () => {
    let seed = 0;
    random = () => (seed = (seed + 0.37) % 1);
    checks.changed(
      [
        serviceOf(
          'a',
          Array.from({ length: 100 }, (_, index) => index + 1),
        ),
      ],
      [],
    );
    await clock.pass(FIRST_CHECK_MS);
    const moments = asked.map((text) => Number(text.split(' ')[0]));
    expect([asked.length, new Set(moments.map((ms) => Math.floor(ms / 200))).size]).toEqual([100, 10]);
    asked = [];
    await clock.pass(20_000);
    const ofOne = asked.filter((text) => text.endsWith(' 7/healthz')).map((text) => Number(text.split(' ')[0]));
    const periods = ofOne.slice(1).map((ms, index) => ms - (ofOne[index] ?? 0));
    expect(periods.every((ms) => ms >= 4_500 && ms <= 5_500)).toBe(true);
    expect(new Set(periods).size).toBeGreaterThan(1);
  });

  test('says what changed, all of one turn at once', async () => {
    checks.changed([serviceOf('a', [1, 2, 3])], []);
    down = new Set([1, 2]);
    await clock.pass(10_000);
    expect(told).toEqual(['-a 1,-a 2']);
    expect(checks.unhealthy).toEqual(['a 1', 'a 2']);
    expect(
      checks
        .all()
        .map(({ serviceId, endpointId, isHealthy, reason, sinceMs }) => [serviceId, endpointId, isHealthy, reason, sinceMs]),
    ).toEqual([
      ['a', 'a 1', false, 'no', 6_000],
      ['a', 'a 2', false, 'no', 6_000],
      ['a', 'a 3', true, '', 0],
    ]);
    down.delete(1);
    await clock.pass(5_000);
    expect([told, checks.unhealthy]).toEqual([['-a 1,-a 2', '+a 1'], ['a 2']]);
  });

  test('a change begins and ends exactly the checks that changed, and keeps what was found', async () => {
    down = new Set([1]);
    checks.changed([serviceOf('a', [1, 2]), serviceOf('b', [3])], []);
    await clock.pass(7_000);
    expect(told).toEqual(['-a 1']);
    asked = [];
    checks.changed([serviceOf('a', [1, 4])], ['b']);
    await clock.pass(2_000);
    expect(asked).toEqual(['8000 4/healthz']); // 1 goes on as it did: at 11000.
    await clock.pass(3_000);
    expect(asked).toEqual(['8000 4/healthz', '11000 1/healthz']);
    expect(checks.unhealthy).toEqual(['a 1']);
    checks.changed([serviceOf('a', [1, 4], { ...HEALTH, path: '/other' })], []);
    expect(checks.unhealthy).toEqual(['a 1']);
    asked = [];
    await clock.pass(1_500);
    expect(asked).toEqual(['13000 1/other', '13000 4/other']);
    expect(told).toEqual(['-a 1']);
  });

  test('what is not checked any more is healthy', async () => {
    down = new Set([1, 2]);
    checks.changed([serviceOf('a', [1, 2])], []);
    await clock.pass(7_000);
    checks.changed([{ ...serviceOf('a', [2]), policy: { balance: { kind: 'round-robin' } } }], []);
    await clock.pass(10_000);
    expect(told).toEqual(['-a 1,-a 2', '+a 1,+a 2']);
    expect([checks.all(), clock.sleeping]).toEqual([[], 0]);
  });

  test('what an earlier generation found counts until a check says otherwise', async () => {
    checks.changed([serviceOf('a', [1, 2])], []);
    checks.inherit(['a 1', 'gone 7']);
    expect(checks.unhealthy).toEqual(['a 1']);
    await clock.pass(1_000);
    expect([checks.unhealthy, told]).toEqual([[], ['-a 1', '+a 1']]);
    checks.inherit(['a 1']); // It was checked here.
    expect(checks.unhealthy).toEqual([]);
  });

  test('has no more than so many under way, and takes all in their turn', async () => {
    random = () => 0;
    let now = 0;
    let most = 0;
    const waiting: (() => void)[] = [];
    answer = async () => {
      now += 1;
      most = Math.max(most, now);
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.push(resolve);
      await promise;
      now -= 1;
      return { kind: 'passed' };
    };
    const count = 3 * CHECKS_AT_ONCE;
    checks.changed(
      [
        serviceOf(
          'a',
          Array.from({ length: count }, (_, index) => index + 1),
        ),
      ],
      [],
    );
    await clock.pass(0);
    expect([asked.length, now]).toEqual([CHECKS_AT_ONCE, CHECKS_AT_ONCE]);
    while (asked.length < count || waiting.length > 0) {
      for (const end of waiting.splice(0)) end();
      await nextTurn();
    }
    expect([most, asked.length]).toEqual([CHECKS_AT_ONCE, count]);
  });

  test('ends with its owner, also what is under way and what waits', async () => {
    const stopped = Promise.withResolvers<CheckOutcome>();
    answer = async () => await stopped.promise;
    checks.changed([serviceOf('a', [1, 2])], []);
    await clock.pass(1_000);
    const disposed = checks[Symbol.asyncDispose]();
    stopped.resolve({ kind: 'failed', reason: 'no' });
    await disposed;
    checks.changed([serviceOf('b', [3])], []);
    await clock.pass(60_000);
    expect([asked.length, told]).toEqual([2, []]);
  });
});
