/** Pools of connections, and what is under way at endpoints. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Counters } from '#proxy/counters.ts';
import { isSameEndpoint } from '#proxy/ports/port-table.ts';
import { Endpoints } from '#proxy/endpoints.ts';
import type { Emptying, IdleConnection, StreamTally, Visit } from '#proxy/endpoints.ts';
import { Traffic } from '#proxy/traffic.ts';
import type { Endpoint } from '#routing/route-table.ts';
import type { Clock } from '#clock';

interface Connection extends IdleConnection {
  closed: number;
}

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => Date.now(),
  sleep: async () => {
    await Promise.resolve();
  },
};

function endpoint(id: string, overrides: Partial<Endpoint> = {}): Endpoint {
  return { id, address: '10.0.0.1', port: 80, hostName: 'h', generation: 1, ...overrides };
}

function connection(): Connection {
  const made = {
    closed: 0,
    close: () => {
      made.closed += 1;
    },
  };
  return made;
}

function visit(onCut: () => void = () => undefined, more: Partial<Visit> = {}): Visit {
  return { isStream: false, endStream: () => undefined, replay: () => false, cut: onCut, ...more };
}

function within(drainMs: number, more: Partial<Emptying> = {}): Emptying {
  return { drainMs, carriesStreams: false, lasts: () => true, ...more };
}

const NOTHING = { cut: 0, waitedMs: 0, closedWebSockets: 0, endedEventStreams: 0, replayed: 0 };

describe('Endpoints', () => {
  let traffic: Traffic;
  let endpoints: Endpoints<Connection>;

  beforeEach(() => {
    vi.useFakeTimers();
    traffic = new Traffic(new Counters(), () => 0);
    endpoints = new Endpoints(traffic);
  });

  afterEach(() => {
    vi.useRealTimers();
  });

  test('an address of an endpoint has one pool for each tenant and generation', () => {
    const pool = endpoints.poolOf('acme', endpoint('a'));
    expect(endpoints.poolOf('acme', endpoint('a'))).toBe(pool);
    const others = [
      endpoints.poolOf('other', endpoint('a')),
      endpoints.poolOf('acme', endpoint('b')),
      endpoints.poolOf('acme', endpoint('a', { generation: 2 })),
      endpoints.poolOf('acme', endpoint('a', { port: 81 })),
      endpoints.poolOf('acme', endpoint('a', { address: '10.0.0.2' })),
    ];
    expect(new Set([pool, ...others]).size).toBe(6);
  });

  test('what is under way is counted by endpoint, over its generations and tenants, and once', () => {
    const [one, two] = [visit(), visit()];
    const old = endpoints.poolOf('acme', endpoint('a'));
    const moved = endpoints.poolOf('acme', endpoint('a', { generation: 2 }));
    endpoints.enter(old, one);
    endpoints.enter(moved, two);
    expect(endpoints.countOf('a')).toBe(2);
    endpoints.leave(old, one);
    endpoints.leave(old, one);
    expect(endpoints.countOf('a')).toBe(1);
    endpoints.leave(moved, two);
    expect([endpoints.countOf('a'), endpoints.countOf('unknown')]).toEqual([0, 0]);
  });

  test('a retired pool closes what is idle, and is not given out again', () => {
    const pool = endpoints.poolOf('acme', endpoint('a'));
    const other = endpoints.poolOf('acme', endpoint('b'));
    const [one, two, three] = [connection(), connection(), connection()];
    pool.idle.push(one, two);
    other.idle.push(three);
    expect(endpoints.idleConnections).toBe(3);
    endpoints.retire(new Set(['a']));
    expect([one.closed, two.closed, three.closed]).toEqual([1, 1, 0]);
    expect([pool.retired, pool.idle.length, other.retired, endpoints.idleConnections]).toEqual([true, 0, false, 1]);
    const next = endpoints.poolOf('acme', endpoint('a'));
    expect([next === pool, next.retired]).toEqual([false, false]);
    expect(next.load).toBe(pool.load);
  });

  test('an endpoint object that was asked for before leads to the new pool after a retirement', () => {
    const same = endpoint('a');
    const pool = endpoints.poolOf('acme', same);
    endpoints.retire(new Set(['a']));
    expect(endpoints.poolOf('acme', same)).not.toBe(pool);
  });

  test('a connection that closes itself while its pool is retired does no harm', () => {
    const pool = endpoints.poolOf('acme', endpoint('a'));
    const one: Connection = {
      closed: 0,
      close: () => {
        one.closed += 1;
        const at = pool.idle.indexOf(one);
        if (at !== -1) pool.idle.splice(at, 1);
      },
    };
    const two = connection();
    pool.idle.push(one, two);
    endpoints.retire(new Set(['a']));
    expect([one.closed, two.closed]).toEqual([1, 1]);
  });

  test('a new table keeps the pools of endpoints that stay, and retires the others', () => {
    const stays = endpoints.poolOf('acme', endpoint('a'));
    const moves = endpoints.poolOf('acme', endpoint('b'));
    const goes = endpoints.poolOf('acme', endpoint('c'));
    const [kept, closed] = [connection(), connection()];
    stays.idle.push(kept);
    moves.idle.push(closed);
    const fresh = [endpoint('a'), endpoint('b', { generation: 2, address: '10.0.0.9' })];
    endpoints.keepOnly((pooled) => fresh.some((one) => isSameEndpoint(one, pooled)));
    expect([stays.retired, moves.retired, goes.retired]).toEqual([false, true, true]);
    expect([kept.closed, closed.closed]).toEqual([0, 1]);
    expect(fresh.map((each) => endpoints.poolOf('acme', each) === stays)).toEqual([true, false]);
    expect(stays.idle).toEqual([kept]);
  });

  test('what is under way outlives a table that does not have its endpoint', () => {
    const here = visit();
    const pool = endpoints.poolOf('acme', endpoint('a'));
    endpoints.enter(pool, here);
    endpoints.keepOnly(() => false);
    expect([pool.retired, endpoints.countOf('a')]).toEqual([true, 1]);
    endpoints.keepOnly((pooled) => isSameEndpoint(pooled, endpoint('a', { generation: 2 })));
    expect(endpoints.countOf('a')).toBe(1);
    expect(endpoints.poolOf('acme', endpoint('a', { generation: 2 })).load.visits.size).toBe(1);
    endpoints.leave(pool, here);
    expect(endpoints.countOf('a')).toBe(0);
  });

  test('accounts stay open while pools or visits use them', () => {
    const pool = endpoints.poolOf('acme', endpoint('a'));
    const here = visit();
    endpoints.enter(pool, here);
    endpoints.retire(new Set(['a']));
    expect(traffic.collect()).toEqual([]);
    pool.account.downstreamInBytes += 5;
    expect(traffic.collect()).toMatchObject([{ tenant: 'acme', endpointId: 'a', downstreamInBytes: 5 }]);
    expect(endpoints.poolOf('acme', endpoint('a')).account).toBe(pool.account);
    endpoints.retire(new Set(['a']));
    endpoints.leave(pool, here);
    expect(pool.account.users).toBe(0);
    pool.account.requests += 1;
    expect(traffic.collect()).toMatchObject([{ requests: 1 }]);
    traffic.collect();
    expect(endpoints.poolOf('acme', endpoint('a')).account).not.toBe(pool.account);
  });

  test('its end retires everything', () => {
    const pool = endpoints.poolOf('acme', endpoint('a'));
    const one = connection();
    pool.idle.push(one);
    endpoints[Symbol.dispose]();
    expect([one.closed, pool.retired, endpoints.idleConnections, pool.account.users]).toEqual([1, true, 0, 0]);
  });

  describe('emptied()', () => {
    test('returns at once where nothing is under way', async () => {
      expect(await endpoints.emptied(clock, ['a', 'b'], within(1_000))).toEqual(NOTHING);
    });

    test('returns when the last of all its endpoints has left', async () => {
      const [one, two, elsewhere] = [visit(), visit(), visit()];
      const [poolA, poolB] = [endpoints.poolOf('acme', endpoint('a')), endpoints.poolOf('acme', endpoint('b'))];
      endpoints.enter(poolA, one);
      endpoints.enter(poolB, two);
      endpoints.enter(endpoints.poolOf('acme', endpoint('c')), elsewhere);
      const over = vi.fn<(result: unknown) => void>();
      const waiting = endpoints.emptied(clock, ['a', 'b'], within(1_000)).then(over);
      await vi.advanceTimersByTimeAsync(100);
      endpoints.leave(poolA, one);
      await vi.advanceTimersByTimeAsync(100);
      expect(over).not.toHaveBeenCalled();
      endpoints.leave(poolB, two);
      await waiting;
      expect(over).toHaveBeenCalledWith({ ...NOTHING, waitedMs: 200 });
    });

    test('cuts what is left at its end, and nothing else', async () => {
      const cut: string[] = [];
      const pool = endpoints.poolOf('acme', endpoint('a'));
      const stays = visit(() => {
        cut.push('a');
        endpoints.leave(pool, stays);
      });
      const alsoStays = visit(() => cut.push('a again'));
      endpoints.enter(pool, stays);
      endpoints.enter(pool, alsoStays);
      endpoints.enter(
        endpoints.poolOf('acme', endpoint('c')),
        visit(() => cut.push('c')),
      );
      const waiting = endpoints.emptied(clock, ['a'], within(500));
      await vi.advanceTimersByTimeAsync(500);
      expect(await waiting).toEqual({ ...NOTHING, cut: 2, waitedMs: 500 });
      expect(cut).toEqual(['a', 'a again']);
    });

    test('ends streams at once, those that come up later too, and without regard to a message after a while', async () => {
      const pool = endpoints.poolOf('acme', endpoint('a'));
      const told: string[] = [];
      const stream = (name: string, endsAtMs: number): Visit => {
        const made: Visit = visit(undefined, {
          isStream: true,
          endStream: (tally: StreamTally, isLate: boolean) => {
            told.push(`${name} ${String(isLate)}`);
            if (clock.monotonicMs() < startMs + endsAtMs) return;
            tally.closedWebSockets += 1;
            endpoints.leave(pool, made);
          },
        });
        return made;
      };
      const startMs = clock.monotonicMs();
      endpoints.enter(pool, stream('one', 0));
      endpoints.enter(pool, stream('two', 100));
      const waiting = endpoints.emptied(clock, ['a'], within(1_000));
      await vi.advanceTimersByTimeAsync(500);
      expect(await waiting).toEqual({ ...NOTHING, closedWebSockets: 2, waitedMs: 100 });
      expect(told).toEqual(['one false', 'two false', 'two false', 'two true']);
    });

    test('leaves streams alone that are carried', async () => {
      const pool = endpoints.poolOf('acme', endpoint('a'));
      const told: string[] = [];
      const stream = visit(() => told.push('cut'), { isStream: true, endStream: () => told.push('ended') });
      const request = visit();
      endpoints.enter(pool, stream);
      endpoints.enter(pool, request);
      const waiting = endpoints.emptied(clock, ['a'], within(1_000, { carriesStreams: true }));
      await vi.advanceTimersByTimeAsync(100);
      endpoints.leave(pool, request);
      await vi.advanceTimersByTimeAsync(100);
      expect([await waiting, told]).toEqual([{ ...NOTHING, waitedMs: 150 }, []]);
    });

    test('takes back what may be sent again', async () => {
      const cut: string[] = [];
      const pool = endpoints.poolOf('acme', endpoint('a'));
      endpoints.enter(
        pool,
        visit(() => cut.push('safe'), { replay: () => true }),
      );
      endpoints.enter(
        pool,
        visit(() => cut.push('unsafe')),
      );
      const waiting = endpoints.emptied(clock, ['a'], within(500));
      await vi.advanceTimersByTimeAsync(500);
      expect([await waiting, cut]).toEqual([{ ...NOTHING, cut: 1, replayed: 1, waitedMs: 500 }, ['unsafe']]);
    });

    test('cuts nothing at an endpoint that was thawed meanwhile', async () => {
      const cut: string[] = [];
      let isFrozen = true;
      endpoints.enter(
        endpoints.poolOf('acme', endpoint('a')),
        visit(() => cut.push('a')),
      );
      const waiting = endpoints.emptied(clock, ['a'], within(500, { lasts: () => isFrozen }));
      await vi.advanceTimersByTimeAsync(100);
      isFrozen = false;
      await vi.advanceTimersByTimeAsync(500);
      expect([await waiting, cut]).toEqual([{ ...NOTHING, waitedMs: 150 }, []]);
    });
  });

  test('cutAll() cuts everything that is under way', () => {
    const cut: string[] = [];
    for (const id of ['a', 'b']) {
      endpoints.enter(
        endpoints.poolOf('acme', endpoint(id)),
        visit(() => cut.push(id)),
      );
    }
    endpoints.cutAll();
    expect(cut).toEqual(['a', 'b']);
  });
});
