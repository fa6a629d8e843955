import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hashOctets, hashText, leastRequest, parseBalance, randomTwo, rendezvous, roundRobin } from '#routing/balance.ts';
import type { Endpoint } from '#routing/route-table.ts';

function endpointsOf(weights: readonly number[]): readonly Endpoint[] {
  return weights.map((weight, index) => ({
    id: `e${String(index)}`,
    address: '::1',
    port: 1,
    hostName: 'h',
    generation: 1,
    ...(weight === 1 ? {} : { weight }),
  }));
}

function even(count: number): readonly Endpoint[] {
  return endpointsOf(Array.from({ length: count }, () => 1));
}

/** Mulberry32: the same numbers for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mix = Math.imul(state ^ (state >>> 15), 1 | state);
    mix = (mix + Math.imul(mix ^ (mix >>> 7), 61 | mix)) ^ mix;
    return ((mix ^ (mix >>> 14)) >>> 0) / 2 ** 32;
  };
}

function tally(picks: Iterable<Endpoint | undefined>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const pick of picks) counts.set(pick?.id ?? 'none', (counts.get(pick?.id ?? 'none') ?? 0) + 1);
  return counts;
}

const weightsArbitrary = fc.array(fc.nat(5), { minLength: 1, maxLength: 8 }).filter((weights) => weights.some((one) => one > 0));
const hashOf = (endpoint: Endpoint): number => hashText(endpoint.id);

describe('leastRequest()', () => {
  test('picks one with the least in flight for its weight, whatever the turn', () => {
    fc.assert(
      fc.property(weightsArbitrary, fc.array(fc.nat(5), { minLength: 8, maxLength: 8 }), fc.nat(), (weights, inFlight, turn) => {
        const picked = leastRequest(endpointsOf(weights), (id) => inFlight[Number(id.slice(1))] ?? 0, turn);
        const loads = weights.map((weight, index) => (weight === 0 ? Infinity : (inFlight[index] ?? 0) / weight));
        expect(loads[Number(picked?.id.slice(1))]).toBe(Math.min(...loads));
      }),
    );
  });

  test('takes turns on ties', () => {
    const picks = [0, 1, 2, 3, 4, 5].map((turn) => leastRequest(even(3), () => 0, turn)?.id);
    expect(picks).toEqual(['e0', 'e1', 'e2', 'e0', 'e1', 'e2']);
  });

  test('gives endpoints with nothing under way their shares', () => {
    const picks = Array.from({ length: 800 }, (_, turn) => leastRequest(endpointsOf([1, 0, 3, 4]), () => 0, turn));
    expect(tally(picks)).toEqual(
      new Map([
        ['e0', 100],
        ['e2', 300],
        ['e3', 400],
      ]),
    );
  });

  test('fills endpoints in the shares of their weights', () => {
    const inFlight = new Map<string, number>();
    for (let turn = 0; turn < 600; turn += 1) {
      const { id } = leastRequest(endpointsOf([1, 2, 3]), (each) => inFlight.get(each) ?? 0, turn) ?? { id: 'none' };
      inFlight.set(id, (inFlight.get(id) ?? 0) + 1);
    }
    expect([...inFlight.values()].toSorted((one, other) => one - other)).toEqual([100, 200, 300]);
  });

  test('gives nothing where there is nothing', () => {
    expect([leastRequest([], () => 0, 1), leastRequest(endpointsOf([0, 0]), () => 0, 1)]).toEqual([undefined, undefined]);
  });
});

describe('roundRobin()', () => {
  test('gives each its exact share of every round, and never one of weight 0', () => {
    fc.assert(
      fc.property(weightsArbitrary, fc.integer({ min: 1, max: 3 }), (weights, rounds) => {
        const endpoints = endpointsOf(weights);
        const credits = new Map<string, number>();
        const sum = weights.reduce((one, other) => one + other, 0);
        const counts = tally(Array.from({ length: rounds * sum }, () => roundRobin(endpoints, credits)));
        for (const [index, weight] of weights.entries()) expect(counts.get(`e${String(index)}`) ?? 0).toBe(rounds * weight);
        expect([...credits.values()].every((credit) => credit === 0)).toBe(true);
      }),
    );
  });

  test('spreads the turns of a heavy endpoint', () => {
    const credits = new Map<string, number>();
    const picks = Array.from({ length: 7 }, () => roundRobin(endpointsOf([5, 1, 1]), credits)?.id);
    expect(picks).toEqual(['e0', 'e0', 'e1', 'e0', 'e2', 'e0', 'e0']);
  });

  test('keeps shares while endpoints come and go', () => {
    const credits = new Map<string, number>();
    const all = endpointsOf([2, 1, 1]);
    const random = randomOf(7);
    for (let turn = 0; turn < 500; turn += 1)
      roundRobin(
        all.filter(() => random() < 0.6),
        credits,
      );
    const counts = tally(Array.from({ length: 4000 }, () => roundRobin(all, credits)));
    expect(Math.abs((counts.get('e0') ?? 0) - 2000)).toBeLessThan(10);
  });
});

describe('randomTwo()', () => {
  test('draws by weight where nothing is under way, within four standard deviations', () => {
    const random = randomOf(42);
    const draws = 20_000;
    const counts = tally(Array.from({ length: draws }, () => randomTwo(endpointsOf([1, 0, 3, 6]), () => 0, random)));
    for (const [id, share] of [
      ['e0', 0.1],
      ['e2', 0.3],
      ['e3', 0.6],
    ] as const)
      expect(Math.abs((counts.get(id) ?? 0) - draws * share)).toBeLessThan(4 * Math.sqrt(draws * share * (1 - share)));
    expect(counts.has('e1')).toBe(false);
  });

  test('never takes the one with the most for its weight, where there is another', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 8 }), fc.nat(), (count, seed) => {
        const busy = `e${String(seed % count)}`;
        const picked = randomTwo(even(count), (id) => (id === busy ? 9 : 1), randomOf(seed));
        expect(picked?.id).not.toBe(busy);
      }),
    );
  });

  test('takes the only one that may be taken', () => {
    const random = randomOf(1);
    expect(randomTwo(endpointsOf([0, 2, 0]), () => 5, random)?.id).toBe('e1');
    expect(randomTwo(endpointsOf([0]), () => 0, random)).toBeUndefined();
  });
});

describe('rendezvous()', () => {
  const keys = Array.from({ length: 20_000 }, (_, index) => hashText(`user-${String(index)}`));

  test('spreads keys by weight, within two hundredths', () => {
    const endpoints = endpointsOf([1, 0, 2, 5]);
    const counts = tally(keys.map((key) => rendezvous(endpoints, key, hashOf)));
    expect(counts.has('e1')).toBe(false);
    for (const [id, share] of [
      ['e0', 1 / 8],
      ['e2', 2 / 8],
      ['e3', 5 / 8],
    ] as const)
      expect(Math.abs((counts.get(id) ?? 0) / keys.length - share)).toBeLessThan(0.02);
  });

  test('moves only the keys of an endpoint that goes, and to one that comes', () => {
    fc.assert(
      fc.property(weightsArbitrary, fc.nat(), fc.array(fc.integer(), { minLength: 1, maxLength: 50 }), (weights, at, some) => {
        const all = endpointsOf(weights);
        const gone = all[at % all.length];
        const rest = all.filter((endpoint) => endpoint !== gone);
        const stays = some.filter((key) => rendezvous(all, key, hashOf) !== gone);
        const after = stays.map((key) => rendezvous(rest, key, hashOf));
        expect(after).toEqual(stays.map((key) => rendezvous(all, key, hashOf)));
      }),
    );
  });

  test('moves a share of the keys to an endpoint that comes', () => {
    const moved = keys.filter((key) => rendezvous(even(9), key, hashOf)?.id !== rendezvous(even(10), key, hashOf)?.id);
    expect(Math.abs(moved.length / keys.length - 0.1)).toBeLessThan(0.02);
  });

  test('a heavier endpoint takes keys, and loses none', () => {
    const light = endpointsOf([2, 2, 2]);
    const heavy = endpointsOf([4, 2, 2]);
    const moved = keys.filter((key) => rendezvous(light, key, hashOf)?.id !== rendezvous(heavy, key, hashOf)?.id);
    expect(new Set(moved.map((key) => rendezvous(heavy, key, hashOf)?.id))).toEqual(new Set(['e0']));
  });
});

describe('hashText()', () => {
  test('is what hashOctets() says of the same octets', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (octets) => {
        expect(hashText(Buffer.from(octets).toString('latin1'))).toBe(hashOctets(octets, 0, octets.length));
      }),
    );
  });

  test('stays as it is: clients stay at their endpoints across releases', () => {
    expect(['', 'a', 'user-1'].map(hashText)).toEqual([2_872_998_923, 444_641_715, 2_005_895_916]);
  });
});

describe('parseBalance()', () => {
  test('knows every way', () => {
    const texts = ['least-request', 'round-robin', 'random-two', 'hash(ip)', 'hash(header:X-User)', 'hash(cookie:SID)'];
    expect(texts.map((text) => parseBalance(text))).toEqual([
      { kind: 'balance', balance: { kind: 'least-request' } },
      { kind: 'balance', balance: { kind: 'round-robin' } },
      { kind: 'balance', balance: { kind: 'random-two' } },
      { kind: 'balance', balance: { kind: 'hash-ip' } },
      { kind: 'balance', balance: { kind: 'hash-header', name: 'x-user' } },
      { kind: 'balance', balance: { kind: 'hash-cookie', name: 'SID' } },
    ]);
  });

  test.each(['', 'round', 'hash(header:)', 'hash(header:a b)', 'hash(cookie:a=b)', 'hash(ip:1)', 'HASH(ip)', 'hash(ip) '])(
    'refuses "%s"',
    (text) => {
      expect(parseBalance(text).kind).toBe('invalid');
    },
  );
});
