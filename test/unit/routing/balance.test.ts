import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { pickEndpoint } from '#routing/balance.ts';

function serviceOf(count: number): {
  endpoints: { id: string; address: string; port: number; hostName: string; generation: number }[];
} {
  return {
    endpoints: Array.from({ length: count }, (_, index) => ({
      id: String(index),
      address: '::1',
      port: 1,
      hostName: 'h',
      generation: 1,
    })),
  };
}

describe('pickEndpoint()', () => {
  test('picks one with the least in flight, whatever the turn', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5), { minLength: 1, maxLength: 8 }), fc.nat(), (inFlight, turn) => {
        const picked = pickEndpoint(serviceOf(inFlight.length), (id) => inFlight[Number(id)] ?? 0, turn);
        expect(inFlight[Number(picked?.id)]).toBe(Math.min(...inFlight));
      }),
    );
  });

  test('takes turns on ties', () => {
    const picks = [0, 1, 2, 3, 4, 5].map((turn) => pickEndpoint(serviceOf(3), () => 0, turn)?.id);
    expect(picks).toEqual(['0', '1', '2', '0', '1', '2']);
  });

  test('gives nothing for a service without endpoints', () => {
    expect(pickEndpoint(serviceOf(0), () => 0, 1)).toBeUndefined();
  });
});
