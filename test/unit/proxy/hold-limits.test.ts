/** Limits of a service in the hold queue: how much at once, how many wait, in which order, for how long. */
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { HoldQueue } from '#proxy/hold.ts';
import type { HoldRequest } from '#proxy/hold.ts';
import { Wakes } from '#proxy/wakes.ts';
import type { Endpoint, Service, ServiceLimits } from '#routing/route-table.ts';

const NODE_MAX = 50;

interface Request extends HoldRequest {
  readonly name: number;
  heldSinceMs: number;
}

/** A worker's queue with one service, and what exchanges do around it. */
class Bench implements Disposable {
  nowMs = 0;
  readonly inFlight = new Map<string, number>();
  readonly unhealthy = new Set<string>();
  /** Requests at an endpoint, and those that wait, in order. */
  readonly at = new Map<Request, string>();
  readonly waiting: Request[] = [];
  readonly went: number[] = [];
  readonly refused: string[] = [];
  readonly queue: HoldQueue;
  service: Service;
  #names = 0;
  #ended = 0;

  constructor(endpoints: number, limits: ServiceLimits, workers = 1) {
    const list: readonly Endpoint[] = Array.from({ length: endpoints }, (_, index) => ({
      id: `e${String(index)}`,
      address: '::1',
      port: 1,
      hostName: '',
      generation: 1,
    }));
    this.service = { id: 's', tenant: 't', endpoints: list, policy: { balance: { kind: 'round-robin' }, limits } };
    const clock = { nowMs: () => this.nowMs, monotonicMs: () => this.nowMs, sleep: async () => await Promise.resolve() };
    this.queue = new HoldQueue({
      clock,
      wakes: new Wakes(clock, { againMs: 5_000, tell: () => undefined }),
      serviceOf: () => this.service,
      inFlightOf: (id) => this.inFlight.get(id) ?? 0,
      inFlightMax: () => NODE_MAX,
      workers,
      unhealthy: this.unhealthy,
    });
  }

  ask(hashKey: () => number | undefined = () => undefined): Request {
    const request: Request = {
      name: this.#names,
      serviceId: 's',
      avoid: new Set(),
      heldSinceMs: -1,
      hashKey,
      settle: (decision) => {
        request.heldSinceMs = -1;
        this.waiting.splice(this.waiting.indexOf(request), 1);
        this.#take(request, decision);
      },
    };
    this.#names += 1;
    const decision = this.queue.decide(request);
    if (decision === 'wait') {
      request.heldSinceMs = this.nowMs;
      this.waiting.push(request);
      this.queue.wait(request);
    } else this.#take(request, decision);
    return request;
  }

  /** A request ends; what waits for that goes on with the next turn. */
  end(request: Request): void {
    const id = this.at.get(request);
    if (id === undefined) return;
    this.at.delete(request);
    this.inFlight.set(id, (this.inFlight.get(id) ?? 0) - 1);
    if (this.queue.isPaced) this.#ended += 1;
  }

  turn(): void {
    const ended = this.#ended;
    this.#ended = 0;
    if (ended > 0) this.queue.ended(ended);
  }

  leave(request: Request): void {
    const at = this.waiting.indexOf(request);
    if (at === -1) return;
    this.waiting.splice(at, 1);
    this.queue.leave(request);
  }

  #take(request: Request, decision: Endpoint | string): void {
    if (typeof decision === 'string') {
      this.refused.push(`${String(request.name)} ${decision}`);
      return;
    }
    this.inFlight.set(decision.id, (this.inFlight.get(decision.id) ?? 0) + 1);
    this.at.set(request, decision.id);
    this.went.push(request.name);
  }

  [Symbol.dispose](): void {
    this.queue[Symbol.dispose]();
  }
}

