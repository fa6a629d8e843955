/** Accounts of streams: how long they are open, each for itself, whole milliseconds that add up, and no report for each of them every second. */
import * as fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { Counters } from '#proxy/counters.ts';
import { Traffic } from '#proxy/traffic.ts';

let nowMs: number;
let traffic: Traffic;

beforeEach(() => {
  nowMs = 1_000_000.4;
  traffic = new Traffic(new Counters(), () => nowMs);
});

function told(): readonly (number | undefined)[] {
  return traffic.collect().map(({ streamMs }) => streamMs);
}

describe('the time of streams', () => {
  test('is told while they are open every five seconds, and the rest when the last one ends', () => {
    const account = traffic.open('acme', 'c1');
    expect(told()).toEqual([]);
    traffic.streamBegins(account);
    nowMs += 1000;
    traffic.streamBegins(account);
    nowMs += 1000;
    expect(told()).toEqual([1000]);
    nowMs += 2900;
    expect(told()).toEqual([]);
    nowMs += 100;
    expect(told()).toEqual([8000]);
    traffic.streamEnds(account);
    nowMs += 500;
    expect(told()).toEqual([]);
    traffic.streamEnds(account);
    expect(told()).toEqual([500]);
    nowMs += 10_000;
    expect(told()).toEqual([]);
  });

  test('goes along with what moves, and an account whose last user went keeps it until its streams end', () => {
    const account = traffic.open('acme', 'c1');
    traffic.streamBegins(account);
    nowMs += 700;
    account.downstreamInBytes += 5;
    const [delta] = traffic.collect();
    expect(delta).toEqual({
      tenant: 'acme',
      endpointId: 'c1',
      requests: 0,
      heldMs: 0,
      streamMs: 0,
      downstreamInBytes: 5,
      downstreamOutBytes: 0,
      upstreamInBytes: 0,
      upstreamOutBytes: 0,
    });
    traffic.close(account);
    expect(told()).toEqual([]);
    nowMs += 300;
    traffic.streamEnds(account);
    expect(told()).toEqual([1000]);
    expect(told()).toEqual([]);
    expect(traffic.open('acme', 'c1')).not.toBe(account);
  });

  test('is the sum of what each of them was open, whenever it is asked for', () => {
    const step = fc.tuple(fc.constantFrom('begin', 'end', 'collect'), fc.double({ min: 0, max: 20_000, noNaN: true }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const one = new Traffic(new Counters(), () => nowMs);
        const account = one.open('acme', 'c1');
        const open: number[] = [];
        let [sum, due] = [0, 0];
        const collect = (): void => {
          for (const { streamMs = 0 } of one.collect()) sum += streamMs;
        };
        const end = (sinceMs: number | undefined): void => {
          if (sinceMs === undefined) return;
          due += Math.floor(nowMs) - sinceMs;
          one.streamEnds(account);
        };
        for (const [what, spanMs] of steps) {
          nowMs += spanMs;
          if (what === 'begin') {
            open.push(Math.floor(nowMs));
            one.streamBegins(account);
          } else if (what === 'end') end(open.shift());
          else collect();
        }
        for (const sinceMs of open) end(sinceMs);
        collect();
        expect(sum).toBe(due);
      }),
    );
  });
});
