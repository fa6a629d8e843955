import { beforeEach, describe, expect, test } from 'vitest';
import { LoadSum, Loads } from '#proxy/loads.ts';

describe('Loads', () => {
  const [one, other] = [{ pid: 1 }, { pid: 2 }];
  let nowMs = 0;
  let loads: Loads<{ pid: number }>;

  beforeEach(() => {
    nowMs = 0;
    loads = new Loads({
      nowMs: () => nowMs,
      monotonicMs: () => nowMs,
      sleep: async () => {
        await Promise.resolve();
      },
    });
  });

  test('of() adds up what all workers have', () => {
    loads.told(one, [{ endpointId: 'a', inFlight: 2, held: 1 }]);
    loads.told(other, [
      { endpointId: 'a', inFlight: 3, held: 0 },
      { endpointId: 'b', inFlight: 1, held: 0 },
    ]);
    expect(loads.of('a')).toEqual({ inFlight: 5, held: 1, quietMs: 0 });
    expect(loads.of('b')).toEqual({ inFlight: 1, held: 0, quietMs: 0 });
    expect(loads.of('c')).toEqual({ inFlight: 0, held: 0, quietMs: undefined });
  });

  test('of() tells how long an endpoint had nothing to do, since it was named last', () => {
    loads.told(one, [{ endpointId: 'a', inFlight: 1, held: 0 }]);
    nowMs = 1000;
    loads.told(one, [{ endpointId: 'a', inFlight: 0, held: 0 }]);
    nowMs = 2000;
    loads.told(one, []);
    nowMs = 3000;
    expect(loads.of('a')).toEqual({ inFlight: 0, held: 0, quietMs: 2000 });
  });

  test('what a worker had is gone with it; when its endpoints were used is not', () => {
    loads.told(one, [{ endpointId: 'a', inFlight: 2, held: 0 }]);
    loads.forget(one);
    nowMs = 500;
    expect(loads.of('a')).toEqual({ inFlight: 0, held: 0, quietMs: 500 });
  });

  test('keepOnly() forgets endpoints that are gone', () => {
    loads.told(one, [{ endpointId: 'a', inFlight: 0, held: 0 }]);
    loads.keepOnly((id) => ['b'].includes(id));
    expect(loads.of('a').quietMs).toBe(undefined);
  });
});

test('LoadSum adds up by endpoint, and keeps those that are only named', () => {
  const sum = new LoadSum();
  sum.add('a', 1, 0);
  sum.add('b', 0, 0);
  sum.add('a', 1, 3);
  expect(sum.all()).toEqual([
    { endpointId: 'a', inFlight: 2, held: 3 },
    { endpointId: 'b', inFlight: 0, held: 0 },
  ]);
});