describe('HoldQueue with limits of a service', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test('refuses at once what is too much where nobody may wait', () => {
    using bench = new Bench(2, { connections: 2 });
    for (let index = 0; index < 6; index += 1) bench.ask();
    expect(bench.went).toEqual([0, 1, 2, 3]);
    expect(bench.refused).toEqual(['4 endpoint-busy', '5 endpoint-busy']);
    expect(bench.queue.isPaced).toBe(false);
  });

  test('lets as many wait as may, and one on for each that ends, in order', () => {
    using bench = new Bench(1, { connections: 3, pending: 2 });
    const requests = Array.from({ length: 6 }, () => bench.ask());
    expect([bench.went, bench.refused]).toEqual([[0, 1, 2], ['5 endpoint-busy']]);
    for (const request of requests.slice(0, 2)) bench.end(request);
    const late = bench.ask(); // Room for two, and two wait: it is the first of the next two.
    expect(bench.waiting).toContain(late);
    bench.turn();
    expect(bench.went).toEqual([0, 1, 2, 3, 4]);
    bench.end(late);
    expect(bench.waiting).toEqual([late]);
  });

  test('takes a share of what is said for the node, and one at least', () => {
    using half = new Bench(1, { connections: 5, pending: 3 }, 2);
    for (let index = 0; index < 9; index += 1) half.ask();
    expect([half.went.length, half.waiting.length]).toEqual([3, 2]);
    using least = new Bench(1, { connections: 1 }, 8);
    least.ask();
    least.ask();
    expect([least.went, least.refused]).toEqual([[0], ['1 endpoint-busy']]);
  });

  test('has the limit of all services where it says none', () => {
    using bench = new Bench(1, { pending: 1 });
    for (let index = 0; index < NODE_MAX + 2; index += 1) bench.ask();
    expect([bench.went.length, bench.waiting.length, bench.refused.length]).toEqual([NODE_MAX, 1, 1]);
  });

  test('refuses who waited for as long as its service says', () => {
    using bench = new Bench(1, { connections: 1, pending: 5, holdMs: 1_000 });
    bench.ask();
    bench.ask();
    bench.nowMs = 600;
    bench.ask();
    bench.nowMs = 1_000;
    vi.advanceTimersByTime(250);
    expect(bench.refused).toEqual(['1 hold-expired']);
    bench.nowMs = 1_600;
    vi.advanceTimersByTime(250);
    expect([bench.refused, bench.queue.size]).toEqual([['1 hold-expired', '2 hold-expired'], 0]);
  });

  test('and the same for a frozen one, though the freeze lasts; more may wait for that than for room', () => {
    using bench = new Bench(1, { connections: 1, holdMs: 1_000 });
    bench.queue.freeze(['e0'], 5_000);
    bench.ask();
    bench.nowMs = 500;
    bench.ask();
    bench.nowMs = 1_000;
    vi.advanceTimersByTime(250);
    expect([bench.refused, bench.waiting.length]).toEqual([['0 hold-expired'], 1]);
    bench.queue.thaw(['e0']);
    expect(bench.went).toEqual([1]);
  });

  test('who waits stays where fewer may wait from now on', () => {
    using bench = new Bench(1, { connections: 1, pending: 5 });
    const [first] = [bench.ask(), bench.ask(), bench.ask()];
    bench.service = { ...bench.service, policy: { balance: { kind: 'round-robin' }, limits: { connections: 1 } } };
    bench.queue.release();
    bench.ask();
    expect([bench.waiting.length, bench.refused]).toEqual([2, ['3 endpoint-busy']]);
    bench.end(first);
    bench.turn();
    expect(bench.went).toEqual([0, 1]);
  });

  test('without a word about it, who waits for a frozen one waits up to its deadline', () => {
    using bench = new Bench(1, { connections: 1 });
    bench.queue.freeze(['e0'], 100_000);
    bench.ask();
    bench.nowMs = 99_000;
    vi.advanceTimersByTime(99_000);
    expect([bench.refused, bench.waiting.length]).toEqual([[], 1]);
    bench.nowMs = 100_000;
    vi.advanceTimersByTime(1_000);
    expect(bench.refused).toEqual(['0 hold-expired']);
  });

  test('a higher limit lets on who waits, with the table that has it', () => {
    using bench = new Bench(1, { connections: 1, pending: 5 });
    for (let index = 0; index < 4; index += 1) bench.ask();
    bench.service = { ...bench.service, policy: { balance: { kind: 'round-robin' }, limits: { connections: 3, pending: 5 } } };
    bench.queue.release();
    expect([bench.went, bench.waiting.length]).toEqual([[0, 1, 2], 1]);
  });

  test('a key whose endpoint is full goes to its next one, and comes back', () => {
    using bench = new Bench(3, { connections: 1 });
    bench.service = { ...bench.service, policy: { balance: { kind: 'hash-ip' }, limits: { connections: 1 } } };
    const requests = Array.from({ length: 4 }, () => bench.ask(() => 7));
    expect([new Set(bench.at.values()).size, bench.refused]).toEqual([3, ['3 endpoint-busy']]);
    const [first] = requests;
    const home = first === undefined ? '' : bench.at.get(first);
    for (const request of requests) bench.end(request);
    expect(bench.at.get(bench.ask(() => 7))).toBe(home);
  });

  test('who is unhealthy gets nothing; where all are, nobody waits for that', () => {
    using bench = new Bench(2, { connections: 1, pending: 5 });
    const health = { path: '/', intervalMs: 1, timeoutMs: 1, unhealthyAfter: 1, healthyAfter: 1 };
    bench.service = {
      ...bench.service,
      policy: { balance: { kind: 'round-robin' }, limits: { connections: 1, pending: 5 }, health },
    };
    bench.unhealthy.add('e0');
    const first = bench.ask();
    bench.ask();
    expect([bench.at.get(first), bench.waiting.length]).toEqual(['e1', 1]);
    bench.unhealthy.add('e1');
    bench.queue.release();
    bench.ask();
    expect(bench.refused).toEqual(['1 unhealthy', '2 unhealthy']);
    bench.queue.freeze(['e0', 'e1'], 1_000); // It makes nobody well.
    bench.ask();
    expect(bench.refused[2]).toBe('3 unhealthy');
    bench.queue.thaw(['e0', 'e1']);
    bench.unhealthy.delete('e0');
    expect(bench.at.get(bench.ask())).toBe('e0');
    // Checks that a service does not want any more say nothing.
    bench.service = { ...bench.service, policy: { balance: { kind: 'round-robin' } } };
    bench.end(first);
    bench.ask();
    bench.ask();
    expect(new Set(bench.at.values())).toEqual(new Set(['e0', 'e1']));
  });

  test('keeps order and limits, and lets nobody wait while there is room, whatever happens', () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.constant({ kind: 'ask' as const }) },
      { weight: 3, arbitrary: fc.nat().map((at) => ({ kind: 'end' as const, at })) },
      { weight: 1, arbitrary: fc.nat().map((at) => ({ kind: 'leave' as const, at })) },
      { weight: 3, arbitrary: fc.constant({ kind: 'turn' as const }) },
    );
    const limits = { endpoints: fc.integer({ min: 1, max: 3 }), connections: fc.integer({ min: 1, max: 3 }), pending: fc.nat(4) };
    fc.assert(
      fc.property(fc.record(limits), fc.array(step, { maxLength: 80 }), ({ endpoints, connections, pending }, steps) => {
        using bench = new Bench(endpoints, { connections, pending });
        const turned = (): void => {
          bench.turn();
          const room = endpoints * connections - bench.at.size;
          expect(bench.waiting.length === 0 || room === 0).toBe(true);
          expect(bench.waiting.length).toBeLessThanOrEqual(pending);
        };
        for (const one of steps) {
          if (one.kind === 'ask') bench.ask();
          else if (one.kind === 'turn') turned();
          else if (one.kind === 'end') {
            const all = [...bench.at.keys()];
            if (all.length > 0) bench.end(all[one.at % all.length] ?? bench.ask());
          } else if (bench.waiting.length > 0) bench.leave(bench.waiting[one.at % bench.waiting.length] ?? bench.ask());
          expect(Math.max(0, ...bench.inFlight.values())).toBeLessThanOrEqual(connections);
        }
        turned();
        expect(bench.went).toEqual(bench.went.toSorted((a, b) => a - b)); // Who came first goes first.
        // All that wait go on when all that is under way ends.
        while (bench.at.size > 0) {
          for (const request of bench.at.keys()) bench.end(request);
          turned();
        }
        expect([bench.queue.size, bench.waiting]).toEqual([0, []]);
      }),
    );
  });
});
