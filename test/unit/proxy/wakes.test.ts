import { beforeEach, describe, expect, test } from 'vitest';
import { Wakes, asleepAmong } from '#proxy/wakes.ts';

describe('Wakes', () => {
  let nowMs = 0;
  let told: string[];
  let wakes: Wakes;

  beforeEach(() => {
    nowMs = 0;
    told = [];
    const clock = {
      nowMs: () => nowMs,
      monotonicMs: () => nowMs,
      sleep: async () => {
        await Promise.resolve();
      },
    };
    wakes = new Wakes(clock, { againMs: 1000, tell: (ids) => told.push(ids.join(' ')) });
  });

  test('ask() passes on the same once in a while', () => {
    wakes.ask(['a']);
    wakes.ask(['b', 'c']);
    wakes.ask(['a']);
    nowMs = 1000;
    wakes.ask(['a']);
    expect(told).toEqual(['a', 'b c', 'a']);
  });

  test('ask() leaves out what could not be woken, until its time is over', () => {
    wakes.ask(['a', 'b']);
    wakes.failed(['a'], 500);
    wakes.ask(['a', 'b']);
    wakes.ask(['a']);
    nowMs = 500;
    wakes.ask(['a']);
    expect(told).toEqual(['a b', 'b', 'a']);
  });

  test('failures() tells what is left of the time', () => {
    wakes.failed(['a', 'b'], 500);
    wakes.failed(['b'], 900);
    nowMs = 600;
    expect([...wakes.failures()]).toEqual([{ endpointIds: ['b'], retryAfterMs: 300 }]);
    expect([wakes.failedForMs('a'), wakes.failedForMs('b')]).toEqual([0, 300]);
  });

  test('keepOnly() forgets who is awake', () => {
    wakes.ask(['a']);
    wakes.ask(['b']);
    wakes.failed(['c', 'd'], 500);
    wakes.keepOnly((id) => id === 'b' || id === 'd');
    wakes.ask(['a']);
    wakes.ask(['b']);
    expect(told).toEqual(['a', 'b', 'a']);
    expect([wakes.failedForMs('c'), wakes.failedForMs('d')]).toEqual([0, 500]);
  });

  test('asleepAmong() gives the ids of sleepers', () => {
    const at = { address: '', port: 80, hostName: 'h', generation: 1 };
    expect(
      asleepAmong([
        { id: 'a', ...at },
        { id: 'b', ...at, state: 'asleep' },
      ]),
    ).toEqual(new Set(['b']));
  });
});
